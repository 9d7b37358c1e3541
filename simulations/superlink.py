"""Flower's own deployment on this machine: a SuperLink, SuperNodes, and `flwr run`, as its users start them.

with Processes(folder / "logs") as processes:
link = SuperLink(folder, processes)
link.start()
link.add_node({"data-dir": "/data/press-07"})
link.run(app_folder, {"num-server-rounds": 2})
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from shared.errors import ExtraNotInstalledError, FleetlearnError
from simulations.demo.processes import Processes

HOST = "127.0.0.1"
START_S = 90.0
_NAME = "here"
_ENVIRONMENT = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
Config = Mapping[str, bool | int | float | str]


class SuperLinkError(FleetlearnError):
    """Flower's deployment did not take an app."""

    code = "superlink_failed"


class SuperLink:
    """A SuperLink and its SuperNodes, in a context that the caller's `Processes` ends.

    Args:
        folder: Of everything.
        processes: Where they are started.
    """

    def __init__(self, folder: Path, processes: Processes) -> None:
        self._folder, self._processes = folder, processes
        self._port = _free_port()
        self.nodes = 0
        _write_home(folder / "home", port=self._port)

    def start(self) -> None:
        """The SuperLink; returns when it listens."""
        settings = ["--insecure", "--host", HOST, "--port", str(self._port)]
        self._start("superlink", "flower-superlink", [*settings, "--disable-runtime-dependency-installation"])
        self._processes.wait_until("a SuperLink", lambda: _listens(self._port), timeout_s=START_S)

    def add_node(self, node_config: Config | None = None) -> None:
        """One more SuperNode, whose apps are told this."""
        settings = ["--insecure", "--superlink", f"{HOST}:{self._port}", "--host", HOST, "--port", str(_free_port())]
        if node_config:
            settings += ["--node-config", _toml(node_config)]
        self._start(f"supernode-{self.nodes}", "flower-supernode", settings)
        self.nodes += 1

    def resident_mb(self) -> float:
        """Resident memory of one idle SuperNode and what it started, in MB (10^6 bytes)."""
        root = psutil.Process(self._processes.pid("supernode-0"))
        return float(sum(part.memory_info().rss for part in [root, *root.children(recursive=True)])) / 1e6

    def run(self, app: Path, run_config: Config) -> None:
        """Starts the app in this folder, and does not wait for its end. Raises SuperLinkError."""
        command = [_program("flwr"), "run", str(app), _NAME, "--run-config", _toml(run_config)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=START_S, env=self._environment(), check=False
        )
        if done.returncode:
            raise SuperLinkError(f"Expected `flwr run` to start, got: {(done.stderr or done.stdout).strip()[-300:]}")

    def _start(self, name: str, program: str, settings: list[str]) -> None:
        self._processes.start_program(name, [_program(program), *settings], environment=self._environment())

    def _environment(self) -> dict[str, str]:
        # Flower's programs find each other on the path, where an environment's are only once it is activated.
        return {**os.environ, **_ENVIRONMENT, "PATH": _path(), "FLWR_HOME": str(self._folder / "home")}


def _toml(config: Config) -> str:
    """As Flower's command line takes it. A JSON scalar is a TOML one."""
    return " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())


def _write_home(folder: Path, *, port: int) -> None:
    folder.mkdir(parents=True)
    connection = (
        f'[superlink]\ndefault = "{_NAME}"\n\n[superlink.{_NAME}]\naddress = "{HOST}:{port}"\ninsecure = true\n'
    )
    (folder / "config.toml").write_text(connection, encoding="utf-8")


def _program(name: str) -> str:
    found = shutil.which(name, path=_path())
    if found is None:
        raise ExtraNotInstalledError(f"Flower's program {name}", extra="train")
    return found


def _path() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0
