"""The base ensemble: repeatable, and resumed to the same trees."""

from dataclasses import replace
from pathlib import Path

import pytest

from cloud.training.trainer import EpochMetrics
from cloud.training.trees import train_trees
from shared.tasks.physio.trees import PhysioTreesTask
from shared.tensors import encode
from shared.trees.ensemble import NODES


class _FourSteps(PhysioTreesTask):
    central_training = replace(PhysioTreesTask.central_training, epochs=4)


TASK = _FourSteps()


class _Killed(Exception):
    pass


def _kill_after_two(metrics: EpochMetrics) -> None:
    if metrics.epoch == 2:
        raise _Killed


def test_a_run_that_was_killed_ends_with_the_trees_of_one_that_was_not(tmp_path: Path) -> None:
    whole = train_trees(TASK, boosting=TASK.boosting, seed=0, checkpoint_dir=tmp_path / "whole")
    assert [metrics.epoch for metrics in whole.history] == [1, 2, 3, 4]
    assert whole.history[-1].train_loss < whole.history[0].train_loss
    with pytest.raises(_Killed):
        train_trees(TASK, boosting=TASK.boosting, seed=0, checkpoint_dir=tmp_path / "killed", on_epoch=_kill_after_two)

    resumed = train_trees(TASK, boosting=TASK.boosting, seed=0, checkpoint_dir=tmp_path / "killed")

    assert [metrics.epoch for metrics in resumed.history] == [3, 4]
    assert encode(resumed.tensors) == encode(whole.tensors)
    assert resumed.metrics == whole.metrics


def test_a_task_may_start_from_no_trees_at_all(tmp_path: Path) -> None:
    trained = train_trees(PhysioTreesTask(), boosting=TASK.boosting, seed=0, checkpoint_dir=tmp_path)
    assert len(trained.tensors[NODES]) == 0
    assert trained.history == ()
