"""A device under attack: the real installer, with a release in service before the attack."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.releases.errors import ReleaseError
from edge_agent.releases.installer import Installer
from edge_agent.releases.slots import InstalledRelease
from edge_agent.releases.trust import pin_root
from shared.lifecycles import ReleaseState
from shared.manifests import Manifest
from tests.support.release_server import ReleaseServer

OPSET_MAX = 21


class Device:
    """An installer with its folder; `clock` is the device's system clock."""

    def __init__(self, state_dir: Path, server: ReleaseServer, *, root: str | None = None) -> None:
        self.state_dir = state_dir
        self.server = server
        self.clock = server.now
        self.states: list[ReleaseState] = []
        self.self_test: Callable[[Path, Manifest], None] = lambda folder, manifest: None
        pin_root(state_dir, root or server.root())
        self.start()

    def start(self) -> None:
        """A new process: nothing is remembered but what is on disk."""
        self.installer = Installer(
            state_dir=self.state_dir,
            transport=self.server,
            self_test=lambda folder, manifest: self.self_test(folder, manifest),
            opset_max=OPSET_MAX,
            now=lambda: self.clock,
        )

    def install(self, release_id: str) -> InstalledRelease:
        self.states = []
        return self.installer.install(release_id, on_state=self.states.append)

    def serves(self) -> str | None:
        """What a fresh start of the agent finds, every file verified."""
        self.start()
        active = self.installer.active()
        return active.release_id if active else None

    def refuses(self, release_id: str, error: type[ReleaseError], match: str) -> ReleaseError:
        """Asserts that the release is refused in these words, and that what was served is served still."""
        before = self.serves()
        with pytest.raises(error, match=match) as caught:
            self.install(release_id)
        assert self.serves() == before
        assert ReleaseState.ACTIVE not in self.states
        return caught.value
