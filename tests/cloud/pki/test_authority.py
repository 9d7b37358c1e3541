"""The CA and the servers' certificates on disk: made once, renewed in time, and damage is said in one sentence."""

import ipaddress
import ssl
import stat
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cloud.children import Children
from cloud.first_start import make_folders
from cloud.pki.authority import Authority, ensure_server_certificate, load_or_create_authority
from cloud.pki.certificates import SERVER_LIFE, expires_at
from cloud.pki.errors import DamagedKeyFilesError
from cloud.settings import Settings
from cloud.up import renew_certificates

NOW = 1_800_000_000.0
LIFE_S = SERVER_LIFE.total_seconds()
NAMES = ["127.0.0.1", "fleet.example", "::1"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return load_or_create_authority(tmp_path, now=NOW)


def ensure(authority: Authority, folder: Path, *, names: list[str] | None = None, now: float = NOW) -> bool:
    return ensure_server_certificate(authority, folder, "hub", names=names or NAMES, now=now)


def certificate(folder: Path, name: str = "hub") -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())


def test_the_ca_is_made_once_and_its_keys_are_private(authority: Authority, tmp_path: Path) -> None:
    assert load_or_create_authority(tmp_path, now=NOW + 1).fingerprint == authority.fingerprint
    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600
    assert "PRIVATE" not in repr(authority)


def test_a_server_certificate_names_every_address_and_no_other(authority: Authority, tmp_path: Path) -> None:
    assert ensure(authority, tmp_path)
    found = certificate(tmp_path)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fleet.example"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("127.0.0.1"),
        ipaddress.ip_address("::1"),
    ]
    found.verify_directly_issued_by(authority.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "hub.pem", tmp_path / "hub.key")


@pytest.mark.parametrize(("share_of_life", "is_renewed"), [(0.0, False), (0.66, False), (0.67, True), (1.5, True)])
def test_a_server_certificate_is_renewed_at_two_thirds_of_its_life(
    authority: Authority, tmp_path: Path, share_of_life: float, is_renewed: bool
) -> None:
    ensure(authority, tmp_path)
    key = (tmp_path / "hub.key").read_bytes()
    later = NOW + share_of_life * LIFE_S
    assert ensure(authority, tmp_path, now=later) is is_renewed
    assert (expires_at(certificate(tmp_path)) > NOW + LIFE_S) is is_renewed
    assert (tmp_path / "hub.key").read_bytes() == key


def test_other_names_or_another_ca_make_a_new_certificate(authority: Authority, tmp_path: Path) -> None:
    ensure(authority, tmp_path)
    assert ensure(authority, tmp_path, names=["10.0.0.7"])
    (tmp_path / "hub.key").unlink()
    assert ensure(authority, tmp_path, names=["10.0.0.7"])
    assert not ensure(authority, tmp_path, names=["10.0.0.7"])


def test_a_ca_whose_start_was_killed_is_completed(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").unlink()
    again = load_or_create_authority(tmp_path, now=NOW)
    assert again.certificate.public_key() == authority.certificate.public_key()


@pytest.mark.parametrize(
    "content", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
@pytest.mark.parametrize("file", ["ca.key", "ca.pem", "hub.key", "hub.pem"])
def test_damaged_files_are_named(authority: Authority, tmp_path: Path, file: str, content: bytes) -> None:
    ensure(authority, tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DamagedKeyFilesError, match=file.replace(".", r"\.")):
        ensure(load_or_create_authority(tmp_path, now=NOW), tmp_path)


def test_another_kind_of_key_and_a_key_of_another_ca_are_refused(authority: Authority, tmp_path: Path) -> None:
    other = load_or_create_authority(tmp_path / "other", now=NOW)
    assert other.fingerprint != authority.fingerprint
    (tmp_path / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(DamagedKeyFilesError, match="another key"):
        load_or_create_authority(tmp_path, now=NOW)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "ca.key").write_bytes(pem)
    with pytest.raises(DamagedKeyFilesError, match="EC key"):
        load_or_create_authority(tmp_path, now=NOW)


@pytest.mark.processes
def test_a_running_server_is_started_again_with_its_new_certificate_and_only_then(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    make_folders(settings)
    children = Children(settings.logs_dir)
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    for server in ("hub", "coordinator"):
        children.start(server, sleeper, environment={})
    try:
        renew_certificates(children, settings, now=NOW)
        first = children.pids()
        renew_certificates(children, settings, now=NOW + LIFE_S / 2)
        assert children.pids() == first
        renew_certificates(children, settings, now=NOW + LIFE_S * 0.7)
        second = children.pids()
        assert not set(first.values()) & set(second.values())
        (settings.pki_dir / "ca.key").write_bytes(b"damaged")
        renew_certificates(children, settings, now=NOW + LIFE_S * 2)
        assert children.pids() == second
    finally:
        children.stop()
