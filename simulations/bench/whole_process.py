"""Runs one program to its end, as a whole: what it says last, and the most memory that it and its children took."""

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from simulations.bench.errors import BenchError

SAMPLE_S = 0.2
_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


def run_program(
    command: Sequence[str], *, folder: Path, timeout_s: float, environment: Mapping[str, str] | None = None
) -> dict[str, float]:
    """The object of the program's last line, and `peak_mb`: proportional set size of the process tree, 10^6 bytes.

    Args:
        command: `{started}` in an argument becomes the time of the start, in seconds since the epoch.
        folder: For the logs, and where the program runs.
        timeout_s: Then it is ended, children included.
        environment: Beside this process' own.

    Raises:
        BenchError: It failed, said something else, or took too long.
    """
    out, log = folder / "out", folder / "log"
    with out.open("wb") as stdout, log.open("wb") as stderr:
        process = subprocess.Popen(
            [part.replace("{started}", repr(time.time())) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        )
    watch = _MemoryWatch(process.pid)
    watch.start()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired as error:
        _end_tree(process.pid)
        raise BenchError(f"Expected {_name(command)} to end within {timeout_s:g} s, got no end") from error
    finally:
        watch.stop()
        process.wait()
    lines = out.read_text(errors="replace").strip().splitlines()
    try:
        document = {name: float(value) for name, value in json.loads(lines[-1]).items()}
    except (IndexError, ValueError, AttributeError, TypeError) as error:
        tail = " / ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
        raise BenchError(f"Expected figures from {_name(command)}, got status {process.returncode}: {tail}") from error
    return {**document, "peak_mb": watch.peak_mb}


class _MemoryWatch(threading.Thread):
    """Samples a process tree's memory until it is stopped. Shared pages count once (PSS)."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._stopped = pid, threading.Event()
        self.peak_mb = 0.0

    def run(self) -> None:
        while not self._stopped.wait(SAMPLE_S):
            self.peak_mb = max(self.peak_mb, _tree_mb(self._pid))

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def _tree_mb(pid: int) -> float:
    total = 0
    try:
        parts = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return 0.0
    for part in parts:
        try:
            rollup = Path(f"/proc/{part.pid}/smaps_rollup").read_text(encoding="ascii")
        except OSError:  # ended between the listing and the look
            continue
        total += sum(int(kilobytes) for kilobytes in _PSS.findall(rollup))
    return total * 1024 / 1e6


def _end_tree(pid: int) -> None:
    for part in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
        part.kill()


def _name(command: Sequence[str]) -> str:
    return " ".join(Path(part).name for part in command[:4])
