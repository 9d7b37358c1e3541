"""Work on the device against a real coordinator: the result goes with its update, or by the longer ways."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.work.service import results_of
from edge_agent.enrolment import EnrolmentOrder, enrol
from edge_agent.identity import read_identity
from edge_agent.models import Models
from edge_agent.state_dir import StateDir
from edge_agent.work import WorkEnd, WorkRunner
from shared.ids import DeviceId
from shared.messages.attached import ATTACHED_BYTES_MAX
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import Work
from tests.edge_agent.coordinator import Served, served
from tests.support.coordinator import Machine

ADDRESS = "127.0.0.97"
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Trains:
    """Writes an update of so many bytes, whatever the model."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.models: list[bytes] = []

    async def run(self, work: Work, *, model_path: Path, update_path: Path) -> WorkResult:
        await asyncio.to_thread(self._train, model_path, update_path)
        return WorkResult(work_id=work.work_id, status=WorkStatus.DONE, metrics={"num-examples": 1})

    def _train(self, model_path: Path, update_path: Path) -> None:
        self.models.append(model_path.read_bytes())
        update_path.write_bytes(b"u" * self._size)


class OpenGate:
    """An owner who allows everything."""

    def refusal(self, work_id: str) -> str:
        return ""


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("coordinator"), address=ADDRESS) as running:
        yield running


class Device:
    """An enrolled device with a trainer."""

    def __init__(self, coordinator: Served, folder: Path, *, update_bytes: int) -> None:
        state = StateDir(folder)
        self.device_id = DeviceId(f"d-{random.Random(str(folder)).randrange(10**9)}")
        enrol(EnrolmentOrder(coordinator.token(), self.device_id), state)
        self.client = coordinator.client(Machine(self.device_id, read_identity(state.identity).key))
        self.trainer = Trains(update_bytes)
        self.runner = WorkRunner(
            folder / "work",
            models=Models(state.models, self.client),
            client=self.client,
            trainer=self.trainer,
            gate=OpenGate(),
            rng=random.Random(0),
        )

    def work_once(self) -> WorkEnd:
        (work,) = self.runner.fetch().work
        end = asyncio.run(self.runner.run(work))
        self.runner.forget(work)
        return end


def stored(coordinator: Served, device: Device) -> list[WorkResult | None]:
    with coordinator.coordinator.services.sessions() as session, session.begin():
        outcomes = results_of(session, campaign_id="c", round=1)
    return [one.result for one in outcomes if one.device_id == device.device_id]


@pytest.mark.parametrize("update_bytes", [10, ATTACHED_BYTES_MAX + 1])
def test_result_and_update_are_in_the_cloud_once_work_ended(
    coordinator: Served, tmp_path: Path, update_bytes: int
) -> None:
    device = Device(coordinator, tmp_path, update_bytes=update_bytes)
    coordinator.give_model(device.device_id, b"the model")
    end = device.work_once()
    assert end.is_handed_in
    assert device.trainer.models == [b"the model"]
    assert stored(coordinator, device) == [end.result]
    assert end.result.update is not None
    assert len(coordinator.coordinator.services.blobs.get(end.result.update.digest)) == update_bytes
    device.client.close()


def test_a_round_over_the_wire_takes_two_requests(coordinator: Served, tmp_path: Path) -> None:
    device = Device(coordinator, tmp_path, update_bytes=10)
    device.client.work()  # the first request of all asks for a nonce
    coordinator.give_model(device.device_id, b"the model")
    coordinator.requests.clear()
    end = device.work_once()
    assert coordinator.requests == ["GET /v1/device/work", f"PUT /v1/device/work/{end.result.work_id}/result"]
    device.client.close()


def test_what_the_coordinator_would_not_take_goes_as_an_event_with_its_update_uploaded(
    coordinator: Served, tmp_path: Path
) -> None:
    """As with a coordinator of before, which knows no such request."""
    device = Device(coordinator, tmp_path, update_bytes=10)
    coordinator.give_model(device.device_id, b"the model")
    (work,) = device.runner.fetch().work
    end = asyncio.run(device.runner.run(work.model_copy(update={"work_id": "of-another-coordinator"})))
    assert not end.is_handed_in
    assert end.result.status is WorkStatus.DONE
    assert end.result.update is not None
    assert coordinator.coordinator.services.blobs.exists(end.result.update.digest)
    assert stored(coordinator, device) == [None]
    device.client.close()
