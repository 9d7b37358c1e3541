"""metrics.parquet: one row for each seed and round."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import ExtraNotInstalledError
from shared.files import write_atomically
from simulations.experiments.errors import ResultsFolderError
from simulations.rounds.record import CLOCK_COLUMNS, COLUMNS, WHOLE_COLUMNS

Column = NDArray[np.float64]


@dataclass(frozen=True)
class Metrics:
    """Columns of equal length, `seed` first; NaN where a round measured nothing."""

    columns: Mapping[str, Column]

    @classmethod
    def of(cls, by_seed: Mapping[int, Mapping[str, Column]]) -> "Metrics":
        """One seed's rounds after the other's."""
        rounds = [len(columns["round"]) for columns in by_seed.values()]
        seeds = np.repeat(np.array(list(by_seed), np.float64), rounds)
        joined = {name: np.concatenate([columns[name] for columns in by_seed.values()]) for name in COLUMNS}
        return cls({"seed": seeds} | joined)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(self.columns["seed"].astype(int).tolist()))

    def of_seed(self, seed: int) -> dict[str, Column]:
        """This seed's rounds."""
        chosen = self.columns["seed"] == seed
        return {name: values[chosen] for name, values in self.columns.items()}

    def without_clock(self) -> dict[str, Column]:
        """What is the same whenever the experiment is run."""
        return {name: values for name, values in self.columns.items() if name not in CLOCK_COLUMNS}


def write_metrics(path: Path, metrics: Metrics) -> None:
    """Writes the table; whole numbers as integers, what was not measured as null."""
    pyarrow, parquet = _pyarrow()
    table = pyarrow.table(
        {
            name: pyarrow.array(values.astype(np.int64) if name in WHOLE_COLUMNS else values, from_pandas=True)
            for name, values in metrics.columns.items()
        }
    )
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink)
    write_atomically(path, sink.getvalue().to_pybytes())


def read_metrics(path: Path) -> Metrics:
    """The table. Raises ResultsFolderError where there is none."""
    pyarrow, parquet = _pyarrow()
    try:
        table = parquet.read_table(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise ResultsFolderError(
            f"Expected the metrics of a run at {path}, got {error}", hint="Let the run end, or resume it."
        ) from error
    found = {name: table[name].to_numpy().astype(np.float64) for name in table.column_names}
    # A run from before a column measured nothing of it.
    return Metrics({name: np.full(table.num_rows, np.nan) for name in COLUMNS} | found)


def _pyarrow() -> tuple[Any, Any]:  # Any: untyped modules
    try:
        # 0.2 s and 40 MB: only who reads or writes Parquet pays.
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ExtraNotInstalledError("metrics.parquet", extra="sim") from error
    return pyarrow, pyarrow.parquet
