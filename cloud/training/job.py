"""The job `train_base`: trains a task's base model, measures it, and registers it with its lineage.

Run again after a crash, it goes on from the newest checkpoint, and registers nothing twice.
"""

import hashlib
import secrets
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from cloud.jobs.context import JobContext, JsonObject
from cloud.registry.service import NewVersion, find_by_origin, register
from shared.api.jobs import TrainingCreate
from shared.api.models import ModelVersion
from shared.ids import uuid7
from shared.tasks.registry import load_task
from shared.tasks.task import Examples, Role, Task
from shared.tensors import encode
from shared.trees.boosting import boosting_of

if TYPE_CHECKING:
    from cloud.training.trainer import EpochMetrics, TrainedModel

_TRAINING_SHARE = 0.95
"""How much of the job's progress is epochs; the rest is measuring and storing."""


def run(context: JobContext, spec: JsonObject) -> JsonObject:
    """The registered version's id and metrics. `spec` is a `TrainingCreate`."""
    asked = TrainingCreate.model_validate(spec)
    origin = f"training:{context.job_id}"
    with context.sessions() as session, session.begin():
        done = find_by_origin(session, origin)
    return _result(done or _train(context, asked, origin=origin))


def examples_digest(examples: Examples) -> str:
    """SHA-256 over inputs, labels and units: names the data in a lineage without holding any of it."""
    digest = hashlib.sha256()
    for array in (examples.inputs, examples.labels, examples.units):
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _train(context: JobContext, asked: TrainingCreate, *, origin: str) -> ModelVersion:
    # The trainer brings torch: only the worker that trains pays for it.
    from cloud.training.trainer import train_base
    from cloud.training.trees import train_trees

    task = load_task(asked.task)
    boosting = boosting_of(task)
    context.report_progress(fraction=0.0, step="Loading data")
    trained = (partial(train_trees, boosting=boosting) if boosting else train_base)(
        task,
        seed=asked.seed,
        checkpoint_dir=context.work_dir / "checkpoints",
        on_epoch=lambda epoch: _report_epoch(context, epoch),
    )
    context.report_progress(fraction=_TRAINING_SHARE, step="Measuring the model")
    new = NewVersion(
        origin=origin,
        task=task.name,
        task_version=task.version,
        weights=context.blobs.put(encode(trained.tensors)),
        metrics=_metrics(task, trained),
        lineage=_lineage(context, task, seed=asked.seed),
    )
    now = context.now()
    version_id = uuid7(unix_ms=int(now * 1000), random_bytes=secrets.token_bytes(10))
    with context.sessions() as session, session.begin():
        return register(session, new, model_version_id=version_id, now=now)


def _report_epoch(context: JobContext, epoch: "EpochMetrics") -> None:
    context.check_cancelled()
    context.report_progress(
        fraction=_TRAINING_SHARE * epoch.epoch / epoch.epochs,
        step=f"Epoch {epoch.epoch} of {epoch.epochs}",
        epoch=epoch.epoch,
        epochs=epoch.epochs,
        loss=epoch.train_loss,
        accuracy=epoch.validation.accuracy,
    )


def _metrics(task: Task, trained: "TrainedModel") -> dict[str, float]:
    from cloud.training.evaluate import evaluate

    validation = evaluate(task, trained.tensors, role=Role.VALIDATION)
    unseen = evaluate(task, trained.tensors, role=Role.UNSEEN)
    return {
        **trained.metrics,
        "validation_accuracy": validation.accuracy,
        "validation_loss": validation.loss,
        "unseen_accuracy": unseen.accuracy,
        "unseen_loss": unseen.loss,
    }


def _lineage(context: JobContext, task: Task, *, seed: int) -> dict[str, Any]:  # Any: JSON
    return {
        "job_id": context.job_id,
        "task": task.name,
        "task_version": task.version,
        "seed": seed,
        "data_digest": examples_digest(task.central_data(Role.PUBLIC)),
        "code_version": version("fleetlearn"),
    }


def _result(registered: ModelVersion) -> JsonObject:
    return {"model_version_id": registered.model_version_id, **registered.metrics}
