"""The root of trust: it is renewed and its keys are replaced by its own key, and by nobody else's."""

from datetime import timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Timestamp

from cloud.releases.errors import UntrustedTargetsError
from cloud.releases.keys import ensure_signer, load_signer
from cloud.releases.metadata import ROOT_LIFE_S
from edge_agent.releases.errors import ExpiredMetadataError, RollbackError, WrongSignatureError
from tests.attacks.device import Device
from tests.support.release_server import ReleaseServer


def test_a_renewed_root_is_followed_after_the_first_one_expired(device: Device, server: ReleaseServer) -> None:
    server.now = device.clock = server.now + ROOT_LIFE_S + 1
    server.publish("three")
    device.refuses("three", ExpiredMetadataError, "root.json is expired")
    root = _next_root(server)
    root.signed.expires += timedelta(days=1000)
    _put(server, root, _root_signer(server))
    assert device.install("three").release_id == "three"


def test_a_stolen_timestamp_key_is_worth_nothing_after_a_new_root(
    device: Device, server: ReleaseServer, tmp_path: Path
) -> None:
    key = server.repository._keys_dir / "timestamp.pem"
    stolen = load_signer(key)
    key.unlink()
    root = _next_root(server)
    root.signed.revoke_key(stolen.public_key.keyid, Timestamp.type)
    root.signed.add_key(ensure_signer(key).public_key, Timestamp.type)
    _put(server, root, _root_signer(server))
    device.refuses("two", WrongSignatureError, "signed by the fleet's keys")
    server.publish("three")
    assert device.install("three").release_id == "three"


def test_the_targets_key_is_replaced_while_devices_go_on(device: Device, server: ReleaseServer, tmp_path: Path) -> None:
    """As docs/how_to/keep_keys_offline.md says: one publication under both keys, then the root."""
    old = load_signer(server.targets_key)
    new_key = tmp_path / "new" / "targets.pem"
    new = ensure_signer(new_key)
    server.publish("three", signing_keys=(server.targets_key, new_key))
    assert device.install("three").release_id == "three"
    root = _next_root(server)
    root.signed.revoke_key(old.public_key.keyid, "targets")
    root.signed.add_key(new.public_key, "targets")
    _put(server, root, _root_signer(server))
    assert device.install("two").release_id == "two"
    server.publish("four", signing_keys=(new_key,))
    assert device.install("four").release_id == "four"
    with pytest.raises(UntrustedTargetsError, match="Expected a valid signature of the targets key"):
        server.publish("five")


def test_a_root_signed_by_another_key_is_refused(device: Device, server: ReleaseServer) -> None:
    thief = CryptoSigner.generate_ed25519()
    root = _next_root(server)
    root.signed.add_key(thief.public_key, Root.type)
    root.signed.add_key(thief.public_key, "targets")
    _put(server, root, thief)
    device.refuses("two", WrongSignatureError, "signed by the fleet's keys")


@pytest.mark.parametrize("version", [1, 3])
def test_a_root_of_the_wrong_version_is_refused(device: Device, server: ReleaseServer, version: int) -> None:
    root = _next_root(server)
    root.signed.version = version
    root.sign(_root_signer(server))
    server.replaced["metadata/2.root.json"] = root.to_bytes()
    device.refuses("two", RollbackError, f"Expected root version 2 instead got version {version}")


def _next_root(server: ReleaseServer) -> Metadata[Root]:
    root = Metadata[Root].from_bytes(server.repository.root())
    root.signed.version += 1
    return root


def _put(server: ReleaseServer, root: Metadata[Root], signer: CryptoSigner) -> None:
    """As an operator does: signed elsewhere, put beside the old one."""
    root.sign(signer)
    (server.repository.metadata_dir / f"{root.signed.version}.root.json").write_bytes(root.to_bytes())


def _root_signer(server: ReleaseServer) -> CryptoSigner:
    return load_signer(server.keys_dir / "root.pem")
