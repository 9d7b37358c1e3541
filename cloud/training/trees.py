"""Grows a task's base ensemble on public data, one step of boosting an epoch; as `trainer`, for trees.

Deterministic, and resumed from the newest checkpoint to the same trees.
"""

from collections.abc import Callable
from pathlib import Path

from cloud.training.checkpoints import Checkpoint, newest_checkpoint, write_checkpoint
from cloud.training.evaluate import evaluate_model
from cloud.training.trainer import EpochMetrics, TrainedModel
from shared.tasks.task import Examples, Role, Task
from shared.trees.boosting import Boosting
from shared.trees.ensemble import NOTHING, joined, read_ensemble
from shared.trees.growing import Growth, grow
from shared.trees.model import TreeModel


def train_trees(
    task: Task,
    *,
    boosting: Boosting,
    seed: int,
    checkpoint_dir: Path,
    on_epoch: Callable[[EpochMetrics], None] = lambda _: None,
    examples: Examples | None = None,
) -> TrainedModel:
    """The task's ensemble after `central_training.epochs` steps on its public data; arguments are `train_base`'s.

    Raises:
        TaskDataError: The task's data is not on this machine.
        CheckpointError: The newest checkpoint is of another task, version or seed.
        ExtraNotInstalledError: There is no XGBoost here.
    """
    examples = task.central_data(Role.PUBLIC) if examples is None else examples
    validation, settings = task.central_data(Role.VALIDATION), task.central_training
    found = newest_checkpoint(checkpoint_dir, task=task.name, task_version=task.version, seed=seed)
    ensemble = read_ensemble(found.model, boosting) if found else NOTHING
    model, history = TreeModel(boosting), list[EpochMetrics]()
    for epoch in range((found.epoch if found else 0) + 1, settings.epochs + 1):
        ensemble = joined([ensemble, grow(boosting, ensemble, examples, Growth(1, settings.learning_rate, seed=seed))])
        write_checkpoint(checkpoint_dir, Checkpoint(task.name, task.version, seed, epoch, ensemble.tensors, {}))
        model.take_tensors(ensemble.tensors)
        train_loss = evaluate_model(task, model, examples).loss
        history.append(EpochMetrics(epoch, settings.epochs, train_loss, evaluate_model(task, model, validation)))
        on_epoch(history[-1])
    model.take_tensors(ensemble.tensors)
    final = evaluate_model(task, model, validation)
    metrics = {"validation_accuracy": final.accuracy, "validation_loss": final.loss, "examples": float(len(examples))}
    if history:
        metrics["train_loss"] = history[-1].train_loss
    return TrainedModel(ensemble.tensors, metrics, tuple(history))
