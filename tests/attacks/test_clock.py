"""Attacks on the device's clock: expiry is judged by a time that never goes back."""

from pathlib import Path

from tuf.api.metadata import Metadata, Timestamp

from cloud.releases.keys import load_signer
from edge_agent.releases.clock import BUILD_TIME, CLOCK_FILE, device_time, raise_floor
from edge_agent.releases.errors import ExpiredMetadataError
from shared.manifests import SIGNED_AT_FIELD
from tests.attacks.device import Device
from tests.support.release_server import T0, ReleaseServer

DAY_S = 24 * 3600


def test_a_clock_set_back_to_1970_does_not_make_old_metadata_valid(device: Device, server: ReleaseServer) -> None:
    old = server.everything()
    server.now = device.clock = T0 + 30 * DAY_S
    server.repository.refresh_timestamp(server.now)
    device.install("two")
    device.clock = 0.0
    server.replaced |= old
    # Even on a device whose metadata cache was lost, and with it the memory of versions.
    for path in (device.state_dir / "metadata").glob("*.json"):
        path.unlink()
    device.refuses("one", ExpiredMetadataError, "got expired")


def test_a_board_that_wakes_up_in_1970_installs(device: Device) -> None:
    device.clock = 0.0
    assert device.install("two").release_id == "two"


def test_time_is_never_before_the_build(tmp_path: Path) -> None:
    assert device_time(tmp_path, system_time=0.0) == BUILD_TIME


def test_the_floor_only_rises_and_survives_damage(tmp_path: Path) -> None:
    raise_floor(tmp_path, proved_time=T0)
    raise_floor(tmp_path, proved_time=T0 - 100)
    assert device_time(tmp_path, system_time=0.0) == T0
    assert device_time(tmp_path, system_time=T0 + 5) == T0 + 5
    (tmp_path / CLOCK_FILE).write_bytes(b"\x00\x00")
    assert device_time(tmp_path, system_time=0.0) == BUILD_TIME


def test_the_online_key_alone_cannot_push_the_clock_beyond_the_root(device: Device, server: ReleaseServer) -> None:
    timestamp = Metadata[Timestamp].from_bytes(server.stored("metadata/timestamp.json"))
    timestamp.signed.version += 1
    timestamp.signed.unrecognized_fields[SIGNED_AT_FIELD] = int(T0) + 100 * 365 * DAY_S
    timestamp.sign(load_signer(server.repository._keys_dir / "timestamp.pem"))
    server.replaced["metadata/timestamp.json"] = timestamp.to_bytes()
    device.install("two")
    assert device_time(device.state_dir, system_time=T0) < T0 + DAY_S
