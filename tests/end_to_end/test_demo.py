"""The demonstration as its users run it: a process, its JSON, Ctrl-C, and a second one beside it."""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from shared.exit_codes import ExitCode
from simulations.demo.options import HUB_MQTT_PORT, HUB_REST_PORT, PORT, refuse_taken_ports
from simulations.demo.processes import fleetlearn
from simulations.demo.summary import Summary

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
ADDRESS = "127.0.0.71"
EPSILON = 4.0
_ASKED = ["--task", "digits", "--devices", "2", "--rounds", "2", "--epsilon", str(EPSILON), "--address", ADDRESS]


def test_the_whole_loop_comes_out_as_one_json_object(tmp_path: Path) -> None:
    with _demo(tmp_path, "--json") as demo:
        out, told = demo.communicate(timeout=200)
    assert demo.returncode == ExitCode.OK, told
    summary = Summary.model_validate(json.loads(out))
    _check_training(summary)
    _check_devices(summary)
    assert {alert.device_id for alert in summary.alerts} == {summary.disturbed_device}
    assert summary.disturbed_feature in {alert.subject for alert in summary.alerts}
    assert Path(summary.picture).read_bytes().startswith(b"\x89PNG")
    assert Summary.model_validate_json((tmp_path / "data" / "summary.json").read_text()) == summary


def _check_training(summary: Summary) -> None:
    accuracy = summary.accuracy
    assert all(0.5 < value <= 1 for value in accuracy.model_dump().values())
    assert accuracy.served == pytest.approx(accuracy.int8, abs=1e-9)
    assert len(summary.validation_accuracy_per_round) == 1 + summary.rounds
    assert summary.int8_bytes < summary.fp32_bytes
    assert [wave.state for wave in summary.waves] == ["healthy", "healthy"]


def _check_devices(summary: Summary) -> None:
    assert len(summary.devices) == 2
    for device in summary.devices:
        assert device.epsilon is not None
        assert 0 < device.epsilon <= EPSILON
        assert device.release_state == "active"


def test_ctrl_c_ends_every_process_and_leaves_the_ports_free(tmp_path: Path) -> None:
    with _demo(tmp_path) as demo:
        _wait_for_agents(demo, tmp_path)
        _refuses_a_second_one(tmp_path)
        family = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(signal.SIGINT)
        _, told = demo.communicate(timeout=60)
    assert demo.returncode == ExitCode.INTERRUPTED
    assert "Traceback" not in told
    _, left = psutil.wait_procs(family, timeout=10)
    assert not left
    refuse_taken_ports(ADDRESS)


def _refuses_a_second_one(folder: Path) -> None:
    for data_dir, reason in ((folder / "data", "running demonstration"), (folder / "other", "port")):
        command_line = fleetlearn("demo", *_ASKED, "--data", data_dir)
        second = subprocess.run(command_line, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == ExitCode.FAILED
        assert reason in second.stderr
        assert len(second.stderr.splitlines()) == 2  # the sentence and the hint
    assert (folder / "data" / "devices").exists()


@contextmanager
def _demo(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        fleetlearn("demo", *_ASKED, "--data", folder / "data", *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=60)


def _wait_for_agents(demo: subprocess.Popen[str], folder: Path) -> None:
    deadline = time.monotonic() + 90
    while not (folder / "data" / "logs" / "watch-2.log").exists():
        assert demo.poll() is None
        assert time.monotonic() < deadline, "the second agent did not start"
        time.sleep(0.1)
    for port in (PORT, HUB_REST_PORT, HUB_MQTT_PORT):
        socket.create_connection((ADDRESS, port), timeout=5).close()
