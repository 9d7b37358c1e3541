"""Flower's deployment as the baseline of a round: SuperLink, SuperNodes and a no-op app, as its users start them.

The app's own server part writes down when each round ended; `flwr run` starts it.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import psutil

from simulations.bench.errors import BenchError
from simulations.demo.processes import Processes

HOST = "127.0.0.1"
START_S = 90.0
ROUND_S_MAX = 60.0
_ENVIRONMENT = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
_PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "noop"
version = "1.0.0"
dependencies = []
[tool.hatch.build.targets.wheel]
packages = ["."]
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "noop_app:server"
clientapp = "noop_app:client"
[tool.flwr.app.config]
rounds = 3
nodes = 2
marks = ""
"""
_APP = """
import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
server = ServerApp()


@client.train()
def train(message, context):
    content = RecordDict({"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 80})})
    return Message(content=content, reply_to=message)


@server.main()
def main(grid, context):
    config, marks = context.run_config, []
    arrays = ArrayRecord([np.zeros((32, 64), np.float32), np.zeros(32, np.float32), np.zeros((10, 32), np.float32)])
    strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=config["nodes"], min_train_nodes=config["nodes"])
    strategy.start(
        grid, arrays, num_rounds=config["rounds"], evaluate_fn=lambda number, arrays: marks.append(time.time())
    )
    Path(config["marks"]).write_text(json.dumps(marks))
"""


class FlowerDeployment:
    """A SuperLink and SuperNodes, in a context that the caller's `Processes` ends.

    Args:
        folder: Of everything.
        processes: Where they are started.
    """

    def __init__(self, folder: Path, processes: Processes) -> None:
        self._folder, self._processes = folder, processes
        self._nodes = 0
        self._port = _free_port()
        _write_app(folder / "app")
        _write_home(folder / "home", port=self._port)

    def start(self) -> None:
        """The SuperLink; returns when it listens."""
        settings = ["--insecure", "--host", HOST, "--port", str(self._port)]
        self._start("superlink", "flower-superlink", [*settings, "--disable-runtime-dependency-installation"])
        self._processes.wait_until("a SuperLink", lambda: _listens(self._port), timeout_s=START_S)

    def grow(self, nodes: int) -> None:
        """Starts SuperNodes until there are this many."""
        for number in range(self._nodes, nodes):
            settings = ["--insecure", "--superlink", f"{HOST}:{self._port}", "--host", HOST]
            self._start(f"supernode-{number}", "flower-supernode", [*settings, "--port", str(_free_port())])
        self._nodes = nodes

    def resident_mb(self) -> float:
        """Resident memory of one idle SuperNode and what it started, in MB (10^6 bytes)."""
        root = psutil.Process(self._processes.pid("supernode-0"))
        return float(sum(part.memory_info().rss for part in [root, *root.children(recursive=True)])) / 1e6

    def round_seconds(self, rounds: int) -> list[float]:
        """How long each round of a run took, the first left out. Raises BenchError."""
        marks_file = self._folder / f"marks-{self._nodes}-{time.time_ns()}.json"
        config = f'rounds={rounds} nodes={self._nodes} marks="{marks_file}"'
        command = [_program("flwr"), "run", str(self._folder / "app"), "bench", "--run-config", config]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=START_S, env=self._environment(), check=False
        )
        if done.returncode:
            raise BenchError(f"Expected `flwr run` to start, got: {(done.stderr or done.stdout).strip()[-300:]}")
        self._processes.wait_until("Flower's rounds", marks_file.exists, timeout_s=START_S + rounds * ROUND_S_MAX)
        time.sleep(0.2)  # the file is written at once, but seen as soon as it is made
        marks = json.loads(marks_file.read_text(encoding="utf-8"))[1:]
        return [after - before for before, after in pairwise(marks)]

    def _start(self, name: str, program: str, settings: list[str]) -> None:
        self._processes.start_program(name, [_program(program), *settings], environment=self._environment())

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **_ENVIRONMENT, "FLWR_HOME": str(self._folder / "home")}


def _write_app(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(_PYPROJECT, encoding="utf-8")
    (folder / "noop_app.py").write_text(_APP, encoding="utf-8")


def _write_home(folder: Path, *, port: int) -> None:
    folder.mkdir(parents=True)
    connection = f'[superlink]\ndefault = "bench"\n\n[superlink.bench]\naddress = "{HOST}:{port}"\ninsecure = true\n'
    (folder / "config.toml").write_text(connection, encoding="utf-8")


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if found is None:
        raise BenchError(f"Expected Flower's program {name}, got none", hint="pip install 'fleetlearn[train]'")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0
