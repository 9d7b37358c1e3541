"""Installs as the agent sees them: the installer, the runtime that loads what it installed, and one outcome."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from edge_agent.releases.errors import ReleaseError, SelfTestFailedError
from edge_agent.releases.installer import Installer
from edge_agent.releases.slots import InstalledRelease
from edge_agent.serving.session import LoadedRelease, load, self_test
from edge_agent.telemetry.monitor import Monitor
from edge_agent.threads import in_thread
from shared.errors import FleetlearnError
from shared.lifecycles import ReleaseState
from shared.manifests import Manifest

_log = structlog.get_logger()


@dataclass(frozen=True)
class InstallOutcome:
    """How an install ended: with a loaded release, or with an error."""

    loaded: LoadedRelease | None
    error: str = ""
    is_worth_retrying: bool = False
    self_test_ms: float | None = None


class TimedSelfTest:
    """The self-test, and how long the last one took."""

    def __init__(self) -> None:
        self.took_ms: float | None = None

    def __call__(self, folder: Path, manifest: Manifest) -> None:
        started = time.perf_counter()
        self_test(folder, manifest)
        self.took_ms = round((time.perf_counter() - started) * 1000, 3)


class Installs:
    """One at a time, in a thread.

    Args:
        installer: Puts releases on the disk.
        self_test: The one that the installer runs.
        monitor: Serves what was active before this start.
    """

    def __init__(self, installer: Installer, self_test: TimedSelfTest, monitor: Monitor) -> None:
        self._installer = installer
        self._self_test = self_test
        self._monitor = monitor
        self.active_release_id: str | None = None
        """What is served, whatever the disk says."""

    async def boot(self) -> str | None:
        """Serves what was active when the agent ended last; its id, or None. Never raises for a release's sake."""
        loaded = await in_thread(self._load_active, name="boot")
        if loaded is None:
            return None
        self._monitor.serve(loaded)
        self.active_release_id = loaded.release_id
        _log.info("release_serving", release_id=loaded.release_id)
        return loaded.release_id

    def install(self, release_id: str, *, on_state: Callable[[ReleaseState], None]) -> InstallOutcome:
        """Installs and loads a release; blocks. Errors become the outcome, and what is served stays as it is."""
        self._self_test.took_ms = None
        try:
            loaded = self._loaded(self._installer.install(release_id, on_state=on_state))
        except FleetlearnError as error:
            _log.warning("release_not_installed", release_id=release_id, code=error.code, reason=error.message)
            may_retry = isinstance(error, ReleaseError) and error.is_worth_retrying
            return InstallOutcome(None, error=error.message, is_worth_retrying=may_retry)
        self.active_release_id = loaded.release_id
        return InstallOutcome(loaded, self_test_ms=self._self_test.took_ms)

    def _load_active(self) -> LoadedRelease | None:
        try:
            installed = self._installer.active()
            return None if installed is None else self._loaded(installed)
        except ReleaseError as error:
            _log.error("active_release_not_served", code=error.code, reason=error.message)
        return self._load_previous()

    def _load_previous(self) -> LoadedRelease | None:
        previous = self._installer.return_to_previous()
        try:
            return None if previous is None else load(previous.folder, previous.manifest)
        except ReleaseError as error:
            _log.error("previous_release_not_served", code=error.code, reason=error.message)
            return None

    def _loaded(self, installed: InstalledRelease) -> LoadedRelease:
        """Loads an installed release; one that does not load gives way to the one before, on disk too."""
        try:
            return load(installed.folder, installed.manifest)
        except SelfTestFailedError:
            if installed.release_id != self.active_release_id and self.active_release_id is not None:
                self._installer.return_to_previous()
            raise
