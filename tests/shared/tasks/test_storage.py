"""A device's folder is whole and for this task, or refused with one clear sentence."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from shared.tasks.errors import TaskDataError
from shared.tasks.storage import (
    CHECKSUM_FILE,
    DATA_FILE,
    content_digest,
    device_data,
    merge,
    read_device_folder,
    write_device_folder,
)
from shared.tasks.task import DeviceData, Examples
from shared.tensors import Tensors, encode


def _examples(*, units: list[int], seed: int = 0) -> Examples:
    generator = np.random.default_rng(seed)
    count = len(units)
    return Examples(
        inputs=generator.normal(size=(count, 3)).astype(np.float32),
        labels=generator.integers(0, 2, count).astype(np.int64),
        units=np.array(units, np.int64),
    )


def _data() -> DeviceData:
    return device_data(train=_examples(units=[1, 1, 2]), held_out=_examples(units=[3], seed=1))


def _read(folder: Path) -> DeviceData:
    return read_device_folder(folder, input_shape=(3,), classes=2)


def _replace(folder: Path, payload: bytes) -> None:
    (folder / DATA_FILE).write_bytes(payload)
    (folder / CHECKSUM_FILE).write_text(hashlib.sha256(payload).hexdigest())


def test_reads_back_what_was_written(tmp_path: Path) -> None:
    write_device_folder(tmp_path, _data())
    found = _read(tmp_path)
    assert found.dataset_id == _data().dataset_id
    np.testing.assert_array_equal(found.train.inputs, _data().train.inputs)
    np.testing.assert_array_equal(found.held_out.units, [3])


@pytest.mark.parametrize("position", [0, 40, -1])
def test_refuses_a_flipped_byte(tmp_path: Path, position: int) -> None:
    write_device_folder(tmp_path, _data())
    payload = bytearray((tmp_path / DATA_FILE).read_bytes())
    payload[position] ^= 1
    (tmp_path / DATA_FILE).write_bytes(payload)
    with pytest.raises(TaskDataError, match="SHA-256"):
        _read(tmp_path)


@pytest.mark.parametrize("name", [DATA_FILE, CHECKSUM_FILE])
def test_refuses_a_missing_file(tmp_path: Path, name: str) -> None:
    write_device_folder(tmp_path, _data())
    (tmp_path / name).unlink()
    with pytest.raises(TaskDataError, match=name) as caught:
        _read(tmp_path)
    assert "fleetlearn task data" in caught.value.hint


def test_refuses_a_pickle_under_the_right_checksum(tmp_path: Path) -> None:
    _replace(tmp_path, b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07payload\x94.")
    with pytest.raises(TaskDataError, match="safetensors"):
        _read(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("train.inputs", np.zeros((3, 4), np.float32), r"\(3, 3\)"),
        ("train.inputs", np.full((3, 3), np.nan, np.float32), "finite"),
        ("train.labels", np.array([0, 1, 2], np.int64), "from 0 to 1, got 0 to 2"),
        ("train.labels", np.array([0, 1, 1], np.int32), "int64"),
        ("held_out.units", np.array([2], np.int64), "both trained on and held out"),
        ("held_out.units", None, "nothing"),
    ],
)
def test_refuses_tensors_that_are_not_this_tasks(
    tmp_path: Path, field: str, value: np.ndarray | None, message: str
) -> None:
    data = _data()
    tensors = {
        f"{part}.{name}": getattr(examples, name)
        for part, examples in (("train", data.train), ("held_out", data.held_out))
        for name in ("inputs", "labels", "units")
    }
    tensors[field] = value
    _replace(tmp_path, encode({name: array for name, array in tensors.items() if array is not None}))
    with pytest.raises(TaskDataError, match=message):
        _read(tmp_path)


def test_the_data_set_id_is_of_the_training_part_alone() -> None:
    other_held_out = device_data(train=_data().train, held_out=_examples(units=[9], seed=5))
    other_train = device_data(train=_examples(units=[1, 1, 2], seed=5), held_out=_data().held_out)
    assert other_held_out.dataset_id == _data().dataset_id
    assert other_train.dataset_id != _data().dataset_id


def test_the_digest_tells_values_types_shapes_and_names_apart() -> None:
    array = np.arange(4, dtype=np.float32)
    others: list[Tensors] = [
        {"a": array},
        {"b": array},
        {"a": array + 1},
        {"a": array.reshape(2, 2)},
        {"a": array.view(np.int32)},
    ]
    assert len({content_digest(tensors) for tensors in others}) == 5


def test_refuses_to_merge_nothing() -> None:
    with pytest.raises(TaskDataError, match="at least one slice"):
        merge([])
