"""Signs releases on an operator's own machine, with a key that the coordinator never sees.

The coordinator says what is to be signed (a signing request: the next TUF targets metadata); this machine shows it,
refuses what takes back or changes anything published before, signs, and remembers what was published. So even a
coordinator in wrong hands gets no signature for a changed release.

    review = review_targets(request.targets_metadata, targets_key_file=key)     # shown to the operator
    signed = sign_targets(request.targets_metadata, targets_key_file=key)
    ...                                                                         # POST .../publish
    remember_published(signed, targets_key_file=key)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, TargetFile, Targets
from tuf.api.serialization import DeserializationError

from shared.errors import FleetlearnError
from shared.files import write_atomically

RECORD_SUFFIX = ".published.json"
"""Beside the key: the targets metadata published last from this machine."""


class SigningError(FleetlearnError):
    """A key that cannot sign, or a request that must not be signed."""

    code = "signing"


@dataclass(frozen=True)
class FileToSign:
    """One file that the signature will make installable."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class SigningReview:
    """What an operator should look at before signing."""

    version: int
    expires: datetime
    releases: tuple[str, ...]
    """Ids of the releases that were not published from this machine before; normally one."""
    files: tuple[FileToSign, ...]
    """Their files."""


def make_key(path: Path) -> str:
    """Makes an Ed25519 key, mode 0600, and returns its id. Raises SigningError where there is a file already."""
    if path.exists():
        raise SigningError(
            f"Expected no file at {path}, got one", hint="Keys are never overwritten; choose another name."
        )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    signer = CryptoSigner.generate_ed25519()
    write_atomically(path, signer.private_bytes, mode=0o600)
    return signer.public_key.keyid


def key_ids(keys_dir: Path) -> Mapping[str, str]:
    """The TUF key id of each `.pem` key in the folder, by file name. Raises SigningError."""
    if not keys_dir.is_dir():
        raise SigningError(f"Expected a folder with keys at {keys_dir}, got none")
    return {path.name: _signer(path).public_key.keyid for path in sorted(keys_dir.glob("*.pem"))}


def review_targets(metadata_json: str, *, targets_key_file: Path) -> SigningReview:
    """What a signature would add. Raises SigningError where it would take back or change anything."""
    targets = _parsed(metadata_json).signed
    known = _published(targets_key_file)
    for path, file in known.items():
        if targets.targets.get(path) != file:
            became = "changed" if path in targets.targets else "removed"
            raise SigningError(
                f"Expected {path} as it was published before, got it {became}",
                hint="Releases never change: do not sign this, and look at who controls the coordinator.",
            )
    if targets.delegations is not None:
        raise SigningError("Expected targets metadata without delegations, got some", hint="Do not sign this.")
    added = {path: file for path, file in targets.targets.items() if path not in known}
    return SigningReview(
        version=targets.version,
        expires=targets.expires,
        releases=tuple(sorted({_release_of(path) for path in added})),
        files=tuple(
            FileToSign(path, file.hashes.get("sha256", ""), file.length) for path, file in sorted(added.items())
        ),
    )


def sign_targets(metadata_json: str, *, targets_key_file: Path) -> str:
    """The same metadata with this key's signature added to those it has.

    Args:
        metadata_json: A signing request's `targets_metadata`.
        targets_key_file: PEM file of the targets key; what was published before is remembered beside it.

    Raises:
        SigningError: The key cannot be read, or `review_targets` refuses.
    """
    review_targets(metadata_json, targets_key_file=targets_key_file)
    metadata = _parsed(metadata_json)
    metadata.sign(_signer(targets_key_file), append=True)
    return metadata.to_bytes().decode()


def remember_published(signed_json: str, *, targets_key_file: Path) -> None:
    """Keeps what the coordinator has published, beside the key: nothing in it may change from now on."""
    _parsed(signed_json)
    write_atomically(_record_file(targets_key_file), signed_json.encode(), mode=0o600)


def _published(targets_key_file: Path) -> Mapping[str, TargetFile]:
    record = _record_file(targets_key_file)
    return _parsed(record.read_text()).signed.targets if record.exists() else {}


def _record_file(targets_key_file: Path) -> Path:
    return targets_key_file.with_name(targets_key_file.name + RECORD_SUFFIX)


def _parsed(metadata_json: str) -> Metadata[Targets]:
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(metadata_json.encode())  # Any: the type is checked below
    except (DeserializationError, UnicodeEncodeError, RecursionError) as error:
        raise SigningError(f"Expected TUF targets metadata to sign, got other text: {error}") from error
    if not isinstance(metadata.signed, Targets):
        raise SigningError(
            f"Expected metadata of the role targets, got {metadata.signed.type}", hint="Do not sign this."
        )
    return metadata


def _signer(path: Path) -> CryptoSigner:
    try:
        return CryptoSigner(load_pem_private_key(path.read_bytes(), password=None))
    except OSError as error:
        raise SigningError(f"Expected a signing key at {path}: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SigningError(f"Expected an unencrypted PEM private key at {path}, got other bytes") from error


def _release_of(path: str) -> str:
    parts = path.split("/")
    return parts[1] if len(parts) == 3 and parts[0] == "releases" else path
