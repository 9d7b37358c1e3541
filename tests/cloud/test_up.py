"""`fleetlearn up`: starts hub and coordinator, keeps them running, stops both, and starts again on the same folder."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloud.settings import Settings
from cloud.up import NotHealthyError, check
from shared.exit_codes import ExitCode
from tests.support.waiting import wait_until

pytestmark = pytest.mark.processes
ADDRESS = "127.0.0.31"
DEADLINE_S = 60.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", address=ADDRESS)


def command(settings: Settings) -> list[str]:
    return [sys.executable, "-m", "shared", "up", "--data", str(settings.data_dir), "--address", ADDRESS]


@contextmanager
def started(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """`up`, once it said that all is well."""
    process = subprocess.Popen(command(settings), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        assert "fleetlearn is up" in process.stdout.readline()
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(20)
        process.stdout.close()


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def states(settings: Settings) -> Mapping[str, str]:
    try:
        return check(settings)
    except NotHealthyError:
        return {}


def test_starts_says_it_is_well_refuses_a_second_and_stops_without_a_trace(settings: Settings) -> None:
    with started(settings) as process:
        assert set(check(settings).values()) == {"ok"}
        assert stat.S_IMODE(settings.operator_token_file.stat().st_mode) == 0o600
        listed = [sys.executable, "-m", "shared", "devices", "list", "--json", "--data", str(settings.data_dir)]
        assert json.loads(subprocess.run(listed, capture_output=True, timeout=60, check=True).stdout) == []
        second = subprocess.run(command(settings), capture_output=True, text=True, timeout=60, check=False)
        assert (second.returncode, "one is running" in second.stderr) == (ExitCode.ALREADY_RUNNING, True)
        pids = children(process.pid)
        assert len(pids) == 2
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == ExitCode.INTERRUPTED
        assert [pid for pid in pids if is_alive(pid)] == []


def test_a_killed_child_comes_back_and_a_second_start_keeps_what_the_first_made(settings: Settings) -> None:
    with started(settings) as process:
        token, ca = settings.operator_token_file.read_text(), (settings.pki_dir / "ca.pem").read_bytes()
        for victim in children(process.pid):
            os.kill(victim, signal.SIGKILL)
        wait_until(
            lambda: len(children(process.pid)) == 2 and set(states(settings).values()) == {"ok"}, timeout_s=DEADLINE_S
        )
        process.terminate()
        assert process.wait(30) == ExitCode.OK
    with started(settings) as process:
        assert (settings.operator_token_file.read_text(), (settings.pki_dir / "ca.pem").read_bytes()) == (token, ca)
        pids = children(process.pid)
        process.kill()
        wait_until(lambda: not any(is_alive(pid) for pid in pids), timeout_s=DEADLINE_S)
