"""What both reference tasks promise about their data: splits that no subject, recording or window crosses."""

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from shared.tasks.errors import TaskDataError
from shared.tasks.physio import carrier
from shared.tasks.physio.task import DEVICE_SUBJECTS, SUBJECTS
from shared.tasks.physio.windows import windows
from shared.tasks.registry import load_task
from shared.tasks.slices import deal
from shared.tasks.task import Role

TASKS = ("digits", "physio", "physio_trees")


@pytest.mark.parametrize("name", TASKS)
def test_no_unit_has_two_roles_or_two_devices(name: str) -> None:
    task = load_task(name)
    owners = [task.central_data(role).units for role in Role]
    owners += [np.concatenate([data.train.units, data.held_out.units]) for data in task.device_slices().values()]
    for one, other in combinations(owners, 2):
        assert not np.intersect1d(one, other).size


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("devices", [1, 5, 10])
def test_no_unit_is_both_trained_on_and_held_out_however_slices_are_dealt(
    name: str, devices: int, tmp_path: Path
) -> None:
    task = load_task(name)
    for number, slices in enumerate(deal(tuple(task.device_slices()), devices=devices)):
        folder = tmp_path / str(number)
        task.write_device_data(folder, slices)
        data = task.device_data(folder)
        assert min(len(data.train), len(data.held_out)) > 0
        assert not np.intersect1d(data.train.units, data.held_out.units).size


def test_physio_splits_by_subject() -> None:
    subjects = [*(subject for role in Role for subject in SUBJECTS[role]), *DEVICE_SUBJECTS]
    assert sorted(subjects) == list(range(1, 11))


def test_no_window_of_a_held_out_recording_overlaps_one_that_is_trained_on() -> None:
    everything = carrier.recordings(carrier.default_cache_dir())
    for data in load_task("physio").device_slices().values():
        held_out = windows(recording for recording in everything if recording.number in data.held_out.units)
        np.testing.assert_array_equal(held_out.inputs, data.held_out.inputs)
        trained = {window.tobytes() for window in data.train.inputs}
        assert not any(window.tobytes() in trained for window in held_out.inputs)


def test_physio_has_the_published_windows() -> None:
    task = load_task("physio")
    central = sum(len(task.central_data(role)) for role in Role)
    on_devices = sum(len(data.train) + len(data.held_out) for data in task.device_slices().values())
    assert central + on_devices == 4677


def test_five_physio_devices_each_wear_both_arms_of_one_subject_and_train_on_every_exercise() -> None:
    task = load_task("physio")
    slices = task.device_slices()
    for names in deal(tuple(slices), devices=5):
        assert Counter(name.rsplit("-", 1)[1] for name in names) == {"left": 1, "right": 1}
        assert len({name.rsplit("-", 1)[0] for name in names}) == 1
        assert set(np.concatenate([slices[name].train.labels for name in names])) == set(range(7))


@pytest.mark.parametrize("name", TASKS)
def test_features_are_one_row_an_example_and_show_a_disturbed_sensor(name: str) -> None:
    task = load_task(name)
    inputs = task.central_data(Role.VALIDATION).inputs
    features = task.features(inputs)
    assert features.shape == (len(inputs), len(task.schema.features))
    assert features.dtype == np.float32
    disturbed = inputs.copy()
    disturbed[:, 0] += 2
    assert np.abs(task.features(disturbed) - features)[:, 0].min() > 0.02


@pytest.mark.parametrize("devices", [0, 11])
def test_refuses_more_devices_than_slices_and_none(devices: int) -> None:
    with pytest.raises(TaskDataError, match="1 to 10 devices"):
        deal(tuple(load_task("digits").device_slices()), devices=devices)


@pytest.mark.parametrize("slices", [("nobody",), (), ("block-1", "block-1")])
def test_refuses_to_write_slices_that_do_not_exist_or_repeat(slices: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(TaskDataError, match="Expected"):
        load_task("digits").write_device_data(tmp_path, slices)


def test_the_carrier_is_converted_once_and_made_again_when_the_cache_is_damaged(tmp_path: Path) -> None:
    first = carrier.recordings(tmp_path)
    (cached,) = tmp_path.iterdir()
    original = cached.read_bytes()
    cached.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    assert [recording.number for recording in carrier.recordings(tmp_path)] == list(range(140))
    assert cached.read_bytes() == original
    assert first[0].samples.shape[1] == 6


def test_a_pickle_of_another_content_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "watch_dataset.npy"
    np.save(other, np.array([{"X": []}], dtype=object), allow_pickle=True)
    monkeypatch.setattr(carrier, "_carrier_path", lambda: other)
    with pytest.raises(TaskDataError, match=carrier.CARRIER_SHA256):
        carrier.recordings(tmp_path / "cache")


def test_says_what_to_install_where_the_carrier_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TaskDataError, match="seglearn") as caught:
        carrier.recordings(tmp_path)
    assert "fleetlearn[tasks]" in caught.value.hint
