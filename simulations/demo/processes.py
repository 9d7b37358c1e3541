"""The demonstration's processes: started, watched, and stopped with everything they started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from shared.errors import FleetlearnError

_STOP_TIMEOUT_S = 15.0


def interrupt_on_signals() -> None:
    """Makes SIGTERM end this process as Ctrl-C does, by KeyboardInterrupt, so that what it started is stopped.

    Also where a shell started us in the background, with Ctrl-C ignored: whoever sends a signal means it.
    """
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # One is enough: a second one would cut the stopping short, which is bounded, and leave processes behind.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


class ProcessEndedError(FleetlearnError):
    """A process ended that should have kept running."""

    code = "process_ended"


class TimedOutError(FleetlearnError):
    """Something expected did not happen in time."""

    code = "timed_out"


@dataclass
class Processes:
    """Child processes by name; leaving the context stops them all, the newest first."""

    log_dir: Path
    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.log_dir.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()

    def start(
        self,
        name: str,
        arguments: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts `fleetlearn ARGUMENTS`, as `start_program` does.

        Args:
            name: Of the process and its log.
            arguments: After `fleetlearn`.
            cwd: Its working folder.
            environment: Variables besides our own.
        """
        self.start_program(name, fleetlearn(*arguments), cwd=cwd, environment=environment)

    def start_program(
        self,
        name: str,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts a program, in a process group of its own: Ctrl-C reaches us, and we stop it."""
        with (self.log_dir / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=cwd,
                env=dict(os.environ) | dict(environment or {}),
                start_new_session=True,
            )

    def pid(self, name: str) -> int:
        return self._children[name].pid

    def forget(self, name: str) -> None:
        """Waits for a process that is ending on its own and no longer watches it."""
        self._children.pop(name).wait(timeout=_STOP_TIMEOUT_S)

    def check(self) -> None:
        """Raises ProcessEndedError with the end of the log when a process is gone."""
        for name, child in self._children.items():
            if child.poll() is not None:
                raise ProcessEndedError(
                    f"{name} ended with exit code {child.returncode}: {self._last_words(name)}",
                    hint=f"Its whole log: {self.log_dir / f'{name}.log'}",
                )

    def take_ended(self, *, besides: str) -> dict[str, str]:
        """The last words of every process that has ended since, which is no longer watched; never of `besides`."""
        ended = [name for name, child in self._children.items() if name != besides and child.poll() is not None]
        for name in ended:
            del self._children[name]
        return {name: self._last_words(name) for name in ended}

    def wait_until(self, what: str, is_true: Callable[[], bool], *, timeout_s: float) -> None:
        """Returns once `is_true`; raises TimedOutError, or ProcessEndedError as soon as a process is gone."""
        deadline = time.monotonic() + timeout_s
        while not is_true():
            self.check()
            if time.monotonic() > deadline:
                raise TimedOutError(
                    f"Expected {what} within {timeout_s:.0f} s, it did not happen", hint=f"Logs: {self.log_dir}"
                )
            time.sleep(0.1)

    def stop_all(self) -> None:
        """Asks every process to stop, waits, and ends the group of whoever does not."""
        for child in reversed(self._children.values()):
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        for child in self._children.values():
            try:
                child.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait(timeout=_STOP_TIMEOUT_S)
        self._children.clear()

    def _last_words(self, name: str) -> str:
        lines = (self.log_dir / f"{name}.log").read_text(errors="replace").strip().splitlines()
        # An error of ours is one line, and an indented hint may follow it.
        sentences = [line for line in lines if not line.startswith(" ")]
        return sentences[-1][:300] if sentences else "it said nothing"


def fleetlearn(*arguments: str | Path) -> list[str]:
    """The command line of a `fleetlearn` subcommand in this very environment."""
    return [sys.executable, "-m", "shared", *map(str, arguments)]


def run_once(arguments: Sequence[str | Path], *, timeout_s: float) -> str:
    """Runs `fleetlearn ARGUMENTS` to its end and returns what it printed; raises ProcessEndedError with its reason."""
    done = subprocess.run(
        fleetlearn(*arguments), capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout_s, check=False
    )
    if done.returncode != 0:
        raise ProcessEndedError(f"fleetlearn {arguments[0]} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def resident_mib(pid: int) -> float:
    """Resident memory of one process, MiB."""
    import psutil

    return float(psutil.Process(pid).memory_info().rss) / 2**20
