"""All updates of a round side by side, in memory or in files, read in blocks of columns.

A thousand updates of a large model do not fit in memory; a block of their columns does. Files are opened for each block
and closed again: memory is that of the block, and no limit on open files bounds the cohort.
"""

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cloud.aggregation.errors import MalformedRowError
from cloud.aggregation.rule import Rows
from shared.layout import Layout

READ_NUMBERS_MAX = 2**23
"""Numbers in memory at once, in a block that is read from files: 32 MiB."""
PIECE_NUMBERS_MAX = {"cpu": 2**18, "cuda": 2**25}
"""Numbers worked on at once: on a CPU they stay in its second-level cache (1 MiB), on a GPU they must fill it."""
_FLOAT_BYTES = 4
_HEADER_BYTES_MAX = 16 * 2**20


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


@dataclass(frozen=True)
class _Part:
    """A run of parameters that lie together in a file."""

    start: int
    stop: int
    offset_bytes: int


class FileRows:
    """Updates that lie in files, one each; little-endian float32.

    Args:
        paths: One file for each client, in their order.
        parameters: Numbers in each update.
        parts: Where each run of parameters begins in its file, for each file.
    """

    def __init__(self, paths: Sequence[Path], parameters: int, parts: Sequence[Sequence[_Part]]) -> None:
        self._paths = paths
        self._parts = parts
        self._parameters = parameters

    @classmethod
    def of_vectors(cls, paths: Sequence[Path], *, parameters: int) -> "FileRows":
        """Files that hold a flat vector and nothing else. Raises MalformedRowError."""
        expected = parameters * _FLOAT_BYTES
        for path in paths:
            if (size_bytes := path.stat().st_size) != expected:
                raise MalformedRowError(f"Expected {expected} bytes in {path.name}, got {size_bytes}")
        return cls(paths, parameters, [[_Part(0, parameters, 0)]] * len(paths))

    @classmethod
    def of_tensors(cls, paths: Sequence[Path], layout: Layout) -> "FileRows":
        """Safetensors files with the layout's tensors, in any order; reads only headers. Raises MalformedRowError."""
        return cls(paths, layout.size, [_parts_of(path, layout) for path in paths])

    @property
    def clients(self) -> int:
        return len(self._paths)

    @property
    def parameters(self) -> int:
        return self._parameters

    def columns(self, start: int, stop: int) -> torch.Tensor:
        block = np.empty((self.clients, stop - start), np.float32)
        for row, path, parts in zip(block, self._paths, self._parts, strict=True):
            for part in parts:
                first, last = max(start, part.start), min(stop, part.stop)
                if first < last:
                    offset_bytes = part.offset_bytes + (first - part.start) * _FLOAT_BYTES
                    row[first - start : last - start] = _numbers(path, last - first, offset_bytes)
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


def _parts_of(path: Path, layout: Layout) -> list[_Part]:
    """Where a safetensors file has each tensor: eight bytes of length, a header in JSON, then the numbers."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        if length > _HEADER_BYTES_MAX:
            raise MalformedRowError(f"Expected a safetensors file, got {path.name} with a header of {length} bytes")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise MalformedRowError(f"Expected a safetensors file, got {path.name}: {error}") from error
    parts = []
    for (name, columns), shape in zip(layout.slices.items(), layout.shapes, strict=True):
        found = header.get(name, {})
        if found.get("dtype") != "F32" or found.get("shape") != list(shape):
            raise MalformedRowError(f"Expected {name} as float32 {list(shape)} in {path.name}, got {found or 'none'}")
        parts.append(_Part(columns.start, columns.stop, 8 + length + found["data_offsets"][0]))
    return parts
