"""Drift on the device: quiet on what the profile knows, loud on a disturbed sensor, and forgetful on purpose."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.telemetry.drift import DriftWindow
from shared.sketches import count, population_stability_index
from shared.tasks.digits import TASK
from tests.edge_agent.support import images, profile

PROFILE = profile(images(2000, seed=2), examples_min=64)


def window() -> DriftWindow:
    return DriftWindow(PROFILE, TASK.features)


def test_says_nothing_before_there_are_enough_examples() -> None:
    drift = window()
    drift.add([images(63)])
    assert drift.drift() == []
    drift.add([images(1)])
    assert [feature.feature for feature in drift.drift()] == list(TASK.schema.features)


def test_known_traffic_is_quiet_and_a_disturbed_sensor_is_found() -> None:
    drift = window()
    drift.add([images(200, seed=7)])
    assert all(feature.psi < feature.threshold for feature in drift.drift())
    disturbed = images(200, seed=8)
    disturbed[:, :32] += 0.5
    drift.add([disturbed])
    loud = {feature.feature for feature in drift.drift() if feature.psi > feature.threshold}
    assert {"top", "ink"} <= loud
    assert "bottom" not in loud


def test_a_sensor_that_recovers_is_forgiven() -> None:
    drift = window()
    drift.add([images(100, seed=8) + 0.5])
    drift.add([images(80, seed=9)])
    assert all(feature.psi < feature.threshold for feature in drift.drift())


def test_a_dead_sensor_is_as_far_away_as_can_be() -> None:
    drift = window()
    drift.add([np.zeros((80, 64), np.float32)])
    assert all(feature.psi > 1 for feature in drift.drift())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=25))
def test_the_window_holds_the_newest_examples_and_little_more(sizes: list[int]) -> None:
    drift = window()
    for size in sizes:
        drift.add([images(size, seed=size)])
    assert min(sum(sizes), 64) <= drift.examples <= min(sum(sizes), 64 + 2 * 8)


def test_the_figures_are_those_of_the_window_counted_at_once() -> None:
    drift, recent = window(), images(64, seed=4)
    for image in recent:
        drift.add([image[None]])
    counts = count(PROFILE, TASK.features(recent))
    expected = [
        population_stability_index(np.asarray(feature.proportions), row)
        for feature, row in zip(PROFILE.features, counts, strict=True)
    ]
    assert [feature.psi for feature in drift.drift()] == pytest.approx(expected)
