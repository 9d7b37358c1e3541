"""A device's part of a round of trees: what leaves it, and what it refuses, whatever the cloud believes."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.training.jobs import Job, Worker
from edge_agent.training.ledger import Ledger
from shared.accountant import epsilon_of
from shared.messages.base import ObjectRef
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import Work
from shared.tasks.registry import load_task
from shared.tensors import Tensors, decode, encode
from shared.trees.boosting import boosting_of
from shared.trees.ensemble import check_grown, joined, read_ensemble
from shared.trees.growing import Growth, grow
from tests.edge_agent.training.device import MODEL
from tests.edge_agent.training.ledgers import KEY, same_limits

TASK = load_task("physio_trees")
SLICE = "subject-3-left"


class Device:
    """A worker with one slice of the task; `close` it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Ledger(folder / "state", limits=same_limits(50.0), epsilon_of=epsilon_of, key=KEY)
        TASK.write_device_data(folder / "data", (SLICE,))
        self.worker = Worker(folder / "data", self.ledger, allow_without_privacy=True)

    def perform(self, tensors: Tensors, **fields: Any) -> WorkResult:
        """What becomes of training work. `Any`: fields of Work."""
        payload = encode(tensors)
        (self.folder / "model").write_bytes(payload)
        known = {"work_id": "w", "kind": "train", "campaign_id": "c", "round": 1, "deadline_s": 60}
        ref = ObjectRef(digest=hashlib.sha256(payload).hexdigest(), size_bytes=len(payload))
        work = Work.model_validate({**known, "task": TASK.name, "task_version": TASK.version, "model": ref, **fields})
        job = Job(work=work, model_path=str(self.folder / "model"), update_path=str(self.folder / "update"))
        return self.worker.perform(job)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path)
    yield made
    made.ledger.close()


def test_what_leaves_is_the_new_trees_alone(device: Device) -> None:
    boosting, data = boosting_of(TASK), TASK.device_slices()[SLICE].train
    assert boosting is not None
    start = grow(boosting, joined([]), data, Growth(2, 0.3))

    result = device.perform(start.tensors, config={"steps": 3, "learning-rate": 0.3})

    assert result.status is WorkStatus.DONE, result.reason
    grown = read_ensemble(decode((device.folder / "update").read_bytes()), boosting)
    check_grown(grown, boosting, steps=3, learning_rate=0.3)
    assert result.metrics["num-examples"] == len(data)
    assert {"train-loss", "held-out-accuracy", "held-out-loss"} <= result.metrics.keys()
    assert encode(grown.tensors) == encode(grow(boosting, start, data, Growth(3, 0.3)).tensors)


@pytest.mark.parametrize(
    "fields",
    [
        {"privacy": {"epsilon": 8, "delta": 1e-5, "noise_multiplier": 1, "max_grad_norm": 1, "sampling_rate": 1}},
        {"compression": "int8"},
    ],
    ids=["privacy", "compression"],
)
def test_a_device_refuses_protections_that_would_protect_nothing_and_spends_nothing(
    device: Device, fields: dict[str, Any]
) -> None:
    if "privacy" in fields:
        fields["privacy"] |= {"steps_per_round": 1, "rounds": 1}
    result = device.perform(joined([]).tensors, **fields)
    assert result.status is WorkStatus.REFUSED
    assert "to be asked for whole trees" in result.reason
    assert device.ledger.spent(TASK.device_slices()[SLICE].dataset_id, TASK.privacy_unit).epsilon == 0


def test_an_owner_who_wants_privacy_lets_no_tree_leave(device: Device) -> None:
    device.worker = Worker(device.folder / "data", device.ledger, allow_without_privacy=False)
    result = device.perform(joined([]).tensors)
    assert result.status is WorkStatus.REFUSED
    assert "Expected training with privacy" in result.reason


def test_a_model_that_is_no_ensemble_is_refused(device: Device) -> None:
    result = device.perform(MODEL)
    assert result.status is WorkStatus.REFUSED
    assert "Expected the 4 arrays of trees" in result.reason
