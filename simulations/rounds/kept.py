"""What clients keep from round to round (SCAFFOLD's controls, personal models), for those that ever took part.

A log of rows on disk and an index in memory: a round reads and appends its cohort's rows only, whatever the population.
Pages that are in use stay in the operating system's cache, so small runs never wait for the disk, and large ones do not
need the memory. Rows are appended and never changed: a checkpoint is the index and the log's length, and a run that was
killed continues by cutting the log there.

A log that is mostly old rows is written anew, as the next generation, in a file of its own; the one before is removed
once a checkpoint no longer needs it.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_NOWHERE = -1
_LOG_BYTES_MIN = 256 * 2**20
"""Of a log before it is worth writing anew."""
_GROWTH_MAX = 4
"""Rows in a log to each that is still somebody's, at most."""
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class KeptIndex:
    """Where each client's newest row is."""

    clients: Ints
    """Those that ever took part, `(touched,)`, ascending."""
    rows: Ints
    """Their rows' numbers in the log, `(touched,)`."""
    length: int
    """Rows in the log."""
    generation: int = 0
    """Of the log."""


_EMPTY = KeptIndex(np.zeros(0, np.int64), np.zeros(0, np.int64), 0)


class KeptRows:
    """One named vector for each client that took part.

    Args:
        size: Numbers in a vector.
        path: Of the log, to which the generation is added; nothing: a file that is gone when the run ends.
        index: Of the checkpoint to continue from; what the log holds beyond it is cut off.
        log_bytes_min: Before it is written anew.
    """

    def __init__(
        self, size: int, *, path: Path | None, index: KeptIndex = _EMPTY, log_bytes_min: int = _LOG_BYTES_MIN
    ) -> None:
        self._row_bytes, self.size, self._path = 4 * size, size, path
        self._log_bytes_min = log_bytes_min
        self._index = index
        self._file = self._open(index.generation)
        os.ftruncate(self._file.fileno(), index.length * self._row_bytes)

    @property
    def clients(self) -> Ints:
        """Those that ever took part, ascending."""
        return self._index.clients

    def read(self, clients: Ints, default: torch.Tensor) -> torch.Tensor:
        """The clients' vectors, `(K, size)`; `default`, `(size,)`, where a client never took part."""
        rows = self._rows_of(clients)
        values = default.cpu().expand(len(clients), self.size).clone()
        descriptor, into = self._file.fileno(), values.numpy()
        for position in np.flatnonzero(rows != _NOWHERE):
            os.preadv(descriptor, [into[position].data], int(rows[position]) * self._row_bytes)
        return values.to(default.device)

    def write(self, clients: Ints, values: torch.Tensor) -> None:
        """Replaces these clients' vectors; `values` is `(K, size)` float32."""
        self._append(clients, values)
        length = self._index.length
        is_large = length * self._row_bytes > self._log_bytes_min
        if is_large and length > _GROWTH_MAX * len(self._index.clients):
            self._write_anew()

    def index(self) -> KeptIndex:
        """For a checkpoint; the log is on disk when this returns."""
        os.fsync(self._file.fileno())
        return self._index

    def tidy(self) -> None:
        """Removes logs of other generations, once the checkpoint with `index` is on disk."""
        if self._path is not None:
            for other in self._path.parent.glob(f"{self._path.name}.*"):
                if other != self._place(self._index.generation):
                    other.unlink()

    def close(self) -> None:
        self._file.close()

    def _append(self, clients: Ints, values: torch.Tensor) -> None:
        block, index = np.ascontiguousarray(values.cpu().numpy()), self._index
        _write_all(self._file.fileno(), block.reshape(-1).view(np.uint8).data, index.length * self._row_bytes)
        # Of a client's two places the later one counts: stable sort, then the last of each.
        everyone = np.concatenate([index.clients, clients])
        places = np.concatenate([index.rows, index.length + np.arange(len(clients))])
        order = np.argsort(everyone, kind="stable")
        last = order[np.append(np.diff(everyone[order]) > 0, True)] if len(order) else order
        self._index = KeptIndex(everyone[last], places[last], index.length + len(clients), index.generation)

    def _write_anew(self) -> None:
        """Copies the rows that are still somebody's to the next generation's log."""
        fresh = KeptRows(self.size, path=self._path, index=replace(_EMPTY, generation=self._index.generation + 1))
        clients, nothing = self._index.clients, torch.zeros(self.size)
        for start in range(0, len(clients), _ROWS_AT_ONCE):
            some = clients[start : start + _ROWS_AT_ONCE]
            fresh._append(some, self.read(some, nothing))
        self._file.close()
        self._file, self._index = fresh._file, fresh._index

    def _rows_of(self, clients: Ints) -> Ints:
        known, rows = self._index.clients, self._index.rows
        if not len(known):
            return np.full(len(clients), _NOWHERE)
        place = np.searchsorted(known, clients).clip(max=len(known) - 1)
        return np.where(known[place] == clients, rows[place], _NOWHERE)

    def _open(self, generation: int) -> IO[Any]:  # Any: two kinds of file, of which only the descriptor is used
        if self._path is None:
            return TemporaryFile(buffering=0)  # closed by `close`
        place = self._place(generation)
        return os.fdopen(os.open(place, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)

    def _place(self, generation: int) -> Path:
        assert self._path is not None
        return self._path.with_name(f"{self._path.name}.{generation}")


class KeptVectors:
    """All that clients keep, by name; most algorithms keep nothing, and then nothing is opened.

    Args:
        sizes: Numbers in each named vector.
        folder: For the logs; nothing: temporary files.
        indexes: Of the checkpoint to continue from, by name.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        *,
        folder: Path | None = None,
        indexes: Mapping[str, KeptIndex] | None = None,
    ) -> None:
        self._named = {
            name: KeptRows(
                size,
                path=None if folder is None else folder / f"kept-{name}",
                index=_EMPTY if indexes is None else indexes[name],
            )
            for name, size in sizes.items()
        }

    def read(self, clients: Ints, defaults: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """`(K, size)` each, of those that have a default."""
        return {name: rows.read(clients, defaults[name]) for name, rows in self._named.items() if name in defaults}

    def write(self, clients: Ints, values: Mapping[str, torch.Tensor]) -> None:
        for name, rows in self._named.items():
            rows.write(clients, values[name])

    def blocks(self) -> Iterator[tuple[Ints, dict[str, torch.Tensor]]]:
        """All that is kept, of some clients at a time, as `write` takes it."""
        everyone = [rows.clients for rows in self._named.values()]
        nothing = {name: torch.zeros(rows.size) for name, rows in self._named.items()}
        # They are written together, so all know the same clients.
        for start in range(0, len(everyone[0]) if everyone else 0, _ROWS_AT_ONCE):
            some = everyone[0][start : start + _ROWS_AT_ONCE]
            yield some, self.read(some, nothing)

    def indexes(self) -> dict[str, KeptIndex]:
        """For a checkpoint; the logs are on disk when this returns."""
        return {name: rows.index() for name, rows in self._named.items()}

    def tidy(self) -> None:
        """Once that checkpoint is on disk."""
        for rows in self._named.values():
            rows.tidy()

    def close(self) -> None:
        for rows in self._named.values():
            rows.close()


def _write_all(descriptor: int, payload: memoryview, offset: int) -> None:
    while len(payload):
        written = os.pwrite(descriptor, payload, offset)
        payload, offset = payload[written:], offset + written
