"""Two slots for releases, and a pointer to the one that is served: switched atomically, the previous one kept.

    slots/a/  slots/b/     a release's files, and `installed.json`: their hashes as signed when they were verified
    slots/active           a file with one letter, `a` or `b` (not a link: memory cards with FAT have none)
    slots/staging/         the next release while it is put together and tested
    slots/discarded/       what a switch replaces, on its way out

A release is staged and tested beside both slots, so the previous one goes only at the switch. Every step is one rename;
after a kill between any two of them, `active` points to a whole slot, and the next start sweeps up. `installed.json`
guards against broken storage, not against whoever owns the device.
"""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import Field

from edge_agent.releases.errors import DamagedReleaseError
from edge_agent.releases.fetch import matches
from shared.files import sync_folder, write_atomically
from shared.manifests import MANIFEST_FILE, Manifest
from shared.messages.base import MalformedMessageError, Message, ObjectRef

RECORD_FILE = "installed.json"
_NAMES = ("a", "b")

_log = structlog.get_logger()


class InstalledRecord(Message):
    """A slot's `installed.json`."""

    release_id: str
    files: dict[str, ObjectRef] = Field(min_length=1)
    installed_at: float


@dataclass(frozen=True)
class InstalledRelease:
    """A release on this device whose files were just verified."""

    release_id: str
    folder: Path
    """Stays readable until the second switch after this one; a caller that needs a file longer opens it."""
    manifest: Manifest
    installed_at: float


class Slots:
    """The two slots below a folder. One process uses it at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pointer = folder / "active"
        self.staging = folder / "staging"
        self._discarded = folder / "discarded"

    def active(self) -> InstalledRelease | None:
        """The release to serve, verified by hash, or nothing yet.

        Where the active slot is damaged this returns to the other one, for good, if that is whole.
        """
        pointed_to = self._active_name()
        for name in self._candidates():
            try:
                release = self._verified(self._folder / name)
            except DamagedReleaseError as error:
                _log.error("release_slot_damaged", slot=name, reason=error.message)
                continue
            if name != pointed_to:
                self._point_to(name)
                _log.warning("release_returned_to_previous", slot=name, release_id=release.release_id)
            return release
        return None

    def previous(self) -> InstalledRelease | None:
        """The other slot's release, verified, if there is one."""
        for name in self._candidates()[1:]:
            try:
                return self._verified(self._folder / name)
            except DamagedReleaseError:
                return None
        return None

    def return_to_previous(self) -> InstalledRelease | None:
        """Makes the previous release the active one, if there is a whole one; the two change places."""
        previous = self.previous()
        if previous is not None:
            self._point_to(previous.folder.name)
            _log.warning("release_returned_to_previous", slot=previous.folder.name, release_id=previous.release_id)
        return previous

    def files(self) -> Iterable[Path]:
        """Every file in a slot: a release that shares one with the next need not be fetched twice."""
        for name in _NAMES:
            if (self._folder / name).is_dir():
                yield from sorted(path for path in (self._folder / name).iterdir() if path.name != RECORD_FILE)

    def begin_staging(self) -> Path:
        """An empty folder to put the next release together in."""
        self._sweep()
        self.staging.mkdir(parents=True)
        return self.staging

    def discard_staging(self) -> None:
        """Forgets a release that will not be installed."""
        self._sweep()

    def activate(self, record: InstalledRecord) -> InstalledRelease:
        """Makes the staged release the active one; the active one becomes the previous."""
        write_atomically(self.staging / RECORD_FILE, record.encode())
        target = self._folder / next(name for name in _NAMES if name != self._active_name())
        if target.exists():
            target.rename(self._discarded)
        self.staging.rename(target)
        sync_folder(self._folder)
        release = self._verified(target)
        self._point_to(target.name)
        self._sweep()
        return release

    def _sweep(self) -> None:
        for leftover in (self.staging, self._discarded):
            if leftover.exists():
                shutil.rmtree(leftover)

    def _active_name(self) -> str | None:
        name = self._pointer.read_text(errors="replace").strip() if self._pointer.exists() else None
        return name if name in _NAMES else None

    def _candidates(self) -> tuple[str, ...]:
        """Slots worth looking at, the active one first. No pointer means that nothing was ever activated."""
        if not self._pointer.exists():
            return ()
        active = self._active_name()
        return _NAMES if active is None else (active, *(name for name in _NAMES if name != active))

    def _point_to(self, name: str) -> None:
        write_atomically(self._pointer, name.encode())

    def _verified(self, slot: Path) -> InstalledRelease:
        try:
            record = InstalledRecord.parse((slot / RECORD_FILE).read_bytes())
            for name, ref in record.files.items():
                if not matches(slot / name, sha256=ref.digest, size_bytes=ref.size_bytes):
                    raise DamagedReleaseError(f"Expected {name} of release {record.release_id} as installed, got other")
            manifest = Manifest.parse((slot / MANIFEST_FILE).read_bytes())
        except (OSError, MalformedMessageError) as error:
            raise DamagedReleaseError(f"Expected an installed release in slot {slot.name}: {error}") from error
        return InstalledRelease(record.release_id, slot, manifest, record.installed_at)
