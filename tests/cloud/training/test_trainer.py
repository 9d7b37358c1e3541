"""Central training: repeatable, resumable to the same weights, and never on the wrong checkpoint."""

from pathlib import Path

import numpy as np
import pytest

from cloud.training.checkpoints import KEPT, CheckpointError, newest_checkpoint
from cloud.training.evaluate import evaluate
from cloud.training.trainer import EpochMetrics, train_base
from shared.tasks.registry import load_task
from shared.tasks.task import Role
from shared.tasks.torch_model import ModelMismatchError
from shared.tensors import Tensors, encode


class _Killed(Exception):
    pass


def _kill_after(epoch: int):  # type: ignore[no-untyped-def]  # a callback of one line
    def on_epoch(metrics: EpochMetrics) -> None:
        if metrics.epoch == epoch:
            raise _Killed

    return on_epoch


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    return train_base(
        load_task("digits"), seed=3, checkpoint_dir=tmp_path_factory.mktemp("whole"), device="cpu"
    ).tensors


def test_learns_and_reports_every_epoch(tmp_path: Path) -> None:
    seen: list[EpochMetrics] = []
    task = load_task("digits")
    trained = train_base(task, seed=3, checkpoint_dir=tmp_path, on_epoch=seen.append)
    assert [metrics.epoch for metrics in seen] == list(range(1, task.central_training.epochs + 1))
    assert seen[-1].train_loss < seen[0].train_loss
    assert trained.metrics["validation_accuracy"] > 0.7
    assert evaluate(task, trained.tensors, role=Role.VALIDATION).accuracy == trained.metrics["validation_accuracy"]


@pytest.mark.parametrize("epoch", [1, 7])
def test_a_run_that_was_killed_ends_with_the_weights_of_one_that_was_not(
    epoch: int, tmp_path: Path, whole: Tensors
) -> None:
    task = load_task("digits")
    with pytest.raises(_Killed):
        train_base(task, seed=3, checkpoint_dir=tmp_path, on_epoch=_kill_after(epoch), device="cpu")
    resumed = train_base(task, seed=3, checkpoint_dir=tmp_path, device="cpu")
    assert resumed.history[0].epoch == epoch + 1
    assert encode(resumed.tensors) == encode(whole)


def test_another_seed_gives_other_weights(tmp_path: Path, whole: Tensors) -> None:
    other = train_base(load_task("digits"), seed=4, checkpoint_dir=tmp_path)
    assert encode(other.tensors) != encode(whole)


def test_resumes_from_the_older_checkpoint_when_the_newest_is_damaged(tmp_path: Path, whole: Tensors) -> None:
    task = load_task("digits")
    with pytest.raises(_Killed):
        train_base(task, seed=3, checkpoint_dir=tmp_path, on_epoch=_kill_after(5), device="cpu")
    (tmp_path / "epoch-000005.safetensors").write_bytes(b"torn")
    resumed = train_base(task, seed=3, checkpoint_dir=tmp_path, device="cpu")
    assert resumed.history[0].epoch == 5
    assert encode(resumed.tensors) == encode(whole)


def test_keeps_few_checkpoints_and_refuses_those_of_other_training(tmp_path: Path) -> None:
    task = load_task("digits")
    train_base(task, seed=3, checkpoint_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == KEPT
    with pytest.raises(CheckpointError, match="'4'"):
        train_base(task, seed=4, checkpoint_dir=tmp_path)
    assert newest_checkpoint(tmp_path / "absent", task="digits", task_version="1", seed=3) is None


def test_refuses_to_evaluate_weights_of_another_model(whole: Tensors) -> None:
    task = load_task("digits")
    with pytest.raises(ModelMismatchError):
        evaluate(task, {name: np.zeros(1, np.float32) for name in whole}, role=Role.VALIDATION)
    with pytest.raises(ModelMismatchError):
        evaluate(load_task("physio"), whole, role=Role.VALIDATION)
