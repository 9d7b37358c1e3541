"""The release repository on disk: TUF metadata and target files that any web server or CDN could serve.

    metadata/N.root.json  N.targets.json  N.snapshot.json  timestamp.json
    targets/releases/<release id>/<sha256>.<file name>
    online-keys/snapshot.pem  timestamp.pem

Everything but `timestamp.json` has its version or hash in its name and never changes. A publication writes target
files, then targets, then snapshot metadata, and last replaces `timestamp.json`, by which every reader starts: whoever
reads sees the old set or the new one, and a kill at any write leaves one of the two. Root and targets keys are used
by `init_repository` once, and from then on by operators only.
"""

import fcntl
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from cloud.releases.errors import RepositoryStateError, UnknownReleaseFileError
from cloud.releases.keys import ensure_signer, load_signer
from cloud.releases.metadata import (
    SNAPSHOT_LIFE_S,
    TIMESTAMP_LIFE_S,
    ReleaseFiles,
    check_signed_targets,
    first_root,
    next_snapshot,
    next_targets,
    next_timestamp,
    parse_signed_targets,
    unsigned_text,
)
from shared.files import replacing, sync_folder, write_atomically
from shared.ids import Digest
from shared.messages.base import ObjectRef

OFFLINE_ROLES = (Root.type, Targets.type)
ONLINE_ROLES = (Snapshot.type, Timestamp.type)
SNAPSHOTS_KEPT = 20
"""Newest snapshots that stay for readers who are half-way."""

_METADATA_NAME = re.compile(r"timestamp\.json|[1-9][0-9]{0,9}\.(?:root|targets|snapshot)\.json")
_TARGET_NAME = re.compile(r"releases/[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?/[0-9a-f]{64}\.[a-z]{1,32}\.[a-z]{1,32}")

SignedT = TypeVar("SignedT", bound=Signed)
OpenObject = Callable[[Digest], Iterator[bytes]]


def init_repository(folder: Path, *, offline_keys_dir: Path, now: float) -> None:
    """Makes keys and the first metadata at first start; does nothing to a repository that is complete.

    Args:
        folder: Gets `metadata`, `targets` and `online-keys`.
        offline_keys_dir: Gets `root.pem` and `targets.pem`, mode 0600, for an operator to move off this machine.
        now: Seconds since the epoch.
    """
    repository = TufRepository(folder)
    for path in (repository.metadata_dir, repository.targets_dir):
        path.mkdir(parents=True, exist_ok=True)
    with repository._lock():
        if (repository.metadata_dir / "timestamp.json").exists():
            return
        # Keys of an interrupted first start are used again; its metadata, which nobody could read yet, is rewritten.
        signers = {role: ensure_signer(offline_keys_dir / f"{role}.pem") for role in OFFLINE_ROLES}
        signers |= {role: ensure_signer(folder / "online-keys" / f"{role}.pem") for role in ONLINE_ROLES}
        root = first_root({role: signer.public_key for role, signer in signers.items()}, now=now)
        root.sign(signers[Root.type])
        targets = next_targets(None, None, now=now)
        targets.sign(signers[Targets.type])
        write_atomically(repository.metadata_dir / "1.root.json", root.to_bytes())
        repository._put_in_force(targets.to_bytes(), version=1, now=now)


