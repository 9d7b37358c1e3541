"""Child processes that are watched: started again with a growing pause when one dies, ended when we end."""

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from cloud.errors import CoordinatorError
from cloud.jobs.lifeline import lifeline

LOG_BYTES_MAX = 20 * 1024 * 1024
"""A larger log is set aside at the next start of its process, over the one set aside before."""
STOP_S = 15.0
PAUSE_S_MAX = 30.0
STEADY_S = 60.0
"""A process that ran this long gets the shortest pause again."""
_log = structlog.get_logger()


class ChildEndedError(CoordinatorError):
    """A process ended before it ever worked."""

    code = "child_ended"


@dataclass
class Child:
    """One process and its history; times are monotonic."""

    name: str
    command: Sequence[str]
    log_file: Path
    process: subprocess.Popen[bytes]
    started_at: float
    deaths: int = 0
    start_again_at: float | None = None


class Children:
    """Starts in the order given, stops in the reverse order."""

    def __init__(self, logs_dir: Path) -> None:
        self._logs_dir = logs_dir
        self._children: list[Child] = []
        self._tie = lifeline()

    def start(self, name: str, command: Sequence[str], *, environment: Mapping[str, str]) -> None:
        """In a process group of its own, so that Ctrl-C reaches us and we stop it; it dies with us, however we die."""
        log_file = self._logs_dir / f"{name}.log"
        self._environment = dict(environment)
        process = self._spawn(command, log_file)
        self._children.append(Child(name, command, log_file, process, time.monotonic()))

    def pids(self) -> dict[str, int]:
        return {child.name: child.process.pid for child in self._children}

    def check(self) -> None:
        """Raises ChildEndedError, with the end of its log, when one has ended: before all work, that is final."""
        for child in self._children:
            if child.process.poll() is not None:
                raise ChildEndedError(
                    f"Expected {child.name} to start, it ended with {child.process.returncode}: {_last_words(child)}",
                    hint=f"Its whole log: {child.log_file}",
                )

    def tend(self, *, now: float) -> None:
        """Notices who died, and starts again whose pause is over. `now` is monotonic."""
        for child in self._children:
            if child.start_again_at is None and child.process.poll() is not None:
                child.deaths = 1 if now - child.started_at > STEADY_S else child.deaths + 1
                child.start_again_at = now + pause_s(child.deaths)
                _log.warning("child_died", child=child.name, returncode=child.process.returncode, deaths=child.deaths)
            if child.start_again_at is not None and now >= child.start_again_at:
                child.process = self._spawn(child.command, child.log_file)
                child.started_at, child.start_again_at = now, None
                _log.info("child_started_again", child=child.name, pid=child.process.pid)

    def restart(self, name: str) -> None:
        """Ends one and starts it again; one that is not there, or waits to be started, is left alone."""
        for child in self._children:
            if child.name == name and child.start_again_at is None:
                _end(child)
                child.process = self._spawn(child.command, child.log_file)
                child.started_at = time.monotonic()
                _log.info("child_restarted", child=name, pid=child.process.pid)

    def stop(self) -> None:
        """Asks each to stop, waits, and kills who does not."""
        for child in reversed(self._children):
            _end(child)
        self._children.clear()

    def _spawn(self, command: Sequence[str], log_file: Path) -> subprocess.Popen[bytes]:
        if log_file.exists() and log_file.stat().st_size > LOG_BYTES_MAX:
            log_file.replace(log_file.with_suffix(".log.1"))
        with log_file.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
                preexec_fn=self._tie,  # one thread here, and the library is loaded before the fork
            )


def pause_s(deaths: int) -> float:
    """How long to wait before starting a process again that died so many times in a row."""
    return float(min(PAUSE_S_MAX, 0.25 * 2 ** min(deaths, 16)))


def _end(child: Child) -> None:
    if child.process.poll() is None:
        child.process.send_signal(signal.SIGTERM)
        try:
            child.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait(STOP_S)


def _last_words(child: Child) -> str:
    lines = child.log_file.read_text(errors="replace").strip().splitlines()
    return lines[-1][:500] if lines else "it said nothing"
