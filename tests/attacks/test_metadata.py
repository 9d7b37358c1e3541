"""Attacks on metadata: those that The Update Framework's specification names (1.5.2), against the real installer."""

import json
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Targets

from edge_agent.releases.errors import (
    ExpiredMetadataError,
    MixAndMatchError,
    NotFoundError,
    NoTrustedRootError,
    RollbackError,
    UnknownReleaseError,
    UntrustedMetadataError,
    WrongLengthError,
    WrongSignatureError,
)
from edge_agent.releases.trust import METADATA_BYTES_MAX, ROOT_FILE, pin_root
from tests.attacks.device import Device
from tests.support.release_server import ReleaseServer, edited, flipped

DAY_S = 24 * 3600
TIMESTAMP = "metadata/timestamp.json"
NEWEST = (TIMESTAMP, "metadata/3.snapshot.json", "metadata/3.targets.json")
"""After `one` and `two` were published on the empty first version."""


@pytest.mark.parametrize("path", NEWEST)
def test_a_flipped_byte_in_metadata_is_refused(device: Device, server: ReleaseServer, path: str) -> None:
    payload = server.stored(path)
    where = payload.index(b'"signed"') + 20
    server.replaced[path] = flipped(payload, where)
    device.refuses("two", UntrustedMetadataError, "Expected")
    server.replaced.clear()
    assert device.install("two").release_id == "two"


@pytest.mark.parametrize("path", NEWEST)
@pytest.mark.parametrize("payload", [b"", b"{}", b"null", b"\xff", b'{"signatures": [], "signed": {}}'])
def test_metadata_that_is_no_metadata_is_refused(
    device: Device, server: ReleaseServer, path: str, payload: bytes
) -> None:
    server.replaced[path] = payload
    device.refuses("two", UntrustedMetadataError, "Expected")


@pytest.mark.parametrize("path", NEWEST)
def test_missing_metadata_is_refused(device: Device, server: ReleaseServer, path: str) -> None:
    server.missing.add(path)
    device.refuses("two", NotFoundError, "Expected all release metadata")


@pytest.mark.parametrize("path", NEWEST)
def test_endless_metadata_is_cut_off(device: Device, server: ReleaseServer, path: str) -> None:
    server.endless.add(path)
    device.refuses("two", WrongLengthError, "within its bounds")


def test_metadata_nested_without_end_is_refused(device: Device, server: ReleaseServer) -> None:
    server.replaced[TIMESTAMP] = b"[" * 16_000
    device.refuses("two", UntrustedMetadataError, "Expected sound release metadata")


def test_an_edited_timestamp_with_the_old_signature_is_refused(device: Device, server: ReleaseServer) -> None:
    server.replaced[TIMESTAMP] = edited(server.stored(TIMESTAMP), version=99)
    device.refuses("two", WrongSignatureError, "signed by the fleet's keys")


def test_metadata_signed_by_an_unknown_key_is_refused(device: Device, server: ReleaseServer, tmp_path: Path) -> None:
    stranger = ReleaseServer(tmp_path / "stranger", now=server.now)
    for release_id in ("one", "two", "three"):
        stranger.publish(release_id)
    server.replaced |= {path: stranger.stored(path) for path in stranger.everything() if "root" not in path}
    device.refuses("three", WrongSignatureError, "signed by the fleet's keys")


def test_another_fleets_root_does_not_replace_ours(device: Device, server: ReleaseServer, tmp_path: Path) -> None:
    stranger = ReleaseServer(tmp_path / "stranger", now=server.now)
    server.replaced["metadata/2.root.json"] = edited(stranger.stored("metadata/1.root.json"), version=2)
    device.refuses("two", WrongSignatureError, "signed by the fleet's keys")


def test_targets_signed_by_the_online_key_are_refused(device: Device, server: ReleaseServer) -> None:
    """Who takes over the coordinator has its snapshot and timestamp keys, and still publishes nothing."""
    online = _online_signer(server, "snapshot")
    targets = Metadata[Targets].from_bytes(server.stored("metadata/3.targets.json"))
    targets.signed.version = 4
    targets.signatures.clear()
    targets.sign(online)
    server.repository._put_in_force(targets.to_bytes(), version=4, now=server.now)
    device.refuses("two", WrongSignatureError, "signed by the fleet's keys")