class TufRepository:
    """Reads and extends the repository. Any number of threads and processes may use one folder: writers take a lock."""

    def __init__(self, folder: Path) -> None:
        self.metadata_dir = folder / "metadata"
        self.targets_dir = folder / "targets"
        self._keys_dir = folder / "online-keys"
        self._lock_file = folder / ".lock"

    def root(self) -> bytes:
        """The newest root metadata: what a device is given to trust when it enrols."""
        newest = max((int(path.name.split(".")[0]) for path in self.metadata_dir.glob("*.root.json")), default=None)
        if newest is None:
            raise RepositoryStateError(
                f"Expected root metadata in {self.metadata_dir}, got none", hint="Start it with `fleetlearn up`."
            )
        return (self.metadata_dir / f"{newest}.root.json").read_bytes()

    def metadata_file(self, name: str) -> Path:
        """Where metadata of this name lies. Raises UnknownReleaseFileError, also for a name that is a path."""
        path = self.metadata_dir / name
        if not _METADATA_NAME.fullmatch(name) or not path.is_file():
            raise UnknownReleaseFileError(f"Expected the name of release metadata, got {name[:120]!r}")
        return path

    def target_file(self, name: str) -> Path:
        """Where the target file of this hash-prefixed name lies. Raises UnknownReleaseFileError."""
        path = self.targets_dir / name
        if not _TARGET_NAME.fullmatch(name) or not path.is_file():
            raise UnknownReleaseFileError(f"Expected the name of a release's file, got {name[:160]!r}")
        return path

    def is_published(self, release: ReleaseFiles) -> bool:
        """Whether devices can get exactly these files."""
        targets = self._targets().targets
        return all(targets.get(path) == file for path, file in release.target_files().items())

    def signing_request(self, release: ReleaseFiles, *, now: float) -> tuple[int, str]:
        """The next targets metadata with this release: its version, and unsigned canonical JSON."""
        metadata = next_targets(self._targets(), release, now=now)
        return metadata.signed.version, unsigned_text(metadata)

    def accept_targets(self, text: str, release: ReleaseFiles, *, open_object: OpenObject, now: float) -> None:
        """Publishes the release under metadata that an operator signed; publishing twice does no harm.

        Args:
            text: What `signing_request` gave, signed.
            release: The files it must add, and no others.
            open_object: Gives a file's bytes, in pieces, by digest.
            now: Seconds since the epoch.

        Raises:
            UntrustedTargetsError: Not signed by the targets keys, or not what was to be signed.
            StaleSigningRequestError: Another release was published since.
        """
        signed = parse_signed_targets(text)
        with self._lock():
            current = self._targets()
            if signed.signed == current and self.is_published(release):
                return
            root = _read(self.root(), Root)
            check_signed_targets(signed, root=root, current=current, release=release, now=now)
            for path, file in release.target_files().items():
                name = Path(path).name
                place = self.targets_dir / Path(path).parent / f"{file.hashes['sha256']}.{name}"
                _write_target(place, release.files[name], open_object(release.files[name].digest))
            self._put_in_force(signed.to_bytes(), version=signed.signed.version, now=now)

    def refresh_timestamp(self, now: float) -> bool:
        """Signs a new timestamp once half of the old one's life is over, and a snapshot when it is near its end.

        Returns whether it did.
        """
        with self._lock():
            timestamp, snapshot = self._timestamp(), self._snapshot()
            if snapshot.expires.timestamp() - now < SNAPSHOT_LIFE_S / 2:
                version = snapshot.meta["targets.json"].version
                self._put_in_force(self._targets_bytes(version), version=version, now=now)
            elif timestamp.expires.timestamp() - now < TIMESTAMP_LIFE_S / 2:
                self._write_timestamp(self._snapshot_bytes(timestamp), version=snapshot.version, now=now)
            else:
                return False
            return True

    def offline_expiry(self) -> dict[str, float]:
        """When what operators signed runs out, by role, in seconds since the epoch."""
        root = _read(self.root(), Root)
        return {Root.type: root.expires.timestamp(), Targets.type: self._targets().expires.timestamp()}

    def _put_in_force(self, targets: bytes, *, version: int, now: float) -> None:
        """Writes targets and snapshot metadata beside what stands, then switches by the timestamp."""
        write_atomically(self.metadata_dir / f"{version}.targets.json", targets)
        current = self._snapshot() if self._timestamp_file().exists() else None
        snapshot = next_snapshot(current, targets=targets, targets_version=version, now=now)
        snapshot.sign(load_signer(self._keys_dir / "snapshot.pem"))
        payload = snapshot.to_bytes()
        write_atomically(self.metadata_dir / f"{snapshot.signed.version}.snapshot.json", payload)
        self._write_timestamp(payload, version=snapshot.signed.version, now=now)
        self._forget_old_snapshots(snapshot.signed.version)

    def _write_timestamp(self, snapshot: bytes, *, version: int, now: float) -> None:
        current = self._timestamp() if self._timestamp_file().exists() else None
        timestamp = next_timestamp(current, snapshot=snapshot, snapshot_version=version, now=now)
        timestamp.sign(load_signer(self._keys_dir / "timestamp.pem"))
        write_atomically(self._timestamp_file(), timestamp.to_bytes())

    def _forget_old_snapshots(self, newest: int) -> None:
        for path in self.metadata_dir.glob("*.snapshot.json"):
            if int(path.name.split(".")[0]) <= newest - SNAPSHOTS_KEPT:
                path.unlink(missing_ok=True)

    def _timestamp_file(self) -> Path:
        return self.metadata_dir / "timestamp.json"

    def _timestamp(self) -> Timestamp:
        return _read(_bytes_of(self._timestamp_file()), Timestamp)

    def _snapshot_bytes(self, timestamp: Timestamp) -> bytes:
        return _bytes_of(self.metadata_dir / f"{timestamp.snapshot_meta.version}.snapshot.json")

    def _snapshot(self) -> Snapshot:
        return _read(self._snapshot_bytes(self._timestamp()), Snapshot)

    def _targets_bytes(self, version: int) -> bytes:
        return _bytes_of(self.metadata_dir / f"{version}.targets.json")

    def _targets(self) -> Targets:
        return _read(self._targets_bytes(self._snapshot().meta["targets.json"].version), Targets)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One writer at a time, in this process or any other; the kernel frees it when its holder dies."""
        with self._lock_file.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RepositoryStateError(
            f"Expected release metadata at {path}: {error.strerror}", hint="Make the repository with `fleetlearn up`."
        ) from error


def _read(payload: bytes, role: type[SignedT]) -> SignedT:
    """Our own metadata, trusted because only we write here; devices verify every signature."""
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(payload)  # Any: the type is checked below
    except DeserializationError as error:
        raise RepositoryStateError(f"Expected {role.type} metadata, got {len(payload)} other bytes") from error
    if not isinstance(metadata.signed, role):
        raise RepositoryStateError(f"Expected {role.type} metadata, got {metadata.signed.type}")
    return metadata.signed


def _write_target(path: Path, ref: ObjectRef, chunks: Iterator[bytes]) -> None:
    """Copies a target file into place, checked against what was signed, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with replacing(path) as file:
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            file.write(chunk)
        if (digest.hexdigest(), size) != (ref.digest, ref.size_bytes):
            raise RepositoryStateError(
                f"Expected {ref.size_bytes} bytes with digest {ref.digest}, got {size} other bytes"
            )
    for folder in (path.parent.parent, path.parent.parent.parent):
        sync_folder(folder)
