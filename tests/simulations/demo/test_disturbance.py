"""Which part of a sensor breaks: one that the task's features show, whatever the shape of its inputs."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.tasks.registry import load_task
from shared.tasks.task import Examples, Inputs, Role, Task
from simulations.demo.disturbance import Disturbance, choose_disturbance

Features = Callable[[Inputs], NDArray[np.float32]]


def _task(names: tuple[str, ...], features: Features) -> Task:
    return cast(Task, SimpleNamespace(schema=SimpleNamespace(features=names), features=features))


def _examples(inputs: Inputs) -> Examples:
    return Examples(inputs, np.zeros(len(inputs), np.int64), np.arange(len(inputs)))


@pytest.mark.parametrize(("name", "feature", "channel"), [("physio", "gyro_z", 5), ("digits", "ink", None)])
def test_every_reference_task_has_one(name: str, feature: str, channel: int | None) -> None:
    task = load_task(name)
    assert choose_disturbance(task, task.central_data(Role.UNSEEN)) == Disturbance(feature, channel)


def test_takes_the_channel_that_a_feature_shows_best() -> None:
    # Channel 0 swings around zero, so that its mean hides a dead sensor; channel 1 stands far from zero.
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 2, 50)).astype(np.float32)
    inputs[:, 1] += 5
    task = _task(("swing", "level"), lambda values: values.mean(axis=2))
    chosen = choose_disturbance(task, _examples(inputs + rng.normal(size=(200, 2, 1)).astype(np.float32)))
    assert chosen == Disturbance("level", 1)


def test_chooses_nothing_where_no_feature_would_show_it() -> None:
    inputs = np.random.default_rng(0).normal(size=(200, 3, 4)).astype(np.float32)
    task = _task(("constant",), lambda values: np.ones((len(values), 1), np.float32))
    assert choose_disturbance(task, _examples(inputs)) is None


@pytest.mark.parametrize("channel", [None, 1])
def test_breaks_a_copy_and_only_that_part(channel: int | None) -> None:
    inputs = np.ones((2, 3, 4), np.float32)
    broken = Disturbance("level", channel).applied(inputs)
    assert inputs.all()
    assert not broken[:, slice(None) if channel is None else channel].any()
    assert broken[:, 0].all() == (channel is not None)
