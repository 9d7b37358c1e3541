"""Reads a trace: a table (`.csv`, `.parquet`) of what clients did and when they were there.

The columns are `shared.api.traces.TraceRow`'s; `client`, `kind`, `start_s` and `end_s` are needed, others may be
missing. docs/reference/traces.md has them with an example.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shared.api.traces import TraceKind, TraceRow
from shared.errors import ExtraNotInstalledError
from simulations.behaviour.errors import TraceError

if TYPE_CHECKING:
    import pandas as pd

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_NUMBERS = ("start_s", "fetched_s", "end_s", "train_s", "examples", "bytes_down", "bytes_up")
_MAY_BE_EMPTY = ("fetched_s", "end_s")
_WITHOUT_UPDATE = ("refused", "failed")
_NEEDED = ("client", "kind", "start_s", "end_s")


@dataclass(frozen=True)
class Stays:
    """When devices were there, sorted by device and start."""

    device: Ints
    start_s: Floats
    end_s: Floats


@dataclass(frozen=True)
class Works:
    """What was asked of devices, sorted by device and start. NaN: it did not happen."""

    device: Ints
    start_s: Floats
    fetched_s: Floats
    end_s: Floats
    train_s: Floats
    examples: Floats
    bytes_moved: Floats
    is_lost: NDArray[np.bool_]
    """Nobody heard of an update: no answer, a refusal, a failure."""


@dataclass(frozen=True)
class RecordedFleet:
    """A trace, parsed."""

    devices: tuple[str, ...]
    """Their names, in the order of their numbers."""
    length_s: float
    """From the first observation to the last."""
    stays: Stays
    works: Works


def read_trace(path: Path) -> RecordedFleet:
    """The trace in this file.

    Raises:
        TraceError: It is missing, or not a trace; the sentence names the row.
        ExtraNotInstalledError: Reading it needs a package that is not there.
    """
    return parse_trace(_table(path), name=path.name)


def parse_trace(table: "pd.DataFrame", *, name: str) -> RecordedFleet:
    """The trace in this table. Raises TraceError."""
    if missing := [column for column in _NEEDED if column not in table.columns]:
        raise TraceError(f"Expected the column {missing[0]!r} in {name}, got {', '.join(map(str, table.columns[:20]))}")
    if len(table) == 0:
        raise TraceError(f"Expected observations in {name}, got none")
    known = {kind.value for kind in TraceKind}
    if strange := sorted(set(table["kind"].astype(str)) - known):
        raise TraceError(f"Expected the kinds {', '.join(sorted(known))} in {name}, got {strange[0]!r}")
    numbers = {column: _numbers(table, column, name) for column in _NUMBERS}
    _check_order(numbers, name)
    devices, device = np.unique(table["client"].astype(str).to_numpy(), return_inverse=True)
    last_s = np.nanmax(np.concatenate([numbers["start_s"], numbers["end_s"]]))
    return RecordedFleet(
        devices=tuple(devices.tolist()),
        length_s=float(last_s) + 1.0,
        stays=_stays(device, numbers, (table["kind"] == TraceKind.ONLINE).to_numpy()),
        works=_works(device, numbers, (table["kind"] == TraceKind.WORK).to_numpy(), _is_lost(table)),
    )


def _table(path: Path) -> "pd.DataFrame":
    readers = {".csv": "read_csv", ".parquet": "read_parquet"}
    if path.suffix not in readers:
        raise TraceError(f"Expected a trace in .csv or .parquet, got {path.name}")
    try:
        # pandas costs half a second to load; only who replays a trace pays for it.
        import pandas as pd

        return getattr(pd, readers[path.suffix])(path)
    except ImportError as error:
        raise ExtraNotInstalledError(f"Reading {path.name}", extra="sim") from error
    except (OSError, ValueError) as error:
        raise TraceError(f"Expected a trace at {path}: {error}") from error


def _numbers(table: "pd.DataFrame", column: str, name: str) -> Floats:
    if column not in table.columns:
        return np.full(len(table), np.nan if column in _MAY_BE_EMPTY else TraceRow.model_fields[column].default or 0.0)
    try:
        values: Floats = table[column].to_numpy(np.float64)
    except ValueError as error:
        raise TraceError(f"Expected numbers in the column {column!r} of {name}: {error}") from error
    wrong = (values < 0) | np.isinf(values) | (np.isnan(values) & (column not in _MAY_BE_EMPTY))
    if wrong.any():
        row = int(wrong.argmax())
        raise TraceError(f"Expected a number of at least 0 in {column!r} of row {row} of {name}, got {values[row]}")
    return values


def _check_order(numbers: dict[str, Floats], name: str) -> None:
    for earlier, later in (("start_s", "fetched_s"), ("start_s", "end_s"), ("fetched_s", "end_s")):
        wrong = numbers[later] < numbers[earlier]
        if wrong.any():
            row = int(wrong.argmax())
            raise TraceError(f"Expected {later} after {earlier} in row {row} of {name}, got it before")


def _stays(device: Ints, numbers: dict[str, Floats], chosen: NDArray[np.bool_]) -> Stays:
    """Stays that touch or overlap are one: who walks from change to change must see a change."""
    rows = np.flatnonzero(chosen & ~np.isnan(numbers["end_s"]))
    rows = rows[np.lexsort((numbers["start_s"][rows], device[rows]))]
    merged: list[list[float]] = []
    for row in rows.tolist():
        owner, start_s, end_s = float(device[row]), numbers["start_s"][row], numbers["end_s"][row] + 1.0
        if merged and merged[-1][0] == owner and start_s <= merged[-1][2]:
            merged[-1][2] = max(merged[-1][2], end_s)
        else:
            merged.append([owner, start_s, end_s])
    columns = np.array(merged).reshape(-1, 3)
    return Stays(columns[:, 0].astype(np.int64), columns[:, 1], columns[:, 2])


def _is_lost(table: "pd.DataFrame") -> NDArray[np.bool_]:
    is_lost = table["end_s"].isna()
    if "outcome" in table.columns:
        is_lost |= table["outcome"].isin(_WITHOUT_UPDATE)
    found: NDArray[np.bool_] = is_lost.to_numpy(bool)
    return found


def _works(device: Ints, numbers: dict[str, Floats], chosen: NDArray[np.bool_], is_lost: NDArray[np.bool_]) -> Works:
    rows = np.flatnonzero(chosen)
    rows = rows[np.lexsort((numbers["start_s"][rows], device[rows]))]
    taken = {column: values[rows] for column, values in numbers.items()}
    return Works(
        device=device[rows],
        start_s=taken["start_s"],
        fetched_s=taken["fetched_s"],
        end_s=taken["end_s"],
        train_s=taken["train_s"],
        examples=taken["examples"],
        bytes_moved=taken["bytes_down"] + taken["bytes_up"],
        is_lost=is_lost[rows],
    )
