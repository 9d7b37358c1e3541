"""Flower's deployment as the baseline of a round: SuperLink, SuperNodes and a no-op app, as its users start them.

The app's own server part writes down when each round ended; `flwr run` starts it.
"""

import json
import time
from itertools import pairwise
from pathlib import Path

from simulations.demo.processes import Processes
from simulations.superlink import START_S, SuperLink

ROUND_S_MAX = 60.0
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
    """A SuperLink and SuperNodes with the no-op app, in a context that the caller's `Processes` ends.

    Args:
        folder: Of everything.
        processes: Where they are started.
    """

    def __init__(self, folder: Path, processes: Processes) -> None:
        self._folder, self._processes = folder, processes
        self._link = SuperLink(folder, processes)
        _write_app(folder / "app")

    def start(self) -> None:
        """The SuperLink; returns when it listens."""
        self._link.start()

    def grow(self, nodes: int) -> None:
        """Starts SuperNodes until there are this many."""
        while self._link.nodes < nodes:
            self._link.add_node()

    def resident_mb(self) -> float:
        """Resident memory of one idle SuperNode and what it started, in MB (10^6 bytes)."""
        return self._link.resident_mb()

    def round_seconds(self, rounds: int) -> list[float]:
        """How long each round of a run took, the first left out. Raises SuperLinkError."""
        marks_file = self._folder / f"marks-{self._link.nodes}-{time.time_ns()}.json"
        self._link.run(self._folder / "app", {"rounds": rounds, "nodes": self._link.nodes, "marks": str(marks_file)})
        self._processes.wait_until("Flower's rounds", marks_file.exists, timeout_s=START_S + rounds * ROUND_S_MAX)
        time.sleep(0.2)  # the file is written at once, but seen as soon as it is made
        marks = json.loads(marks_file.read_text(encoding="utf-8"))[1:]
        return [after - before for before, after in pairwise(marks)]


def _write_app(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(_PYPROJECT, encoding="utf-8")
    (folder / "noop_app.py").write_text(_APP, encoding="utf-8")
