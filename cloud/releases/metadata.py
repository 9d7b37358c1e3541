"""What the release repository says, as values: each role's next metadata, and whether signed targets may be accepted.

Roles and files are those of The Update Framework, version 1.0 (https://theupdateframework.github.io/specification/):
root and targets are signed offline, by an operator; snapshot and timestamp online, by the coordinator. Pure: the time
is an argument, reading and writing is `repository.py`'s.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Key, Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import CanonicalJSONSerializer

from cloud.releases.errors import StaleSigningRequestError, UntrustedTargetsError
from shared.manifests import SIGNED_AT_FIELD, target_path
from shared.messages.base import ObjectRef

DAY_S = 24 * 3600
ROOT_LIFE_S = 2 * 365 * DAY_S
TARGETS_LIFE_S = 365 * DAY_S
"""Every publication renews it."""
SNAPSHOT_LIFE_S = 7 * DAY_S
TIMESTAMP_LIFE_S = DAY_S
"""How long a device that is kept from the repository goes on believing that it knows the newest release."""


@dataclass(frozen=True)
class ReleaseFiles:
    """What the targets metadata says about one release."""

    release_id: str
    task: str
    opset: int
    files: Mapping[str, ObjectRef]
    """By file name: manifest, model, samples and profile."""

    def target_files(self) -> dict[str, TargetFile]:
        """The release's targets by path."""
        # Canonical JSON knows no fractions: custom data are texts and whole numbers.
        custom = {"release_id": self.release_id, "task": self.task, "opset": self.opset}
        paths = {name: target_path(self.release_id, name) for name in self.files}
        return {
            paths[name]: TargetFile(ref.size_bytes, {"sha256": ref.digest}, paths[name], {"custom": dict(custom)})
            for name, ref in self.files.items()
        }


def first_root(keys: Mapping[str, Key], *, now: float) -> Metadata[Root]:
    """Root version 1, unsigned: one key for each of the four roles, consistent snapshots."""
    root = Root(expires=_time(now + ROOT_LIFE_S), consistent_snapshot=True)
    for role, key in keys.items():
        root.add_key(key, role)
    return Metadata(root)


def next_targets(current: Targets | None, release: ReleaseFiles | None, *, now: float) -> Metadata[Targets]:
    """The next targets metadata, unsigned: what stands, and the release's files."""
    targets = Targets(
        version=current.version + 1 if current else 1,
        expires=_time(now + TARGETS_LIFE_S),
        targets={**(current.targets if current else {}), **(release.target_files() if release else {})},
    )
    return Metadata(targets)


def next_snapshot(current: Snapshot | None, *, targets: bytes, targets_version: int, now: float) -> Metadata[Snapshot]:
    """The next snapshot, unsigned, naming this targets file by version, length and hash."""
    meta = {"targets.json": MetaFile.from_data(targets_version, targets, ["sha256"])}
    version = current.version + 1 if current else 1
    return Metadata(Snapshot(version=version, expires=_time(now + SNAPSHOT_LIFE_S), meta=meta))


def next_timestamp(
    current: Timestamp | None, *, snapshot: bytes, snapshot_version: int, now: float
) -> Metadata[Timestamp]:
    """The next timestamp, unsigned. It also says when it was signed, which devices without a clock go by."""
    timestamp = Timestamp(
        version=current.version + 1 if current else 1,
        expires=_time(now + TIMESTAMP_LIFE_S),
        snapshot_meta=MetaFile.from_data(snapshot_version, snapshot, ["sha256"]),
        unrecognized_fields={SIGNED_AT_FIELD: int(now)},
    )
    return Metadata(timestamp)


def unsigned_text(metadata: Metadata[Targets]) -> str:
    """The metadata as canonical JSON text with no signature: what an operator is asked to sign."""
    signed = json.loads(CanonicalJSONSerializer().serialize(metadata.signed))
    return json.dumps({"signatures": [], "signed": signed}, sort_keys=True, separators=(",", ":"))


def parse_signed_targets(text: str) -> Metadata[Targets]:
    """The targets metadata in a text from outside. Raises UntrustedTargetsError."""
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(text.encode())  # Any: the type is checked below
    except (DeserializationError, UnicodeEncodeError, RecursionError) as error:
        raise UntrustedTargetsError(f"Expected signed targets metadata, got other text: {error}") from error
    if not isinstance(metadata.signed, Targets):
        raise UntrustedTargetsError(f"Expected metadata of the role targets, got {metadata.signed.type}")
    return metadata


def check_signed_targets(
    signed: Metadata[Targets], *, root: Root, current: Targets, release: ReleaseFiles, now: float
) -> None:
    """Returns if the metadata is signed by the targets keys and adds this release, nothing else.

    Raises:
        UntrustedTargetsError: Wrong or missing signatures, or it says something nobody asked to be signed.
        StaleSigningRequestError: Something else was published since.
    """
    _check_signatures(signed, root)
    if signed.signed.version != current.version + 1:
        raise StaleSigningRequestError(
            f"Expected targets metadata version {current.version + 1}, got {signed.signed.version}",
            hint="Ask for a new signing request and sign that one.",
        )
    expected = next_targets(current, release, now=now).signed
    if signed.signed.targets != expected.targets:
        paths = sorted(_different(signed.signed.targets, expected.targets))
        raise UntrustedTargetsError(
            f"Expected targets metadata that adds the files of release {release.release_id} alone, "
            f"got a difference in {paths[0]}"
        )
    if signed.signed.delegations is not None or signed.signed.unrecognized_fields:
        raise UntrustedTargetsError("Expected targets metadata without delegations or other fields, got some")
    if not _time(now) < signed.signed.expires <= expected.expires:
        raise UntrustedTargetsError(
            f"Expected targets metadata that expires by {expected.expires.isoformat()}, "
            f"got {signed.signed.expires.isoformat()}",
            hint="Ask for a new signing request and sign that one.",
        )


def _check_signatures(signed: Metadata[Targets], root: Root) -> None:
    try:
        root.verify_delegate(Targets.type, signed.signed_bytes, signed.signatures)
    except UnsignedMetadataError as error:
        got = ", ".join(sorted(key_id[:12] for key_id in signed.signatures)) or "none"
        known = ", ".join(key_id[:12] for key_id in root.roles[Targets.type].keyids)
        raise UntrustedTargetsError(
            f"Expected a valid signature of the targets key {known}, got signatures by {got}",
            hint="Sign with the targets key that the root metadata names: `fleetlearn keys list FOLDER`.",
        ) from error
    except (RepositoryError, ValueError) as error:
        raise UntrustedTargetsError(f"Expected metadata that can be verified: {error}") from error


def _different(one: Mapping[str, TargetFile], other: Mapping[str, TargetFile]) -> set[str]:
    return {path for path in one.keys() | other.keys() if one.get(path) != other.get(path)}


def _time(seconds: float) -> datetime:
    """TUF writes whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC)
