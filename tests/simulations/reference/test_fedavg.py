"""The reference rounds are repeatable, average as the paper says, and learn."""

from pathlib import Path

import numpy as np
import pytest

from cloud.training.evaluate import evaluate
from cloud.training.privacy_plan import plan_privacy
from cloud.training.trainer import train_base
from shared.tasks.registry import load_task
from shared.tasks.slices import deal
from shared.tasks.storage import merge
from shared.tasks.task import Role
from shared.tensors import Tensors, encode
from simulations.reference.fedavg import Run, Settings, average, federated_averaging

TASK = load_task("digits")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    folder: Path = tmp_path_factory.mktemp("base")
    return train_base(TASK, seed=0, checkpoint_dir=folder).tensors


def _run(base: Tensors, settings: Settings, *, seed: int = 0) -> Run:
    slices = TASK.device_slices()
    devices = [merge(slices[name] for name in names) for names in deal(tuple(slices), devices=5)]
    return federated_averaging(TASK, base, devices, settings=settings, seed=seed)


def test_averages_by_weight() -> None:
    updates: list[tuple[Tensors, float]] = [
        ({"w": np.array([0.0, 4.0], np.float32)}, 1.0),
        ({"w": np.array([4.0, 0.0], np.float32)}, 3.0),
    ]
    averaged = average(updates)["w"]
    assert averaged.tolist() == [3.0, 1.0]
    assert averaged.dtype == np.float32


def test_rounds_without_privacy_improve_on_the_base(base: Tensors) -> None:
    run = _run(base, Settings(rounds=3))
    assert [each.number for each in run.rounds] == [1, 2, 3]
    before = evaluate(TASK, base, role=Role.VALIDATION)
    assert run.rounds[-1].validation.accuracy > before.accuracy + 0.02
    assert all("train-loss" in metrics for metrics in run.rounds[0].devices)


def test_the_same_seed_repeats_private_rounds_and_another_does_not(base: Tensors) -> None:
    local = TASK.local_training
    privacy = plan_privacy(
        epsilon=8,
        delta=1e-5,
        sampling_rate=local.sampling_rate,
        steps_per_round=local.steps,
        rounds=2,
        max_grad_norm=local.max_grad_norm,
    )
    settings = Settings(rounds=2, privacy=privacy)
    first = _run(base, settings, seed=1)
    assert encode(first.tensors) == encode(_run(base, settings, seed=1).tensors)
    assert encode(first.tensors) != encode(_run(base, settings, seed=2).tensors)
    assert not any("train-loss" in metrics for each in first.rounds for metrics in each.devices)
