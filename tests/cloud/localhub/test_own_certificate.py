"""A stranger's first minutes: a hub with nothing but a folder, a device, a service."""

import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cloud.localhub.__main__ import main
from cloud.localhub.own_certificate import ensure_certificate
from tests.cloud.localhub.support import REPOSITORY, wait_for_event

_ADDRESS = "127.0.0.80"


def test_the_certificate_is_made_once_and_again_for_another_address(tmp_path: Path) -> None:
    first = ensure_certificate(tmp_path, address=_ADDRESS)
    ca, server = first.ca.read_bytes(), first.server.read_bytes()
    assert ensure_certificate(tmp_path, address=_ADDRESS).server.read_bytes() == server
    assert ensure_certificate(tmp_path, address="127.0.0.81").server.read_bytes() != server
    assert first.ca.read_bytes() == ca
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in first.ca.parent.iterdir())


def test_some_of_the_three_certificate_options_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--data", str(tmp_path), "--key", "hub.key"]) == 1
    assert "Expected all of --certificate" in capsys.readouterr().err


@pytest.mark.processes
def test_a_hub_of_nothing_but_a_folder_registers_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "cloud.localhub", "serve", "--data", str(tmp_path), "--address", _ADDRESS]
    hub = subprocess.Popen([*command, "--rest-port", "0"], stderr=subprocess.PIPE, cwd=REPOSITORY)
    try:
        hostname = f"{_ADDRESS}:{wait_for_event(hub, 'hub_started')['rest_port']}"
        add = ["add-device", "press-07", "--data", str(tmp_path), "--hostname", hostname]
        assert main(add) == 0
        assert capsys.readouterr().out.startswith(f"HostName={_ADDRESS};DeviceId=press-07;SharedAccessKey=")
        where = ["--data", str(tmp_path), "--hostname", hostname]
        assert main(["query", "SELECT deviceId, status FROM devices", *where]) == 0
        assert capsys.readouterr().out == '{"deviceId": "press-07", "status": "enabled"}\n'
        assert main(["query", "SELECT nothing", *where]) == 1
        assert "did not parse" in capsys.readouterr().err
        assert main(add) == 1
        assert "DeviceAlreadyExists" in capsys.readouterr().err
        assert main([*add, "--ca", str(REPOSITORY / "README.md")]) == 1
        assert "Expected a hub at" in capsys.readouterr().err
    finally:
        hub.send_signal(signal.SIGKILL)
        hub.communicate()
