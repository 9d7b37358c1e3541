"""Installs as the agent sees them: real releases from a real repository, loaded into the real runtime."""

import asyncio
from pathlib import Path

import pytest

from edge_agent.installs import Installs, TimedSelfTest
from edge_agent.releases.installer import Installer
from edge_agent.releases.trust import pin_root
from edge_agent.serving.observer import Observer
from edge_agent.serving.opset import opset_max
from edge_agent.serving.slot import ServingSlot
from edge_agent.telemetry.monitor import Monitor
from shared.lifecycles import ReleaseState
from shared.manifests import MANIFEST_FILE, MODEL_FILE, PROFILE_FILE, SAMPLES_FILE
from tests.edge_agent.support import images, weights, write_release
from tests.support.release_server import ReleaseServer


class Device:
    """A device whose agent can be started again on the same disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = ReleaseServer(folder / "server")
        pin_root(folder / "state", self.server.root())
        self.start()

    def start(self) -> None:
        self.slot = ServingSlot()
        self_test = TimedSelfTest()
        installer = Installer(
            state_dir=self.folder / "state",
            transport=self.server,
            self_test=self_test,
            opset_max=opset_max(),
            now=lambda: self.server.now,
        )
        self.monitor = Monitor(self.slot, Observer(), drift_examples=0, clock=lambda: 0.0)
        self.installs = Installs(installer, self_test, self.monitor)

    def boot(self) -> str | None:
        return asyncio.run(self.installs.boot())

    def publish(self, release_id: str, *, seed: int = 0) -> None:
        folder = self.folder / "made" / release_id
        write_release(folder, release_id=release_id, seed=seed)
        names = (MANIFEST_FILE, MODEL_FILE, SAMPLES_FILE, PROFILE_FILE)
        self.server.publish(release_id, {name: (folder / name).read_bytes() for name in names})

    def slot_of(self, release_id: str) -> Path:
        slots = self.folder / "state" / "slots"
        return next(
            slot for slot in slots.iterdir() if slot.is_dir() and release_id in (slot / MANIFEST_FILE).read_text()
        )


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def install(device: Device, release_id: str) -> list[ReleaseState]:
    states: list[ReleaseState] = []
    outcome = device.installs.install(release_id, on_state=states.append)
    assert outcome.error == ""
    assert outcome.loaded is not None
    assert outcome.self_test_ms is not None
    device.monitor.serve(outcome.loaded)
    return states


def test_an_installed_release_is_loaded_timed_and_there_after_a_restart(device: Device) -> None:
    assert device.boot() is None
    device.publish("digits-1")
    assert install(device, "digits-1")[-1] is ReleaseState.ACTIVE
    device.start()
    assert device.boot() == "digits-1"
    release = device.slot.release
    assert release is not None
    assert release.model.is_batchable
    assert release.model.run(images(2)) == pytest.approx(images(2) @ weights(0), rel=1e-4)


def test_a_damaged_active_slot_returns_to_the_release_before_at_boot(device: Device) -> None:
    for number in (1, 2):
        device.publish(f"digits-{number}", seed=number)
        install(device, f"digits-{number}")
    (device.slot_of("digits-2") / MODEL_FILE).write_bytes(b"a failing disk")
    device.start()
    assert device.boot() == "digits-1"
    device.start()
    assert device.boot() == "digits-1"


def test_two_damaged_slots_leave_an_agent_that_runs_and_serves_nothing(device: Device) -> None:
    for number in (1, 2):
        device.publish(f"digits-{number}", seed=number)
        install(device, f"digits-{number}")
    for number in (1, 2):
        (device.slot_of(f"digits-{number}") / MODEL_FILE).write_bytes(b"")
    device.start()
    assert device.boot() is None
    install(device, "digits-2")
    assert device.installs.active_release_id == "digits-2"


def test_a_failed_install_says_whether_trying_again_may_help_and_serving_goes_on(device: Device) -> None:
    device.publish("digits-1")
    install(device, "digits-1")
    device.publish("digits-2", seed=2)
    device.server.cut_after[f"targets/{_target(device, 'digits-2')}"] = 0
    cut = device.installs.install("digits-2", on_state=lambda _: None)
    assert cut.loaded is None
    assert cut.is_worth_retrying
    unknown = device.installs.install("digits-9", on_state=lambda _: None)
    assert "digits-9" in unknown.error
    assert not unknown.is_worth_retrying
    assert device.installs.active_release_id == "digits-1"
    device.server.cut_after.clear()
    install(device, "digits-2")


def _target(device: Device, release_id: str) -> str:
    """Path of the release's model in the repository, its hash in the name."""
    targets = device.server.repository.targets_dir
    return next(
        str(path.relative_to(targets)) for path in sorted(targets.rglob(f"*.{MODEL_FILE}")) if release_id in str(path)
    )
