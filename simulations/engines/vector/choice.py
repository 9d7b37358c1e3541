"""What the engine can choose between, and where it keeps what it chose."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import torch

from shared.files import write_atomically
from simulations.engines.vector.layers.kernel import Convolve, Form, Weights

_VERSION = 1
"""Of the kernels: another one makes what was measured before void."""


class Way(StrEnum):
    """How a block of clients is computed."""

    LAYERS = "layers"
    """Passes written by hand, all clients of the block in step."""
    STACKED = "stacked"
    """torch.func over stacked parameters."""
    IN_PLACE = "in_place"
    """torch's autograd, one client after another."""


@dataclass(frozen=True)
class Choice:
    """How to compute: the way, the form of its layers, and how many clients together."""

    way: Way
    chunk: int
    form: Form | None = None
    """Of the layers; None for the other ways."""

    def __str__(self) -> str:
        form = "" if self.form is None else f" ({self.form.weights} weights, {self.form.convolve} convolutions)"
        return f"{self.way}{form}, {self.chunk} clients at a time"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Choice":
        """Raises ValueError, KeyError or TypeError: not what `to_json` wrote."""
        fields = json.loads(text)
        form, chunk = fields["form"], int(fields["chunk"])
        if chunk < 1:
            raise ValueError(f"Expected at least one client at a time, got {chunk}")
        return cls(
            Way(fields["way"]),
            chunk,
            None if form is None else Form(Weights(form["weights"]), Convolve(form["convolve"])),
        )


class Remembered:
    """What one run computes with, for each kind of assignment: a run that goes on must not measure anew.

    Args:
        file: The run's own.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self, kind: tuple[bool, bool]) -> Choice | None:
        """None: nothing was kept of this kind, or nothing that can be read."""
        try:
            return Choice.from_json(self._all()[_name(kind)])
        except (ValueError, KeyError, TypeError):
            return None

    def write(self, kind: tuple[bool, bool], choice: Choice) -> None:
        """On disk when this returns. Raises OSError."""
        write_atomically(self._file, json.dumps(self._all() | {_name(kind): choice.to_json()}).encode())

    def _all(self) -> dict[str, str]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _name(kind: tuple[bool, bool]) -> str:
    return "".join(str(int(part)) for part in kind)


class Choices:
    """What was chosen before, one small file for each model, machine and settings.

    Args:
        folder: Where; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def read(self, key: str) -> Choice | None:
        """None: nothing was kept, or nothing that can be read; then it is measured again."""
        if self._folder is None:
            return None
        try:
            return Choice.from_json((self._folder / f"{key}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, key: str, choice: Choice) -> None:
        """A folder that cannot be written costs the next run a second, and is no reason to end this one."""
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._folder / f"{key}.json", choice.to_json().encode())
        except OSError:
            return


def user_cache_folder(environment: Mapping[str, str]) -> Path:
    """Where choices are kept by default: below XDG_CACHE_HOME, or `~/.cache`."""
    base = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "fleetlearn" / "engines"


def key_of(*facts: object) -> str:
    """A name for these facts on this machine, with this torch."""
    machine = (_processor(), os.cpu_count(), torch.__version__, _VERSION)
    return hashlib.sha256(repr((facts, machine)).encode()).hexdigest()[:32]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
