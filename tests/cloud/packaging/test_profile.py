"""The drift profile: quiet on people the reference has not seen, loud on a broken sensor."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.packaging.profile import EXAMPLES_MIN, THRESHOLD_MIN, drift_profile, stability_indices
from edge_agent.telemetry.drift import DriftWindow
from shared.sketches import DriftProfile
from shared.tasks.registry import load_task
from shared.tasks.task import Inputs, Role, Task


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("physio")


@pytest.fixture(scope="module")
def profile(task: Task) -> DriftProfile:
    public, validation = task.central_data(Role.PUBLIC), task.central_data(Role.VALIDATION)
    return drift_profile(
        task.schema.features,
        reference=task.features(public.inputs),
        unseen=task.features(validation.inputs),
        unseen_units=validation.units,
    )


@pytest.fixture(scope="module")
def traffic(task: Task) -> dict[str, Inputs]:
    """What each device subject's two arms held out: one exercise each, of people neither the model nor we know."""
    slices = task.device_slices()
    names = {name.removesuffix("-left") for name in slices if name.endswith("-left")}
    return {
        name: np.concatenate([slices[f"{name}-{side}"].held_out.inputs for side in ("left", "right")])
        for name in sorted(names)
    }


def test_normal_traffic_of_every_device_subject_stays_below_the_thresholds(
    task: Task, profile: DriftProfile, traffic: dict[str, Inputs]
) -> None:
    for name, inputs in traffic.items():
        assert _drifting(task, profile, inputs) == set(), name


def test_one_exercise_of_an_unseen_person_over_and_over_is_rarely_taken_for_a_broken_sensor(
    task: Task, profile: DriftProfile
) -> None:
    """The hardest normal traffic: a window is one recording. The figure is in docs/explanation/releases.md."""
    unseen = task.central_data(Role.UNSEEN)
    alerts = [bool(_drifting(task, profile, unseen.inputs[unseen.units == unit])) for unit in np.unique(unseen.units)]
    assert np.mean(alerts) <= 0.1


@pytest.mark.parametrize(
    ("channel", "gain", "offset", "noise"),
    [
        (3, 1, 0, 4.0),
        (3, 0, 0, 0),
        (4, 0, 0, 0),
        (5, 0, 0, 0),
        (4, 1, 0, 6.0),
        (0, 1, 4, 0.0),
        (1, 1, -3, 0.0),
        (2, 1, 3, 0.0),
        (5, 1, 0, 6.0),
    ],
)
def test_a_disturbed_sensor_is_seen_on_its_feature_alone(
    task: Task,
    profile: DriftProfile,
    traffic: dict[str, Inputs],
    channel: int,
    gain: float,
    offset: float,
    noise: float,
) -> None:
    rng = np.random.default_rng(0)
    for name, inputs in traffic.items():
        disturbed = inputs.copy()
        shape = disturbed[:, channel].shape
        disturbed[:, channel] = gain * disturbed[:, channel] + offset + noise * rng.standard_normal(shape)
        assert _drifting(task, profile, disturbed) == {task.schema.features[channel]}, name


def test_values_that_are_no_numbers_are_as_far_away_as_can_be(
    task: Task, profile: DriftProfile, traffic: dict[str, Inputs]
) -> None:
    broken = next(iter(traffic.values())).copy()
    broken[:, 2] = np.nan
    assert _drifting(task, profile, broken) == {task.schema.features[2]}


def test_the_reference_itself_has_no_drift(task: Task, profile: DriftProfile) -> None:
    assert stability_indices(profile, task.features(task.central_data(Role.PUBLIC).inputs)).max() < 0.01


def test_the_same_data_give_the_same_profile(task: Task, profile: DriftProfile) -> None:
    public, validation = task.central_data(Role.PUBLIC), task.central_data(Role.VALIDATION)
    again = drift_profile(
        task.schema.features,
        reference=task.features(public.inputs),
        unseen=task.features(validation.inputs),
        unseen_units=validation.units,
    )
    assert again == profile


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50), st.integers(1, 5))
def test_any_reference_gives_a_sound_profile(values: list[float], units: int) -> None:
    column = np.array(values, np.float32)[:, None]
    unit_of = np.arange(len(values)) % units
    profile = drift_profile(("x",), reference=column, unseen=column, unseen_units=unit_of)
    feature = profile.features[0]
    assert feature.edges == sorted(set(feature.edges))
    assert len(feature.proportions) == len(feature.edges) + 1
    assert sum(feature.proportions) == pytest.approx(1)
    assert feature.proportions[0] == feature.proportions[-1] == 0, "nothing of the reference is beyond the ends"
    assert feature.threshold >= THRESHOLD_MIN


def _drifting(task: Task, profile: DriftProfile, inputs: Inputs) -> set[str]:
    """Features that a device reports above their threshold when this traffic comes round and round."""
    repeats = -(-EXAMPLES_MIN // len(inputs))
    window = DriftWindow(profile, task.features)
    window.add([inputs] * repeats)
    drift = window.drift()
    assert len(drift) == len(task.schema.features)
    return {each.feature for each in drift if each.psi > each.threshold}
