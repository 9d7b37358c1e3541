"""The demonstration's processes: one that ends is noticed with its last words, and what it was is told."""

import time
from pathlib import Path

import pytest

from simulations.demo.processes import ProcessEndedError, Processes

pytestmark = pytest.mark.processes


def _started(processes: Processes, *names: str) -> None:
    for name in names:
        processes.start(name, ["nothing-of-this-name"])
    deadline = time.monotonic() + 30
    while any("no command" not in (processes.log_dir / f"{name}.log").read_text() for name in names):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _ended_within(processes: Processes, *, besides: str, timeout_s: float) -> dict[str, str]:
    deadline = time.monotonic() + timeout_s
    ended: dict[str, str] = {}
    while not ended and time.monotonic() < deadline:
        ended = processes.take_ended(besides=besides)
        time.sleep(0.05)
    return ended


def test_one_that_ends_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        _started(processes, "cloud")
        with pytest.raises(ProcessEndedError, match="exit code 2: fleetlearn: no command"):
            processes.wait_until("something", lambda: False, timeout_s=10)


def test_one_that_may_end_is_told_once_and_forgotten(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        _started(processes, "watch-1")
        assert "no command" in _ended_within(processes, besides="cloud", timeout_s=10)["watch-1"]
        processes.check()
        assert processes.take_ended(besides="cloud") == {}


def test_the_one_that_matters_is_never_forgotten(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        _started(processes, "cloud")
        assert _ended_within(processes, besides="cloud", timeout_s=1) == {}
        with pytest.raises(ProcessEndedError):
            processes.check()
