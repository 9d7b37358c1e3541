from pathlib import Path

import pytest

from tests.attacks.device import Device
from tests.support.release_server import ReleaseServer


@pytest.fixture
def server(tmp_path: Path) -> ReleaseServer:
    return ReleaseServer(tmp_path / "cloud")


@pytest.fixture
def device(tmp_path: Path, server: ReleaseServer) -> Device:
    """A device that serves `one`; `two` is published."""
    device = Device(tmp_path / "device", server)
    server.publish("one")
    device.install("one")
    assert device.serves() == "one"
    server.publish("two")
    return device
