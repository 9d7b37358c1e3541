"""A whole fleet in real processes on one loopback address: hub, coordinator and agents, as their users start them."""

import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from fleet import calls
from fleet.client import CoordinatorClient
from fleet.waiting import Patience, wait_for_job
from shared.api.enrolment import TokenCreate
from shared.api.jobs import TrainingCreate
from shared.errors import FleetlearnError
from shared.tasks.digits import TASK
from simulations.demo.processes import Processes, run_once

PATIENCE = Patience(timeout_s=300, away_s_max=60, poll_s=0.1)


class SmallFleet:
    """Starts on entry, stops everything on exit.

    Args:
        folder: Of everything.
        address: A loopback address that nobody else uses: the hub's port is fixed.
        environment: Of all its processes, besides our own.
    """

    def __init__(self, folder: Path, *, address: str, environment: Mapping[str, str]) -> None:
        self._folder, self._address, self._environment = folder, address, environment
        self.processes = Processes(log_dir=folder / "logs")
        self.devices: list[str] = []

    def __enter__(self) -> Self:
        self.processes.__enter__()
        try:
            self._start_cloud()
        except BaseException:
            self.processes.stop_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self.processes.stop_all()

    def grow(self, devices: int) -> None:
        """Enrols devices until there are this many, starts their agents, and waits until all are online."""
        slices = list(TASK.device_slices())
        for number in range(len(self.devices), devices):
            device_id = f"bench-{number}"
            folder = self._folder / device_id
            TASK.write_device_data(folder / "data", (slices[number % len(slices)],))
            token = self.client.send(calls.create_token(TokenCreate(device_id=device_id))).token
            enrol: list[str | Path] = [
                "agent",
                "enrol",
                "--state",
                folder / "state",
                "--device-id",
                device_id,
                "--token",
                token,
            ]
            run_once(enrol, timeout_s=60)
            places: list[str | Path] = ["--state", folder / "state", "--data", folder / "data", "--serve-port", "0"]
            settings = ["--allow-without-privacy", "--heartbeat-s", "10"]
            self.processes.start(device_id, ["agent", "run", *places, *settings], environment=self._environment)
            self.devices.append(device_id)
        self.processes.wait_until(f"{devices} devices online", lambda: self._online() == devices, timeout_s=120)

    def train_base(self, task: str) -> str:
        """A starting model's id."""
        job = self.client.send(calls.start_training(TrainingCreate(task=task)))
        return str(wait_for_job(self.client, job.job_id, patience=PATIENCE).result["model_version_id"])

    def resident_mb(self) -> float:
        """Resident memory of one agent and what it started, in MB (10^6 bytes): the median agent's."""
        sizes = sorted(_tree_mb(self.processes.pid(device)) for device in self.devices)
        return sizes[len(sizes) // 2]

    def kill_coordinator(self) -> None:
        """Kills (-9) the coordinator and the campaign's own process; `fleetlearn up` starts it again."""
        for child in psutil.Process(self.processes.pid("cloud")).children():
            if "coordinator" in child.cmdline():
                for process in [child, *child.children(recursive=True)]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGKILL)

    def _start_cloud(self) -> None:
        cloud = self._folder / "cloud"
        arguments: list[str | Path] = ["up", "--data", cloud, "--address", self._address]
        self.processes.start("cloud", arguments, environment=self._environment)
        ca_file, token_file = cloud / "pki" / "ca.pem", cloud / "operator.token"
        self.processes.wait_until("a token", lambda: ca_file.exists() and token_file.exists(), timeout_s=60)
        token = token_file.read_text(encoding="utf-8").strip()
        self.client = CoordinatorClient(f"https://{self._address}:8444", token=token, ca_file=ca_file)
        self.processes.wait_until("a coordinator", self.is_up, timeout_s=60)

    def is_up(self) -> bool:
        with contextlib.suppress(FleetlearnError):
            self.client.send(calls.devices())
            return True
        return False

    def _online(self) -> int:
        return sum(device.is_online and bool(device.tasks) for device in self.client.send(calls.devices()))


def _tree_mb(pid: int) -> float:
    parts = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return float(sum(part.memory_info().rss for part in parts)) / 1e6
