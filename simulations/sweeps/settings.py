"""A sweep as a file says it: an experiment, what may vary in it, and what is better.

experiment = "digits.toml"
trials = 60
sampler = "tpe"
pruner = "hyperband"
objectives = ["test_accuracy"]

[parameters]
"local.optimizer.learning_rate" = { low = 0.01, high = 1.0, log = true }
"model.kind" = { choices = ["linear", "mlp"] }
"_depth" = { low = 1, high = 3, when = { "model.kind" = ["mlp"] } }
"model.hidden.0" = { low = 16, high = 128, log = true, when = { "model.kind" = ["mlp"] } }
"model.hidden.1" = { low = 16, high = 128, log = true, when = { "_depth" = [2, 3] } }
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from simulations.experiments.errors import ExperimentError, Finding
from simulations.experiments.section import Section
from simulations.rounds.record import COLUMNS

Value = str | int | float | bool
When = dict[str, tuple[Value, ...]]


class _Parameter(Section):
    when: When = Field(default_factory=dict)
    """Only where each of these parameters has one of these values: an architecture's own sizes."""


class Choices(_Parameter):
    """One of some values."""

    choices: tuple[Any, ...] = Field(min_length=1)
    """Any: whatever the experiment's key may have, lists too."""


class Range(_Parameter):
    """A number between two; whole where both are."""

    low: int | float
    high: int | float
    log: bool = False
    """Whether ten times as much is as far as a tenth."""

    @model_validator(mode="after")
    def _in_order(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"expected low below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"expected low above 0 with log, got {self.low}")
        return self


class Sweep(Section):
    """What to search."""

    experiment: Path
    """Relative to the sweep's file."""
    parameters: dict[str, Annotated[Choices | Range, Field(union_mode="left_to_right")]] = Field(min_length=1)
    """By the experiment's keys. A key that begins with `_` is only there to be asked about in `when`."""
    objectives: tuple[str, ...] = Field(default=("test_accuracy",), min_length=1)
    """Columns of metrics.parquet, of the last round; the larger the better, with `-` before it the smaller."""
    trials: PositiveInt = 50
    workers: PositiveInt = 1
    """Processes; more machines may join by the storage."""
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    pruner: Literal["none", "median", "successive_halving", "hyperband"] = "none"
    """What stops trials early that look bad; with one objective only."""
    seed: NonNegativeInt = 0
    storage: str | None = None
    """`postgresql://user@host/name` for several machines; nothing: a SQLite file in the results folder."""

    @property
    def database(self) -> str | None:
        """The storage's URL with the driver that we install."""
        return self.storage and self.storage.replace("postgresql://", "postgresql+psycopg://", 1)

    @model_validator(mode="after")
    def _fits(self) -> "Sweep":
        for objective in self.objectives:
            if objective.removeprefix("-") not in COLUMNS:
                raise ValueError(f"expected objectives among {', '.join(COLUMNS)}, got {objective!r}")
        if len(self.objectives) > 1 and self.pruner != "none":
            raise ValueError("expected one objective with a pruner: early values of several cannot be ordered")
        return self


def read_sweep(path: Path) -> Sweep:
    """The sweep of this file. Raises ExperimentError with all that is wrong."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        sweep = Sweep.model_validate(document)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ExperimentError.at((), f"{path}: Expected a sweep's TOML file, got {error}") from error
    except ValidationError as error:
        findings = (Finding((), f"{path}: {_place(each['loc'])}{each['msg']}") for each in error.errors())
        raise ExperimentError(dict.fromkeys(findings)) from error
    return sweep.model_copy(update={"experiment": (path.parent / sweep.experiment).resolve()})


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) + ": " if location else ""
