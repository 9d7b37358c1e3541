"""Which files make up a release, as signed: the client side of The Update Framework, by python-tuf.

What python-tuf decides: signatures and thresholds, root rotation, rollback, freeze, mix-and-match, bounds of metadata.
What is ours: the transport, the time (python-tuf reads the system clock, and a device's may stand in 1970), durable
writes, and one clear sentence for each refusal. Target files are fetched by `fetch.py`, which resumes.

The trust of a device starts from the root metadata it was given at enrolment:

    pin_root(state_dir, enrolled.tuf_root)
    signed = refresh(state_dir, transport, now=...)
    files = signed.release("physio-3f9a")
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.ngclient import FetcherInterface, Updater

from edge_agent.releases.clock import raise_floor
from edge_agent.releases.errors import (
    ExpiredMetadataError,
    FetchError,
    MixAndMatchError,
    NotFoundError,
    NoTrustedRootError,
    ReleaseError,
    RollbackError,
    UnknownReleaseError,
    UntrustedMetadataError,
    WrongLengthError,
    WrongSignatureError,
)
from edge_agent.releases.transport import ReleaseTransport, fetch
from shared.files import write_atomically
from shared.manifests import RELEASE_FILES, SIGNED_AT_FIELD, target_path

ROOT_FILE = "trusted_root.json"
"""The anchor, as given at enrolment; newer roots are reached from it, each signed by the one before."""
METADATA_BYTES_MAX = 5_000_000
"""No metadata file is larger; python-tuf bounds each role by itself."""


@dataclass(frozen=True)
class SignedFile:
    """One file of a release, as signed."""

    name: str
    remote_path: str
    """Below `/v1/device/tuf/`; the hash is in the name."""
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class SignedRelease:
    """A release, as signed."""

    release_id: str
    files: Mapping[str, SignedFile]
    """By name; always all of `RELEASE_FILES`."""
    opset: int | None
    """As the signed metadata say it, so that a release too new costs no download."""


@dataclass(frozen=True)
class SignedReleases:
    """All that the verified targets metadata say."""

    targets: Targets

    def release(self, release_id: str) -> SignedRelease:
        """The release's files. Raises UnknownReleaseError where they are not all signed."""
        files = {name: self._file(release_id, name) for name in RELEASE_FILES}
        custom = self.targets.targets[target_path(release_id, RELEASE_FILES[0])].custom
        opset = custom.get("opset") if isinstance(custom, dict) else None
        return SignedRelease(release_id, files, opset if isinstance(opset, int) else None)

    def _file(self, release_id: str, name: str) -> SignedFile:
        target = self.targets.targets.get(target_path(release_id, name))
        if target is None or "sha256" not in target.hashes:
            raise UnknownReleaseError(
                f"Expected {name} of release {release_id} in the signed metadata, got no such file",
                hint="Publish the release, or roll out one that is.",
            )
        # Not python-tuf's `get_prefixed_paths`: it may give another hash first.
        sha256 = target.hashes["sha256"]
        remote_path = f"targets/{target_path(release_id, f'{sha256}.{name}')}"
        return SignedFile(name, remote_path, sha256, target.length)


def pin_root(state_dir: Path, root_json: str) -> None:
    """Makes this root metadata the one the device trusts, at enrolment. Raises UntrustedMetadataError."""
    payload = root_json.encode()
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(payload)  # Any: the type is checked below
        if not isinstance(metadata.signed, Root):
            raise UntrustedMetadataError(f"Expected root metadata, got {metadata.signed.type}")
        metadata.signed.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
    except (DeserializationError, exceptions.RepositoryError, ValueError) as error:
        raise UntrustedMetadataError(f"Expected root metadata signed by itself: {error}") from error
    state_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(state_dir / ROOT_FILE, payload)


