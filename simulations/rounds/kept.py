"""What clients keep from round to round (SCAFFOLD's controls, personal models), for those that ever took part.

A log of rows on disk and an index in memory: a round reads and appends its cohort's rows only, whatever the population.
Pages that are in use stay in the operating system's cache, so small runs never wait for the disk, and large ones do not
need the memory. Rows are appended and never changed: a checkpoint is the index and the log's length, and a run that was
killed continues by cutting the log there.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_NOWHERE = -1


@dataclass(frozen=True)
class KeptIndex:
    """Where each client's newest row is."""

    clients: Ints
    """Those that ever took part, `(touched,)`, ascending."""
    rows: Ints
    """Their rows' numbers in the log, `(touched,)`."""
    length: int
    """Rows in the log."""


class KeptRows:
    """One named vector for each client that took part.

    Args:
        size: Numbers in a vector.
        path: Of the log; nothing: a file that is gone when the run ends.
        index: Of the checkpoint to continue from; what the log holds beyond it is cut off.
    """

    def __init__(self, size: int, *, path: Path | None, index: KeptIndex | None = None) -> None:
        self._size, self._row_bytes = size, 4 * size
        self._file = _open(path)
        self._clients = np.zeros(0, np.int64) if index is None else index.clients
        self._rows = np.zeros(0, np.int64) if index is None else index.rows
        self._length = 0 if index is None else index.length
        os.ftruncate(self._file.fileno(), self._length * self._row_bytes)

    def read(self, clients: Ints, default: torch.Tensor) -> torch.Tensor:
        """The clients' vectors, `(K, size)`; `default`, `(size,)`, where a client never took part."""
        rows = self._rows_of(clients)
        values = default.cpu().expand(len(clients), self._size).clone()
        descriptor, into = self._file.fileno(), values.numpy()
        for position in np.flatnonzero(rows != _NOWHERE):
            os.preadv(descriptor, [into[position].data], int(rows[position]) * self._row_bytes)
        return values.to(default.device)

    def write(self, clients: Ints, values: torch.Tensor) -> None:
        """Replaces these clients' vectors; `values` is `(K, size)` float32."""
        block = np.ascontiguousarray(values.cpu().numpy())
        _write_all(self._file.fileno(), block.reshape(-1).view(np.uint8).data, self._length * self._row_bytes)
        added = self._length + np.arange(len(clients))
        self._length += len(clients)
        # Of a client's two places the later one counts: stable sort, then the last of each.
        everyone, places = np.concatenate([self._clients, clients]), np.concatenate([self._rows, added])
        order = np.argsort(everyone, kind="stable")
        last = np.append(np.diff(everyone[order]) > 0, True)
        self._clients, self._rows = everyone[order][last], places[order][last]

    def index(self) -> KeptIndex:
        """For a checkpoint; the log is on disk when this returns."""
        os.fsync(self._file.fileno())
        return KeptIndex(self._clients, self._rows, self._length)

    @property
    def garbage(self) -> float:
        """The part of the log that no client's vector is in any more."""
        return 1 - len(self._clients) / self._length if self._length else 0.0

    def copy_to(self, path: Path) -> "KeptRows":
        """The same vectors in a new log without garbage."""
        fresh = KeptRows(self._size, path=path)
        for start in range(0, len(self._clients), 1024):
            some = self._clients[start : start + 1024]
            fresh.write(some, self.read(some, torch.zeros(self._size)))
        return fresh

    def close(self) -> None:
        self._file.close()

    def _rows_of(self, clients: Ints) -> Ints:
        if not len(self._clients):
            return np.full(len(clients), _NOWHERE)
        place = np.searchsorted(self._clients, clients).clip(max=len(self._clients) - 1)
        return np.where(self._clients[place] == clients, self._rows[place], _NOWHERE)


def _open(path: Path | None) -> IO[Any]:  # Any: two kinds of file, of which only the descriptor is used
    if path is None:
        return TemporaryFile(buffering=0)  # closed by `close`
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)


def _write_all(descriptor: int, payload: memoryview, offset: int) -> None:
    while len(payload):
        written = os.pwrite(descriptor, payload, offset)
        payload, offset = payload[written:], offset + written


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
                path=None if folder is None else folder / f"kept-{name}.rows",
                index=None if indexes is None else indexes[name],
            )
            for name, size in sizes.items()
        }

    def read(self, clients: Ints, defaults: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """`(K, size)` each."""
        return {name: rows.read(clients, defaults[name]) for name, rows in self._named.items()}

    def write(self, clients: Ints, values: Mapping[str, torch.Tensor]) -> None:
        for name, rows in self._named.items():
            rows.write(clients, values[name])

    def indexes(self) -> dict[str, KeptIndex]:
        """For a checkpoint; the logs are on disk when this returns."""
        return {name: rows.index() for name, rows in self._named.items()}

    def close(self) -> None:
        for rows in self._named.values():
            rows.close()
