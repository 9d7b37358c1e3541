"""The power fails before any write of an install: the next start serves a whole release, and the install goes on."""

from pathlib import Path

import pytest

from shared.manifests import Manifest
from tests.attacks.device import Device
from tests.support.power_cut import PowerCutError, power_cut
from tests.support.release_server import ReleaseServer

CHANGES_MAX = 400
"""An install changes the file system less often than this; the bound of the loops below."""


def test_a_power_cut_before_any_write_leaves_a_bootable_device(tmp_path: Path, server: ReleaseServer) -> None:
    server.publish("one")
    server.publish("two")
    for before in range(CHANGES_MAX):
        device = Device(tmp_path / f"device-{before}", server)
        device.install("one")
        if not _install_with_power_cut(device, "two", before=before):
            assert before > 20
            return
        assert device.serves() in ("one", "two")
        device.install("two")
        assert device.serves() == "two"
    pytest.fail(f"Expected an install of less than {CHANGES_MAX} changes")


def test_a_power_cut_in_the_first_install_leaves_nothing_half_way(tmp_path: Path, server: ReleaseServer) -> None:
    server.publish("one")
    for before in range(CHANGES_MAX):
        device = Device(tmp_path / f"device-{before}", server)
        if not _install_with_power_cut(device, "one", before=before):
            return
        assert device.serves() in (None, "one")
        device.install("one")
        assert device.serves() == "one"
    pytest.fail(f"Expected an install of less than {CHANGES_MAX} changes")


def test_two_power_cuts_in_a_row_are_survived_too(tmp_path: Path, server: ReleaseServer) -> None:
    server.publish("one")
    server.publish("two")
    for before in range(0, CHANGES_MAX, 7):
        device = Device(tmp_path / f"device-{before}", server)
        device.install("one")
        if not _install_with_power_cut(device, "two", before=before):
            return
        _install_with_power_cut(device, "two", before=before // 2)
        assert device.serves() in ("one", "two")
        device.install("two")
        assert device.serves() == "two"


def test_the_device_serves_the_old_release_until_the_pointer_moves(device: Device) -> None:
    """A kill right in the self-test, the last moment before the switch."""

    def killed(folder: Path, manifest: Manifest) -> None:
        raise PowerCutError("in the self-test")

    device.self_test = killed
    with pytest.raises(PowerCutError):
        device.install("two")
    assert device.serves() == "one"


def _install_with_power_cut(device: Device, release_id: str, *, before: int) -> bool:
    """Installs, and says whether the power was cut on the way."""
    try:
        with power_cut(before=before):
            device.install(release_id)
    except PowerCutError:
        device.start()
        return True
    return False
