"""Signatures under the fleet's own CA, and nobody else's."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from cloud.pki.authority import Authority, load_or_create_authority
from edge_agent.identity import signing_request
from shared.ids import DeviceId
from shared.secagg.identities import signer, verifier
from shared.secagg.messages import Advertisement

NOW = 1_800_000_000.0
SIGNED = b"what is said"
KEY = ec.generate_private_key(ec.SECP256R1())


def advertised(authority: Authority, device: str, *, named: str = "") -> Advertisement:
    """With a certificate for the device, or another name."""
    name = DeviceId(named or device)
    certificate = authority.sign_device_request(signing_request(name, KEY), device_id=name, now=NOW, life_days=1)
    pem = certificate.public_bytes(Encoding.PEM)
    return Advertisement(device=device, sealing_key=bytes(32), masking_key=bytes(32), signature=b"", certificate=pem)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return load_or_create_authority(tmp_path / "ours", now=NOW)


def test_a_device_of_the_fleet_is_believed(authority: Authority) -> None:
    verify = verifier(authority.pem)
    assert verify(advertised(authority, "press-01"), SIGNED, signer(KEY)(SIGNED))


def test_other_words_names_keys_and_authorities_are_not(authority: Authority, tmp_path: Path) -> None:
    verify, signature = verifier(authority.pem), signer(KEY)(SIGNED)
    ours = advertised(authority, "press-01")
    strangers = load_or_create_authority(tmp_path / "theirs", now=NOW)
    assert not verify(ours, b"something else", signature)
    assert not verify(ours, SIGNED, signer(ec.generate_private_key(ec.SECP256R1()))(SIGNED))
    assert not verify(ours, SIGNED, b"")
    assert not verify(advertised(authority, "press-01", named="press-02"), SIGNED, signature)
    assert not verify(advertised(strangers, "press-01"), SIGNED, signature)
    assert not verify(ours.model_copy(update={"certificate": b"nothing"}), SIGNED, signature)
