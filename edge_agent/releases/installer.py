"""Installs releases: fetch, verify, test, switch. On any failure the model that is served is untouched.

    installer = Installer(state_dir=..., transport=..., self_test=..., opset_max=23, now=time.time)
    release = installer.active()                                  # at boot: verified by hash, or None
    release = installer.install("physio-3f9a", on_state=report)   # in a thread: it blocks

Below `state_dir`: `trusted_root.json`, `metadata/`, `clock.json` (what the device trusts), `downloads/`, `slots/`.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from edge_agent.releases.clock import device_time
from edge_agent.releases.compatibility import Runtime, check_manifest, check_opset
from edge_agent.releases.errors import (
    DamagedReleaseError,
    IncompatibleReleaseError,
    MixAndMatchError,
    SelfTestFailedError,
    StorageError,
)
from edge_agent.releases.fetch import download, make_durable, matches
from edge_agent.releases.slots import InstalledRecord, InstalledRelease, Slots
from edge_agent.releases.transport import ReleaseTransport
from edge_agent.releases.trust import SignedFile, SignedRelease, refresh
from shared.errors import FleetlearnError
from shared.lifecycles import RELEASE_TRANSITIONS, ReleaseEvent, ReleaseState, advance
from shared.manifests import MANIFEST_BYTES_MAX, MANIFEST_FILE, Manifest
from shared.messages.base import MalformedMessageError, ObjectRef

RELEASE_BYTES_MAX = 512 * 1024 * 1024
"""Larger releases are refused, whoever signed them."""

SelfTest = Callable[[Path, Manifest], None]
"""(folder, manifest): runs the samples through this device's runtime. Raises SelfTestFailedError."""

OnState = Callable[[ReleaseState], None]


class Installer:
    """One device's releases. Not thread-safe: one thread installs at a time.

    Args:
        state_dir: Of this installer alone; `trust.pin_root` put the trusted root there at enrolment.
        transport: Reads the coordinator's release repository.
        self_test: The last check before the switch, on this device's own runtime.
        opset_max: Newest ONNX operator set of that runtime.
        now: The system clock, in seconds since the epoch; it may be wrong.
    """

    def __init__(
        self,
        *,
        state_dir: Path,
        transport: ReleaseTransport,
        self_test: SelfTest,
        opset_max: int,
        now: Callable[[], float],
    ) -> None:
        self._state_dir = state_dir
        self._transport = transport
        self._self_test = self_test
        self._runtime = Runtime(opset_max=opset_max)
        self._now = now
        self._slots = Slots(state_dir / "slots")
        self._downloads = state_dir / "downloads"
        self._active: InstalledRelease | None = None

    def active(self) -> InstalledRelease | None:
        """The release to serve, or None on a device that never had one.

        The first call verifies every file by hash, and returns to the previous release where the active one is damaged.
        """
        if self._active is None:
            self._active = self._slots.active()
        return self._active

    def return_to_previous(self) -> InstalledRelease | None:
        """Makes the previous release the active one, for a new one that does not do; None where there is none."""
        previous = self._slots.return_to_previous()
        self._active = previous or self._active
        return previous

    def install(self, release_id: str, *, on_state: OnState) -> InstalledRelease:
        """Makes this release the active one, and returns it; one that is active already is only verified again.

        Args:
            release_id: As the desired document names it.
            on_state: Called when a state is entered, from `downloading` to `active`; a failure is raised, not reported.

        Raises:
            ReleaseError: It was not installed; the subclass and the sentence say why. What came of it stays on disk.
        """
        steps = _Steps(on_state)
        try:
            try:
                return self._install(release_id, steps)
            finally:
                # A release that failed leaves nothing half-way; its downloads stay, for the next try.
                self._slots.discard_staging()
        except OSError as error:
            raise StorageError(
                f"Expected to write release {release_id} on this device: {error.strerror or error}",
                hint="Free some space on the device, or replace its storage.",
            ) from error

    def _install(self, release_id: str, steps: "_Steps") -> InstalledRelease:
        steps.enter(ReleaseEvent.START)
        signed = self._signed(release_id)
        if (active := self._already_active(signed)) is not None:
            steps.finish()
            return active
        manifest = self._fetch_all(signed)
        staging = self._stage(signed)
        steps.enter(ReleaseEvent.DOWNLOADED)
        _verify(staging, signed)
        steps.enter(ReleaseEvent.VERIFIED)
        self._test(staging, manifest)
        steps.enter(ReleaseEvent.TESTED)
        record = InstalledRecord(release_id=release_id, files=_refs(signed), installed_at=self._time())
        self._active = self._slots.activate(record)
        shutil.rmtree(self._downloads, ignore_errors=True)
        steps.enter(ReleaseEvent.SWITCHED)
        return self._active

    def _signed(self, release_id: str) -> SignedRelease:
        signed = refresh(self._state_dir, self._transport, now=self._time()).release(release_id)
        if signed.opset is not None:
            check_opset(signed.opset, self._runtime)
        size_bytes = sum(file.size_bytes for file in signed.files.values())
        if size_bytes > RELEASE_BYTES_MAX:
            raise IncompatibleReleaseError(f"Expected a release of at most {RELEASE_BYTES_MAX} bytes, got {size_bytes}")
        return signed

    def _already_active(self, signed: SignedRelease) -> InstalledRelease | None:
        active = self._slots.active()
        if active is None or active.release_id != signed.release_id:
            return None
        if not all(_is(active.folder / name, file) for name, file in signed.files.items()):
            return None
        self._active = active
        return active

    def _fetch_all(self, signed: SignedRelease) -> Manifest:
        """Fetches what is not on this device yet; the manifest first, it decides whether the rest is worth it."""
        self._forget_other_downloads(signed)
        manifest_file = signed.files[MANIFEST_FILE]
        if manifest_file.size_bytes > MANIFEST_BYTES_MAX:
            raise IncompatibleReleaseError(
                f"Expected a manifest of at most {MANIFEST_BYTES_MAX} bytes, got {manifest_file.size_bytes}"
            )
        manifest = _parsed(self._local(manifest_file).read_bytes())
        check_manifest(manifest, release_id=signed.release_id, runtime=self._runtime)
        _check_same_files(manifest, signed)
        self._check_space(signed)
        for file in signed.files.values():
            self._local(file)
        return manifest

    def _local(self, file: SignedFile) -> Path:
        """A whole copy of the file on this device: from a slot, or downloaded."""
        for path in self._slots.files():
            if path.name == file.name and _is(path, file):
                return path
        return download(self._transport, file, folder=self._downloads)

    def _forget_other_downloads(self, signed: SignedRelease) -> None:
        wanted = {file.sha256 for file in signed.files.values()}
        for path in self._downloads.iterdir() if self._downloads.is_dir() else ():
            if path.name.removesuffix(".part") not in wanted:
                path.unlink()

    def _check_space(self, signed: SignedRelease) -> None:
        # Once as a download, once staged: a link would do, but not every file system has links.
        needed = 2 * sum(file.size_bytes for file in signed.files.values())
        free = shutil.disk_usage(self._state_dir).free
        if free < needed:
            raise StorageError(
                f"Expected {needed} free bytes for release {signed.release_id}, got {free}",
                hint="Free some space on the device.",
            )

    def _stage(self, signed: SignedRelease) -> Path:
        staging = self._slots.begin_staging()
        for name, file in signed.files.items():
            _copy_durably(self._local(file), staging / name)
        return staging

    def _test(self, staging: Path, manifest: Manifest) -> None:
        try:
            self._self_test(staging, manifest)
        except FleetlearnError:
            raise
        # The model runs here for the first time: whatever the runtime raises, the answer is that it does not do.
        except Exception as error:
            raise SelfTestFailedError(f"Expected the self-test to run, got {type(error).__name__}: {error}") from error

    def _time(self) -> float:
        return device_time(self._state_dir, system_time=self._now())


