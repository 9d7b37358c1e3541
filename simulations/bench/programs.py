"""The programs a bench starts: each a process of its own, ended by its own id when the bench ends."""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from edge_agent.state_dir import StateDir
from shared.tasks.physio import TASK
from simulations.bench.errors import BenchError

HOST = "127.0.0.48"
START_S = 90.0
STOP_S = 10.0


@dataclass(frozen=True)
class Server:
    """One program that answers HTTP."""

    pid: int
    port: int
    path: str
    """Where it takes inference requests."""
    started_in_s: float
    """From its start to its first good answer."""

    def rss_mb(self) -> float:
        """Resident memory of the program and its children, in MB (10^6 bytes)."""
        process = psutil.Process(self.pid)
        parts = [process, *process.children(recursive=True)]
        return float(sum(part.memory_info().rss for part in parts)) / 1e6


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(
    command: Sequence[str], *, port: int, ready: str, path: str, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Runs the program until the context ends; it is ready when `GET ready` answers 200. Raises BenchError."""
    started = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        )
    try:
        _wait_ready(process, command, port, ready, log)
        yield Server(process.pid, port, path, time.monotonic() - started)
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)


def agent_server(folder: Path, state: StateDir) -> AbstractContextManager[Server]:
    """The agent itself, as a device runs it."""
    port = free_port()
    settings = ["--serve-address", HOST, "--serve-port", str(port)]
    return server(
        [sys.executable, "-m", "edge_agent", "run", "--state", str(state.path), *settings],
        port=port,
        ready="/v2/health/ready",
        path=f"/v2/models/{TASK.name}/infer",
        log=folder / "agent.log",
    )


def fastapi_server(folder: Path, model: Path, *, module: str = "fastapi_json") -> AbstractContextManager[Server]:
    """A baseline program around the same model."""
    port = free_port()
    schema = TASK.schema
    arguments = [str(model), schema.input_name, schema.output_name, HOST, str(port)]
    return server(
        [sys.executable, "-m", f"simulations.bench.baselines.{module}", *arguments],
        port=port,
        ready="/ready",
        path="/infer",
        log=folder / f"{module}.log",
    )


def _wait_ready(process: subprocess.Popen[bytes], command: Sequence[str], port: int, ready: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if _answers(port, ready):
            return
        time.sleep(0.01)
    tail = " / ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
    raise BenchError(f"Expected {' '.join(command[:4])} to serve on port {port}, got: {tail[:500]}")


def _answers(port: int, ready: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", ready)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
