"""The agent's signed HTTPS client against a real coordinator: cut wires, stale nonces, renewal, refusals."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from edge_agent.coordinator_client import UPLOAD_CHUNK_BYTES, CoordinatorClient, digest_of
from edge_agent.enrolment import EnrolmentOrder, enrol
from edge_agent.errors import (
    CoordinatorRefusedError,
    CoordinatorUnavailableError,
    DamagedObjectError,
    DeviceRevokedError,
)
from edge_agent.identity import Identity, read_identity, signing_request, write_certificate
from edge_agent.renewal import renew
from edge_agent.state_dir import StateDir
from shared.ids import DeviceId
from shared.messages.base import ObjectRef
from tests.edge_agent.coordinator import Served, served
from tests.support.coordinator import Machine

ADDRESS = "127.0.0.41"
# uvicorn and the wire end connections that are still open when a test ends.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("coordinator"), address=ADDRESS) as running:
        yield running


class Device:
    """An enrolled device and its client."""

    def __init__(self, coordinator: Served, folder: Path, name: str) -> None:
        self.state = StateDir(folder / name)
        enrol(EnrolmentOrder(coordinator.token(), DeviceId(name)), self.state)
        self.client = coordinator.client(Machine(DeviceId(name), self.identity.key))

    @property
    def identity(self) -> Identity:
        return read_identity(self.state.identity)


@pytest.fixture
def device(coordinator: Served, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Device]:
    made = Device(coordinator, tmp_path, f"d-{abs(hash(request.node.name)) % 10**9}")
    yield made
    made.client.close()
    coordinator.wire.cut_up.clear()
    coordinator.wire.cut_down.clear()


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def reconnect(coordinator: Served, device: Device) -> CoordinatorClient:
    """A client with no connection yet, so that the next cut hits what is sent next."""
    device.client.close()
    device.client = coordinator.client(Machine(device.identity.device_id, device.identity.key))
    return device.client


def test_a_download_that_is_cut_goes_on_where_it_ended(coordinator: Served, device: Device, tmp_path: Path) -> None:
    payload = noise(3_000_000)
    ref = coordinator.give_model(device.identity.device_id, payload)
    client, cuts = reconnect(coordinator, device), coordinator.wire.cuts
    coordinator.wire.cut_down += [700_000, 900_000]
    client.download(ref, tmp_path / "model")
    assert coordinator.wire.cuts == cuts + 2
    assert (tmp_path / "model").read_bytes() == payload
    assert not (tmp_path / "model.part").exists()


def test_what_came_before_a_crash_is_not_fetched_again(coordinator: Served, device: Device, tmp_path: Path) -> None:
    payload = noise(500_000)
    ref = coordinator.give_model(device.identity.device_id, payload)
    (tmp_path / "model.part").write_bytes(payload[:499_000])
    coordinator.wire.cut_down += [200_000]  # never reached: only 1000 bytes are missing
    reconnect(coordinator, device).download(ref, tmp_path / "model")
    assert coordinator.wire.cut_down == [200_000]
    assert (tmp_path / "model").read_bytes() == payload


def test_a_torn_part_is_thrown_away_and_said(coordinator: Served, device: Device, tmp_path: Path) -> None:
    payload = noise(10_000)
    ref = coordinator.give_model(device.identity.device_id, payload)
    (tmp_path / "model.part").write_bytes(b"x" * 10_000)
    with pytest.raises(DamagedObjectError, match="other bytes"):
        device.client.download(ref, tmp_path / "model")
    device.client.download(ref, tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == payload


def test_an_upload_that_is_cut_goes_on_where_it_ended(coordinator: Served, device: Device, tmp_path: Path) -> None:
    path = tmp_path / "update"
    path.write_bytes(noise(3 * UPLOAD_CHUNK_BYTES + 17))
    client, cuts = reconnect(coordinator, device), coordinator.wire.cuts
    coordinator.wire.cut_up += [UPLOAD_CHUNK_BYTES + 500_000, 300_000]
    ref = client.upload(path)
    assert coordinator.wire.cuts == cuts + 2
    assert coordinator.coordinator.services.blobs.get(ref.digest) == path.read_bytes()


def test_an_upload_whose_answer_was_lost_is_not_sent_twice(coordinator: Served, device: Device, tmp_path: Path) -> None:
    path = tmp_path / "update"
    path.write_bytes(noise(2 * UPLOAD_CHUNK_BYTES))
    client = reconnect(coordinator, device)
    # Nonce, HEAD and the TLS handshake fit below; the answer to the first chunk does not come through.
    coordinator.wire.cut_down += [1]
    ref = client.upload(path)
    assert coordinator.coordinator.services.blobs.get(ref.digest) == path.read_bytes()


def test_a_chunk_at_the_wrong_offset_is_answered_with_the_right_one(
    coordinator: Served, device: Device, tmp_path: Path
) -> None:
    path = tmp_path / "update"
    path.write_bytes(noise(UPLOAD_CHUNK_BYTES + 100))
    named = ObjectRef(digest=digest_of(path), size_bytes=path.stat().st_size)
    other = coordinator.client(Machine(device.identity.device_id, device.identity.key))
    first = path.read_bytes()[:1000]
    assert other._send_chunk(named, first, offset=0) == 1000
    assert device.client._send_chunk(named, first, offset=0) == 1000  # 409: another try was ahead
    assert device.client.upload(path) == named
    other.close()


def test_a_stale_nonce_costs_one_more_request_and_nothing_else(coordinator: Served, device: Device) -> None:
    assert device.client.work()[0].work == []
    coordinator.coordinator.clock.now += 3600
    assert device.client.work()[0].work == []
    coordinator.coordinator.clock.now = time.time()


def test_a_renewed_certificate_has_the_same_key_and_a_later_end(coordinator: Served, device: Device) -> None:
    before = device.identity
    coordinator.coordinator.clock.now = time.time() + 86_400
    renewed = renew(before, reconnect(coordinator, device))
    coordinator.coordinator.clock.now = time.time()
    assert renewed.expires_at > before.expires_at
    assert renewed.certificate.public_key() == before.key.public_key()
    reconnect(coordinator, device).work()


def test_a_kill_between_the_renewals_answer_and_its_file_is_renewed_again(coordinator: Served, device: Device) -> None:
    identity, client = device.identity, device.client
    lost = client.renew(signing_request(identity.device_id, identity.key))
    # Killed here: the answer never reached the disk. The old certificate still opens the door, and the next try renews.
    assert device.identity.certificate == identity.certificate
    again = renew(identity, reconnect(coordinator, device))
    assert again.certificate.serial_number != x509.load_pem_x509_certificate(lost.encode()).serial_number
    # Killed within the write: what lies beside the certificate is never read.
    (identity.folder / "device.pem.tmp").write_bytes(b"half a certif")
    assert device.identity.certificate == again.certificate
    write_certificate(identity.folder, lost.encode())
    assert device.identity.certificate.serial_number != again.certificate.serial_number


def test_a_stranger_is_refused_and_not_told_that_it_was_revoked(coordinator: Served, device: Device) -> None:
    stranger = coordinator.client(Machine(DeviceId("nobody"), device.identity.key))
    with pytest.raises(CoordinatorRefusedError) as refused:
        stranger.work()
    assert not isinstance(refused.value, DeviceRevokedError)
    stranger.close()


def test_a_coordinator_that_is_away_is_asked_as_often_as_allowed_and_no_more(
    coordinator: Served, device: Device
) -> None:
    client, cuts = reconnect(coordinator, device), coordinator.wire.cuts
    coordinator.wire.cut_down += [1] * 10
    with pytest.raises(CoordinatorUnavailableError):
        client.work()
    assert coordinator.wire.cuts - cuts == 3


def test_an_expired_token_and_a_taken_name_are_refused_in_one_sentence(
    coordinator: Served, device: Device, tmp_path: Path
) -> None:
    order = EnrolmentOrder(coordinator.token(), DeviceId("late-01"))
    coordinator.coordinator.clock.now += 30 * 86_400
    with pytest.raises(CoordinatorRefusedError, match="token") as expired:
        enrol(order, StateDir(tmp_path / "late"))
    coordinator.coordinator.clock.now = time.time()
    assert order.token.secret not in str(expired.value)
    taken = EnrolmentOrder(coordinator.token(), device.identity.device_id)
    with pytest.raises(CoordinatorRefusedError) as refused:
        enrol(taken, StateDir(tmp_path / "taken"))
    assert device.identity.device_id in refused.value.message
    assert not (tmp_path / "taken" / "identity" / "enrolment.json").exists()
