"""The same rounds in this process, without noise: the difference to the campaign is the price of privacy."""

from cloud.blobs.store import BlobStore
from shared.api.models import ModelVersion
from shared.tasks.task import Role
from shared.tensors import decode
from simulations.demo.stage import Stage


def federate_without_noise(stage: Stage, base: ModelVersion) -> float:
    """Accuracy on unseen people after the campaign's rounds on the same devices' data, without privacy.

    Only possible because all data of a demonstration lies on one machine; torch is loaded here, for this alone.
    """
    import torch

    from cloud.training.evaluate import evaluate
    from simulations.reference.fedavg import Settings, federated_averaging

    torch.set_num_threads(1)
    with stage.step("The same rounds without noise, to compare") as bar:
        run = federated_averaging(
            stage.task,
            decode(BlobStore(str(stage.cloud_dir / "blobs")).get(base.weights.digest)),
            [stage.task.device_data(device.data_dir) for device in stage.devices],
            settings=Settings(rounds=stage.rounds),
            seed=0,
            on_round=lambda r: bar.show(r.number / stage.rounds, f"validation {r.validation.accuracy:.3f}"),
        )
        accuracy = evaluate(stage.task, run.tensors, role=Role.UNSEEN).accuracy
        bar.show(1, f"{accuracy:.3f} on unseen people")
        return accuracy