class _Steps:
    """Walks the lifecycle's table, and tells of each state entered."""

    def __init__(self, on_state: OnState) -> None:
        self._state = ReleaseState.PENDING
        self._on_state = on_state

    def enter(self, event: ReleaseEvent) -> None:
        self._state = advance(RELEASE_TRANSITIONS, self._state, event)
        self._on_state(self._state)

    def finish(self) -> None:
        for event in (ReleaseEvent.DOWNLOADED, ReleaseEvent.VERIFIED, ReleaseEvent.TESTED, ReleaseEvent.SWITCHED):
            self.enter(event)


def _parsed(payload: bytes) -> Manifest:
    try:
        return Manifest.parse(payload)
    except MalformedMessageError as error:
        raise IncompatibleReleaseError(f"Expected a release manifest: {error.message}") from error


def _check_same_files(manifest: Manifest, signed: SignedRelease) -> None:
    """The manifest and the signed metadata name the same bytes, so that a manifest is evidence by itself."""
    for name, ref in manifest.files.items():
        file = signed.files.get(name)
        if file is None or (file.sha256, file.size_bytes) != (ref.digest, ref.size_bytes):
            raise MixAndMatchError(f"Expected {name[:80]} in the manifest as it was signed, got another file")


def _verify(staging: Path, signed: SignedRelease) -> None:
    """Reads everything back from the disk: what is tested and switched to is what was signed."""
    for name, file in signed.files.items():
        if not _is(staging / name, file):
            raise DamagedReleaseError(
                f"Expected {name} of release {signed.release_id} with SHA-256 {file.sha256} on disk, got other bytes",
                hint="The device's storage may be failing.",
            )


def _is(path: Path, file: SignedFile) -> bool:
    return matches(path, sha256=file.sha256, size_bytes=file.size_bytes)


def _refs(signed: SignedRelease) -> dict[str, ObjectRef]:
    return {
        name: ObjectRef.model_validate({"digest": file.sha256, "size_bytes": file.size_bytes})
        for name, file in signed.files.items()
    }


def _copy_durably(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    make_durable(target)
