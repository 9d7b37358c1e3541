"""What privacy and federation cost: the same people's data with less protection, in this process.

Only possible because all data of a demonstration lies on one machine; torch is loaded here, for this alone.
"""

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory

from cloud.blobs.store import BlobStore
from shared.api.models import ModelVersion
from shared.tasks.storage import concatenate
from shared.tasks.task import LocalTraining, Role
from shared.tensors import decode
from simulations.demo.stage import Stage


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Accuracies on unseen people."""

    without_noise: float
    """The campaign's rounds with the same settings, neither clipped nor noised."""
    in_one_place: float
    """One model trained centrally on public people and on every device's data."""


def compare(stage: Stage, base: ModelVersion) -> Comparison:
    """Trains both."""
    import torch

    torch.set_num_threads(1)
    with stage.step("Compare with less protection") as bar:
        without_noise = _federate(stage, base)
        bar.show(0.4, f"{without_noise:.3f} without noise")
        in_one_place = _train_in_one_place(stage)
        bar.show(1, f"{without_noise:.3f} no noise, {in_one_place:.3f} in one place")
        return Comparison(without_noise, in_one_place)


def _federate(stage: Stage, base: ModelVersion) -> float:
    from cloud.training.evaluate import evaluate
    from simulations.reference.fedavg import Settings, federated_averaging

    run = federated_averaging(
        stage.task,
        decode(BlobStore(str(stage.cloud_dir / "blobs")).get(base.weights.digest)),
        [stage.task.device_data(device.data_dir) for device in stage.devices],
        settings=Settings(rounds=stage.rounds, config=_as_config(stage.task.local_training)),
        seed=0,
    )
    return evaluate(stage.task, run.tensors, role=Role.UNSEEN).accuracy


def _as_config(training: LocalTraining) -> dict[str, bool | int | float | str]:
    """The settings that a campaign with privacy uses, for rounds without it."""
    return {
        "steps": training.steps,
        "learning-rate": training.learning_rate,
        "sampling-rate": training.sampling_rate,
        "trained-parameters": " ".join(training.trained_parameters),
    }


def _train_in_one_place(stage: Stage) -> float:
    from cloud.training.evaluate import evaluate
    from cloud.training.trainer import train_base

    parts = [stage.task.device_data(device.data_dir).train for device in stage.devices]
    pooled = concatenate([stage.task.central_data(Role.PUBLIC), *parts])
    with TemporaryDirectory() as folder:
        trained = train_base(stage.task, seed=0, checkpoint_dir=Path(folder), examples=pooled)
    return evaluate(stage.task, trained.tensors, role=Role.UNSEEN).accuracy
