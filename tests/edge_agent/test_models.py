"""Models that come down as differences, against a real coordinator: exact, or fetched whole."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_agent.enrolment import EnrolmentOrder, enrol
from edge_agent.errors import CoordinatorRefusedError
from edge_agent.identity import read_identity
from edge_agent.models import Models
from edge_agent.state_dir import StateDir
from shared.ids import DeviceId, Digest
from shared.messages.base import ObjectRef
from shared.tensors import encode
from tests.edge_agent.coordinator import Served, served
from tests.support.coordinator import Machine

ADDRESS = "127.0.0.42"
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("coordinator"), address=ADDRESS) as running:
        yield running


class Device:
    """An enrolled device, its client and its models."""

    def __init__(self, coordinator: Served, folder: Path, name: str) -> None:
        state = StateDir(folder / name)
        enrol(EnrolmentOrder(coordinator.token(), DeviceId(name)), state)
        self.device_id, self.folder = DeviceId(name), folder
        self.client = coordinator.client(Machine(self.device_id, read_identity(state.identity).key))
        self.models = Models(state.models, self.client)
        self.base_folder = state.models

    def fetch(self, ref: ObjectRef, name: str) -> tuple[int, bytes]:
        came = self.models.fetch(ref, self.folder / name)
        return came, (self.folder / name).read_bytes()


@pytest.fixture
def device(coordinator: Served, tmp_path: Path) -> Iterator[Device]:
    made = Device(coordinator, tmp_path, f"d-{random.Random(str(tmp_path)).randrange(10**9)}")
    yield made
    made.client.close()


def rounds(count: int) -> list[bytes]:
    """Models of successive rounds; half of each is not trained."""
    draws = np.random.default_rng(1)
    frozen, head = (draws.normal(size=20_000).astype(np.float32) for _ in range(2))
    steps = draws.normal(size=(count, 20_000)).astype(np.float32) * np.float32(1e-3)
    return [encode({"frozen": frozen, "head": head + step}) for step in steps]


def test_each_round_comes_as_the_difference_to_the_one_before(coordinator: Served, device: Device) -> None:
    payloads = rounds(3)
    came = []
    for number, payload in enumerate(payloads):
        size, content = device.fetch(coordinator.give_model(device.device_id, payload), f"model-{number}")
        assert content == payload
        came.append(size)
    assert came[0] == len(payloads[0])
    assert max(came[1:]) < len(payloads[0]) / 2
    assert [path.read_bytes() for path in device.base_folder.iterdir()] == [payloads[-1]]


def test_a_model_that_is_there_is_not_fetched(coordinator: Served, device: Device) -> None:
    (payload,) = rounds(1)
    ref = coordinator.give_model(device.device_id, payload)
    device.fetch(ref, "model")
    assert device.fetch(ref, "model") == (0, payload)
    assert device.fetch(ref, "of-another-work") == (0, payload)


def test_a_damaged_base_costs_bytes_and_nothing_else(coordinator: Served, device: Device) -> None:
    first, second = rounds(2)
    device.fetch(coordinator.give_model(device.device_id, first), "model-0")
    (base,) = device.base_folder.iterdir()
    base.unlink()
    base.write_bytes(first[:-1] + b"x")
    assert device.fetch(coordinator.give_model(device.device_id, second), "model-1") == (len(second), second)


def test_a_model_of_another_shape_comes_whole(coordinator: Served, device: Device) -> None:
    device.fetch(coordinator.give_model(device.device_id, rounds(1)[0]), "model-0")
    other = encode({"other": np.ones(5, np.float32)})
    assert device.fetch(coordinator.give_model(device.device_id, other), "model-1") == (len(other), other)


def test_the_difference_to_an_object_of_another_device_is_refused(
    coordinator: Served, device: Device, tmp_path: Path
) -> None:
    mine, other = rounds(2)
    ref = coordinator.give_model(device.device_id, mine)
    stranger = coordinator.coordinator.services.blobs.put(other)
    with pytest.raises(CoordinatorRefusedError, match="objects of this device's work"):
        device.client.delta(ref, base=Digest(stranger.digest))