def refresh(state_dir: Path, transport: ReleaseTransport, *, now: float) -> SignedReleases:
    """Fetches and verifies the newest metadata.

    Args:
        state_dir: Holds the pinned root, and what was verified before: against it a rollback is seen.
        transport: Where metadata come from.
        now: The device's time, from `clock.device_time`.

    Raises:
        FetchError: Metadata did not come.
        UntrustedMetadataError: It came and cannot be believed; the subclass and the sentence say why.
        NoTrustedRootError: The device was never given a root to trust.
    """
    cache = state_dir / "metadata"
    cache.mkdir(parents=True, exist_ok=True)
    try:
        updater = _DurableUpdater(
            str(cache), "metadata/", fetcher=_TransportFetcher(transport), bootstrap=_pinned_root(state_dir)
        )
        # python-tuf takes the system clock and has no argument for it; this attribute is what it judges expiry by
        # (tuf is pinned exactly, and tests/attacks/test_clock.py fails should it move).
        updater._trusted_set.reference_time = datetime.fromtimestamp(now, UTC)
        updater.refresh()
    except (exceptions.RepositoryError, exceptions.DownloadError) as error:
        raise _translated(error) from error
    _remember_time(state_dir, updater._trusted_set.root, updater._trusted_set.timestamp)
    return SignedReleases(updater._trusted_set.targets)


class _TransportFetcher(FetcherInterface):
    """python-tuf's view of our transport; it counts the bytes itself."""

    def __init__(self, transport: ReleaseTransport) -> None:
        self._transport = transport

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            yield from fetch(self._transport, url, offset=0, bytes_max=METADATA_BYTES_MAX)
        except NotFoundError as error:
            raise exceptions.DownloadHTTPError(error.message, 404) from error
        except FetchError as error:
            raise exceptions.DownloadError(error.message) from error


class _DurableUpdater(Updater):
    """python-tuf renames files but does not flush them; after a power cut, an empty one would forget what it proved."""

    def _persist_file(self, filename: str, data: bytes) -> None:
        write_atomically(Path(filename), data)


def _pinned_root(state_dir: Path) -> bytes:
    try:
        return (state_dir / ROOT_FILE).read_bytes()
    except OSError as error:
        raise NoTrustedRootError(
            f"Expected the fleet's root metadata at {state_dir / ROOT_FILE}: {error.strerror}",
            hint="Enrol this device again: `fleetlearn agent enrol`.",
        ) from error


def _remember_time(state_dir: Path, root: Root, timestamp: Timestamp) -> None:
    signed_at = timestamp.unrecognized_fields.get(SIGNED_AT_FIELD)
    # At most the root's expiry: with the online key alone nobody can push a device's clock so far that no later root,
    # which takes the offline key, could bring it back to installing.
    if isinstance(signed_at, int) and signed_at <= root.expires.timestamp():
        raise_floor(state_dir, proved_time=signed_at)


def _translated(error: Exception) -> ReleaseError:
    """Our error for python-tuf's, most special first."""
    match error:
        case exceptions.DownloadLengthMismatchError():
            return WrongLengthError(f"Expected release metadata within its bounds, got more: {error}")
        case exceptions.DownloadHTTPError():
            return NotFoundError(f"Expected all release metadata at the coordinator, got none: {error}")
        case exceptions.DownloadError():
            return FetchError(f"Expected release metadata from the coordinator: {error}")
        case exceptions.ExpiredMetadataError():
            return ExpiredMetadataError(
                f"Expected release metadata that is still valid, got expired: {error}",
                hint="Check that the coordinator runs and that this device reaches it; it goes on serving.",
            )
        case exceptions.BadVersionNumberError():
            return RollbackError(f"Expected release metadata no older than this device knows, got older: {error}")
        case exceptions.LengthOrHashMismatchError():
            return MixAndMatchError(f"Expected release metadata files that belong together, got others: {error}")
        case exceptions.UnsignedMetadataError():
            return WrongSignatureError(f"Expected release metadata signed by the fleet's keys: {error}")
        case _:
            return UntrustedMetadataError(f"Expected sound release metadata: {error}")
