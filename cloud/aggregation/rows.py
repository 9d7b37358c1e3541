"""All updates of a round side by side, in memory or in files, read in blocks of columns.

A thousand updates of a large model do not fit in memory; a block of their columns does. Files are opened for each block
and closed again: memory is that of the block, and no limit on open files bounds the cohort.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cloud.aggregation.errors import MalformedRowError
from cloud.aggregation.rule import Rows

READ_NUMBERS_MAX = 2**23
"""Numbers in memory at once, in a block that is read from files: 32 MiB."""
PIECE_NUMBERS_MAX = {"cpu": 2**18, "cuda": 2**25}
"""Numbers worked on at once: on a CPU they stay in its second-level cache (1 MiB), on a GPU they must fill it."""
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class InMemoryRows:
    """Updates that lie in memory, `(clients, parameters)` float32, on any device."""

    deltas: torch.Tensor

    @property
    def clients(self) -> int:
        return len(self.deltas)

    @property
    def parameters(self) -> int:
        return self.deltas.shape[1]

    def columns(self, start: int, stop: int) -> torch.Tensor:
        return self.deltas[:, start:stop]


class FileRows:
    """Updates that lie in files, one each: a flat vector, little-endian float32, and nothing else.

    Args:
        paths: One file for each client, in their order.
        parameters: Numbers in each update.

    Raises:
        MalformedRowError: A file has another length; or, later, it shrank.
    """

    def __init__(self, paths: Sequence[Path], *, parameters: int) -> None:
        expected = parameters * _FLOAT_BYTES
        for path in paths:
            if (size_bytes := path.stat().st_size) != expected:
                raise MalformedRowError(f"Expected {expected} bytes in {path.name}, got {size_bytes}")
        self._paths = paths
        self._parameters = parameters

    @property
    def clients(self) -> int:
        return len(self._paths)

    @property
    def parameters(self) -> int:
        return self._parameters

    def columns(self, start: int, stop: int) -> torch.Tensor:
        block = np.empty((self.clients, stop - start), np.float32)
        for row, path in zip(block, self._paths, strict=True):
            row[:] = _numbers(path, stop - start, start * _FLOAT_BYTES)
        return torch.from_numpy(block)


def blocks(rows: Rows) -> Iterator[tuple[slice, torch.Tensor]]:
    """All columns, a piece at a time: where they are, and `(clients, columns)` that fit in the cache."""
    read = max(1, READ_NUMBERS_MAX // max(1, rows.clients))
    for start in range(0, rows.parameters, read):
        block = rows.columns(start, min(start + read, rows.parameters))
        piece = max(1, PIECE_NUMBERS_MAX[block.device.type] // max(1, rows.clients))
        for offset in range(0, block.shape[1], piece):
            values = block[:, offset : offset + piece]
            yield slice(start + offset, start + offset + values.shape[1]), values


def _numbers(path: Path, count: int, offset_bytes: int) -> NDArray[np.float32]:
    numbers = np.fromfile(path, np.float32, count, offset=offset_bytes)
    if len(numbers) != count:
        raise MalformedRowError(f"Expected {count} numbers from byte {offset_bytes} of {path.name}, got {len(numbers)}")
    return numbers
