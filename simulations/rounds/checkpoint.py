"""All that a run needs to go on as if it had never stopped, in one file that is replaced whole.

Cohorts, batches and noise are functions of (seed, round, client), so no generator's state is stored. What clients keep
is in their logs; the checkpoint has where each vector is in them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save

from shared.files import write_atomically
from shared.tensors import MalformedTensorsError, Tensors, decode
from simulations.experiments.errors import ResultsFolderError
from simulations.rounds.kept import KeptIndex
from simulations.rounds.loop import RunState
from simulations.rounds.record import Records


@dataclass(frozen=True)
class Checkpoint:
    """A run between two rounds."""

    state: RunState
    records: Records
    kept: Mapping[str, KeptIndex]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replaces the checkpoint; on disk when this returns. Raises OSError, and then the old one is as it was."""
    state = checkpoint.state
    tensors: Tensors = {"round": np.array([state.round]), "model": state.model.cpu().numpy()}
    tensors |= {f"rule/{name}": value.cpu().numpy() for name, value in state.rule.items()}
    tensors |= {f"record/{name}": values for name, values in checkpoint.records.columns().items()}
    for name, index in checkpoint.kept.items():
        log = np.array([index.length, index.generation], np.int64)
        tensors |= {f"clients/{name}": index.clients, f"rows/{name}": index.rows, f"log/{name}": log}
    tensors |= {f"course/{name}": value for name, value in state.course.items()}
    tensors |= {f"past/{version}": model.cpu().numpy() for version, model in state.past.items()}
    write_atomically(path, save({name: np.asarray(value, order="C") for name, value in tensors.items()}))


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in this file. Raises ResultsFolderError where it is damaged."""
    try:
        tensors = decode(path.read_bytes())
        rule = {name: torch.from_numpy(value) for name, value in _below(tensors, "rule/").items()}
        past = {int(version): torch.from_numpy(value) for version, value in _below(tensors, "past/").items()}
        model, course = torch.from_numpy(tensors["model"]), _below(tensors, "course/")
        state = RunState(int(tensors["round"][0]), model, rule, course, past)
        records = Records({name: value.astype(np.float64) for name, value in _below(tensors, "record/").items()})
        rows, logs = _below(tensors, "rows/"), _below(tensors, "log/")
        kept = {
            name: KeptIndex(clients.astype(np.int64), rows[name].astype(np.int64), *logs[name].tolist())
            for name, clients in _below(tensors, "clients/").items()
        }
    except (MalformedTensorsError, KeyError, IndexError) as error:
        raise ResultsFolderError(
            f"Expected a checkpoint in {path}, got a damaged one: {error}", hint="Run the experiment anew."
        ) from error
    return Checkpoint(state, records, kept)


def _below(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
