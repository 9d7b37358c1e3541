"""Updates in files read as updates in memory do, in any blocks."""

from pathlib import Path

import pytest
import torch

from cloud.aggregation import rows as module
from cloud.aggregation.errors import MalformedRowError
from cloud.aggregation.rows import FileRows, InMemoryRows, blocks

PARAMETERS = 24


@pytest.fixture
def deltas() -> torch.Tensor:
    return torch.randn(5, PARAMETERS, generator=torch.Generator().manual_seed(1))


def as_files(folder: Path, deltas: torch.Tensor) -> list[Path]:
    paths = [folder / f"{number}.f32" for number in range(len(deltas))]
    for path, row in zip(paths, deltas, strict=True):
        row.numpy().tofile(path)
    return paths


def test_every_range_of_columns_is_the_same_from_files_as_from_memory(tmp_path: Path, deltas: torch.Tensor) -> None:
    rows = FileRows(as_files(tmp_path, deltas), parameters=PARAMETERS)
    for start in range(PARAMETERS):
        for stop in range(start + 1, PARAMETERS + 1):
            assert torch.equal(rows.columns(start, stop), deltas[:, start:stop])


@pytest.mark.parametrize(("read", "piece"), [(1, 1), (35, 15), (35, 1000), (10_000, 7)])
def test_blocks_cover_every_column_once(
    deltas: torch.Tensor, monkeypatch: pytest.MonkeyPatch, read: int, piece: int
) -> None:
    monkeypatch.setattr(module, "READ_NUMBERS_MAX", read)
    monkeypatch.setattr(module, "PIECE_NUMBERS_MAX", {"cpu": piece})
    found = list(blocks(InMemoryRows(deltas)))
    assert torch.equal(torch.cat([block for _, block in found], dim=1), deltas)
    assert [where.start for where, _ in found] + [PARAMETERS] == [0, *(where.stop for where, _ in found)]
    assert all(block.numel() <= max(piece, len(deltas)) for _, block in found)


def test_a_file_of_another_model_is_refused_by_name(tmp_path: Path, deltas: torch.Tensor) -> None:
    with pytest.raises(MalformedRowError, match=r"Expected 20 bytes in 0\.f32, got 96"):
        FileRows(as_files(tmp_path, deltas), parameters=5)


def test_a_file_that_shrank_since_is_refused(tmp_path: Path, deltas: torch.Tensor) -> None:
    paths = as_files(tmp_path, deltas)
    rows = FileRows(paths, parameters=PARAMETERS)
    paths[2].write_bytes(paths[2].read_bytes()[:40])
    with pytest.raises(MalformedRowError, match="got 10"):
        rows.columns(0, PARAMETERS)