def test_a_rolled_back_timestamp_is_refused(device: Device, server: ReleaseServer) -> None:
    old = server.everything()
    server.publish("three")
    device.install("three")
    server.replaced |= old
    device.refuses("two", RollbackError, "no older than this device knows")


def test_a_rolled_back_snapshot_under_a_new_timestamp_is_refused(device: Device, server: ReleaseServer) -> None:
    old = server.stored("metadata/3.snapshot.json")
    server.publish("three")
    device.install("three")
    server.repository._write_timestamp(old, version=3, now=server.now)
    device.refuses("two", RollbackError, "no older than this device knows")


def test_rolled_back_targets_under_a_new_snapshot_are_refused(device: Device, server: ReleaseServer) -> None:
    old = server.stored("metadata/3.targets.json")
    server.publish("three")
    device.install("three")
    server.repository._put_in_force(old, version=3, now=server.now)
    device.refuses("two", RollbackError, "no older than this device knows")


def test_a_rollback_is_still_seen_after_the_caches_of_a_restart(device: Device, server: ReleaseServer) -> None:
    old = server.everything()
    server.publish("three")
    device.install("three")
    device.start()
    server.replaced |= old
    device.refuses("two", RollbackError, "no older")


def test_a_snapshot_of_another_moment_does_not_match(device: Device, server: ReleaseServer) -> None:
    server.publish("three")
    server.replaced["metadata/4.snapshot.json"] = server.stored("metadata/3.snapshot.json")
    device.refuses("three", MixAndMatchError, "belong together")


def test_targets_of_another_moment_do_not_match(device: Device, server: ReleaseServer) -> None:
    server.publish("three")
    server.replaced["metadata/4.targets.json"] = server.stored("metadata/3.targets.json")
    device.refuses("three", MixAndMatchError, "belong together")


def test_a_device_kept_from_new_metadata_stops_installing_after_a_day_and_goes_on_serving(
    device: Device, server: ReleaseServer
) -> None:
    device.clock += DAY_S + 60
    error = device.refuses("two", ExpiredMetadataError, "still valid, got expired")
    assert "goes on serving" in error.hint
    assert device.serves() == "one"
    server.now = device.clock
    server.repository.refresh_timestamp(server.now)
    assert device.install("two").release_id == "two"


def test_a_release_of_another_fleet_is_unknown_here(device: Device, server: ReleaseServer, tmp_path: Path) -> None:
    stranger = ReleaseServer(tmp_path / "stranger", now=server.now)
    theirs = stranger.publish("theirs")
    paths = [stranger.path_of(theirs, name) for name in theirs.files]
    server.replaced |= {path: stranger.stored(path) for path in paths}
    device.refuses("theirs", UnknownReleaseError, "in the signed metadata, got no such file")


def test_a_device_without_a_root_installs_nothing(device: Device) -> None:
    (device.state_dir / ROOT_FILE).unlink()
    device.refuses("two", NoTrustedRootError, "Expected the fleet's root metadata")


def test_a_root_that_is_not_signed_by_itself_is_not_pinned(server: ReleaseServer, tmp_path: Path) -> None:
    document = json.loads(server.root())
    document["signed"]["version"] = 7
    with pytest.raises(UntrustedMetadataError, match="signed by itself"):
        pin_root(tmp_path / "fresh", json.dumps(document))
    with pytest.raises(UntrustedMetadataError, match="got timestamp"):
        pin_root(tmp_path / "fresh", server.stored(TIMESTAMP).decode())
    assert not (tmp_path / "fresh" / ROOT_FILE).exists()


def test_a_lost_cache_costs_downloads_and_not_service(device: Device) -> None:
    for path in (device.state_dir / "metadata").glob("*.json"):
        path.unlink()
    assert device.install("two").release_id == "two"


def test_bounds_of_metadata_are_not_above_what_the_transport_reads() -> None:
    from tuf.ngclient.config import UpdaterConfig

    config = UpdaterConfig()
    assert max(config.targets_max_length, config.snapshot_max_length, config.root_max_length) <= METADATA_BYTES_MAX


def _online_signer(server: ReleaseServer, role: str) -> CryptoSigner:
    from cloud.releases.keys import load_signer

    return load_signer(server.repository._keys_dir / f"{role}.pem")
