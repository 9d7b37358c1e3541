"""Checkpoints of central training: one safetensors file an epoch, written whole or not at all."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.errors import FleetlearnError
from shared.files import write_atomically
from shared.tensors import MalformedTensorsError, Tensors, decode, encode

KEPT = 2
"""Newest checkpoints that stay: the second is there should the first be damaged."""
_NAME = re.compile(r"epoch-(\d{6})\.safetensors")


class CheckpointError(FleetlearnError):
    """A checkpoint that belongs to other training than the one that wants to resume."""

    code = "checkpoint_mismatch"


@dataclass(frozen=True)
class Checkpoint:
    """All that training needs to go on after `epoch` finished epochs."""

    task: str
    task_version: str
    seed: int
    epoch: int
    model: Tensors
    moments: Tensors
    """The optimizer's state, as `parameter.name`."""


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes the checkpoint durably, then removes all but the newest."""
    folder.mkdir(parents=True, exist_ok=True)
    identity = f"{checkpoint.task}\n{checkpoint.task_version}\n{checkpoint.seed}".encode()
    payload = encode(
        {
            "identity": np.frombuffer(identity, np.uint8),
            **{f"model/{name}": value for name, value in checkpoint.model.items()},
            **{f"moments/{name}": value for name, value in checkpoint.moments.items()},
        }
    )
    write_atomically(folder / f"epoch-{checkpoint.epoch:06d}.safetensors", payload)
    for _, path in _found(folder)[KEPT:]:
        path.unlink(missing_ok=True)


def newest_checkpoint(folder: Path, *, task: str, task_version: str, seed: int) -> Checkpoint | None:
    """The newest readable checkpoint, or nothing to resume from. Raises CheckpointError for one of other training."""
    for epoch, path in _found(folder):
        try:
            tensors = decode(path.read_bytes())
        except MalformedTensorsError:
            continue
        identity = bytes(np.asarray(tensors.get("identity", np.empty(0, np.uint8)), np.uint8)).decode(errors="replace")
        if identity != (expected := f"{task}\n{task_version}\n{seed}"):
            raise CheckpointError(
                f"Expected a checkpoint of task, version and seed {expected.split()}, got {identity.split()} in {path}",
                hint="Give each training its own checkpoint folder.",
            )
        return Checkpoint(task, task_version, seed, epoch, _under("model/", tensors), _under("moments/", tensors))
    return None


def _found(folder: Path) -> list[tuple[int, Path]]:
    """Checkpoints in the folder, newest first."""
    if not folder.is_dir():
        return []
    matches = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted(((int(match[1]), path) for match, path in matches if match), reverse=True)


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
