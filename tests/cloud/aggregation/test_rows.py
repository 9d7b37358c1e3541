"""Updates in files read as updates in memory do, in any blocks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from cloud.aggregation import rows as module
from cloud.aggregation.errors import MalformedRowError
from cloud.aggregation.rows import FileRows, InMemoryRows, blocks
from shared.layout import Layout

LAYOUT = Layout(("w", "b", "head.w"), ((4, 3), (4,), (2, 4)))


@pytest.fixture
def deltas() -> torch.Tensor:
    return torch.randn(5, LAYOUT.size, generator=torch.Generator().manual_seed(1))


def as_tensors(folder: Path, deltas: torch.Tensor) -> list[Path]:
    paths = [folder / f"{number}.safetensors" for number in range(len(deltas))]
    for path, row in zip(paths, deltas, strict=True):
        save_file({name: np.ascontiguousarray(part) for name, part in LAYOUT.split(row.numpy()).items()}, path)
    return paths


def as_vectors(folder: Path, deltas: torch.Tensor) -> list[Path]:
    paths = [folder / f"{number}.f32" for number in range(len(deltas))]
    for path, row in zip(paths, deltas, strict=True):
        row.numpy().tofile(path)
    return paths


def test_every_range_of_columns_is_the_same_from_files_as_from_memory(tmp_path: Path, deltas: torch.Tensor) -> None:
    tensors = FileRows.of_tensors(as_tensors(tmp_path, deltas), LAYOUT)
    vectors = FileRows.of_vectors(as_vectors(tmp_path, deltas), parameters=LAYOUT.size)
    for start in range(LAYOUT.size):
        for stop in range(start + 1, LAYOUT.size + 1):
            assert torch.equal(tensors.columns(start, stop), deltas[:, start:stop])
            assert torch.equal(vectors.columns(start, stop), deltas[:, start:stop])


@pytest.mark.parametrize(("read", "piece"), [(1, 1), (35, 15), (35, 1000), (10_000, 7)])
def test_blocks_cover_every_column_once(
    deltas: torch.Tensor, monkeypatch: pytest.MonkeyPatch, read: int, piece: int
) -> None:
    monkeypatch.setattr(module, "READ_NUMBERS_MAX", read)
    monkeypatch.setattr(module, "PIECE_NUMBERS_MAX", {"cpu": piece})
    found = list(blocks(InMemoryRows(deltas)))
    assert torch.equal(torch.cat([block for _, block in found], dim=1), deltas)
    assert [where.start for where, _ in found] + [LAYOUT.size] == [0, *(where.stop for where, _ in found)]
    assert all(block.numel() <= max(piece, len(deltas)) for _, block in found)


def test_a_file_of_another_model_is_refused_by_name(tmp_path: Path, deltas: torch.Tensor) -> None:
    paths = as_tensors(tmp_path, deltas)
    with pytest.raises(MalformedRowError, match=r"Expected b as float32 \[5\] in 0.safetensors, got .*\[4\]"):
        FileRows.of_tensors(paths, Layout(("w", "b"), ((4, 3), (5,))))
    with pytest.raises(MalformedRowError, match="Expected bias as float32"):
        FileRows.of_tensors(paths, Layout(("bias",), ((4,),)))
    with pytest.raises(MalformedRowError, match=r"Expected 20 bytes in 0\.safetensors"):
        FileRows.of_vectors(paths, parameters=5)


def test_what_is_no_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "update"
    for payload in (b"", b"\x04\0\0\0\0\0\0\0oops", b"\xff" * 100):
        path.write_bytes(payload)
        with pytest.raises(MalformedRowError, match="Expected a safetensors file, got update"):
            FileRows.of_tensors([path], LAYOUT)


def test_a_file_that_shrank_since_is_refused(tmp_path: Path, deltas: torch.Tensor) -> None:
    paths = as_vectors(tmp_path, deltas)
    rows = FileRows.of_vectors(paths, parameters=LAYOUT.size)
    paths[2].write_bytes(paths[2].read_bytes()[:40])
    with pytest.raises(MalformedRowError, match="got 10"):
        rows.columns(0, LAYOUT.size)
