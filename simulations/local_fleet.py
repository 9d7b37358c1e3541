"""A whole fleet in real processes on one loopback address: hub, coordinator and agents, as their users start them.

    with LocalFleet(folder, address="127.0.0.9", task=load_task("digits")) as fleet:
        fleet.enrol("press-01", number=0)
        fleet.client.send(calls.devices())

The bench of rounds runs on one, and the tests that kill processes.
"""

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from fleet import calls
from fleet.client import CoordinatorClient
from fleet.waiting import Patience, wait_for_job
from shared.api.enrolment import TokenCreate
from shared.api.jobs import TrainingCreate
from shared.api.models import ModelVersion
from shared.errors import FleetlearnError
from shared.tasks.task import Task
from simulations.demo.processes import ProcessEndedError, Processes, run_once

PATIENCE = Patience(timeout_s=300, away_s_max=60, poll_s=0.1)
_ANSWER_S = 60.0
"""For one answer: a first campaign loads a task and plans its noise, on a machine that does much else."""
_START_S = 60.0
"""For one process to be of use."""


class LocalFleet:
    """Starts hub and coordinator on entry, agents with `enrol`; stops everything on exit.

    Args:
        folder: Of everything.
        address: A loopback address that nobody else uses: the hub's port is fixed.
        task: Whose data the devices hold.
        environment: Variables of the cloud's processes, besides our own.
        agent_environment: The same of the agents'.
    """

    def __init__(
        self,
        folder: Path,
        *,
        address: str,
        task: Task,
        environment: Mapping[str, str] | None = None,
        agent_environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.task = task
        self.cloud_dir = folder / "cloud"
        self.processes = Processes(log_dir=folder / "logs")
        self._address = address
        self._environment = environment
        self._agent_environment = agent_environment

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

    def is_up(self) -> bool:
        """Whether the coordinator answers."""
        with contextlib.suppress(FleetlearnError):
            self.client.send(calls.devices())
            return True
        return False

    def device_dir(self, device_id: str) -> Path:
        """Where the device keeps `state` and `data`."""
        return self.folder / "devices" / device_id

    def enrol(self, device_id: str, *, number: int, options: Sequence[str | Path] = ()) -> None:
        """Gives a device data and a certificate, and starts its agent.

        Args:
            device_id: A new one.
            number: Of the task's slice that it holds, counted on from the first one after the last.
            options: Of `agent run`.
        """
        slices = list(self.task.device_slices())
        self.task.write_device_data(self.device_dir(device_id) / "data", (slices[number % len(slices)],))
        token = self.client.send(calls.create_token(TokenCreate(device_id=device_id))).token
        state_dir = self.device_dir(device_id) / "state"
        arguments: list[str | Path] = ["agent", "enrol", "--state", state_dir, "--device-id", device_id]
        run_once([*arguments, "--token", token], timeout_s=_START_S)
        self.start_agent(device_id, options=options)

    def start_agent(self, device_id: str, *, options: Sequence[str | Path] = ()) -> None:
        """Starts an enrolled device's agent, with these options of `agent run`."""
        folder = self.device_dir(device_id)
        places: list[str | Path] = ["--state", folder / "state", "--data", folder / "data", "--serve-port", "0"]
        self.processes.start(device_id, ["agent", "run", *places, *options], environment=self._agent_environment)

    def train_base(self, task: str | None = None, *, seed: int = 0) -> ModelVersion:
        """A starting model, of the fleet's own task where no other is named."""
        job = self.client.send(calls.start_training(TrainingCreate(task=task or self.task.name, seed=seed)))
        done = wait_for_job(self.client, job.job_id, patience=PATIENCE)
        return self.client.send(calls.model(done.result["model_version_id"]))

    def kill_agent(self, device_id: str) -> None:
        """Kills (-9) the agent and, as a power cut would, its training process."""
        _kill_tree(self.processes.pid(device_id))
        self.processes.forget(device_id)

    def kill_cloud_child(self, word: str) -> None:
        """Kills (-9) the child of `up` whose command line has this word, and what it started; `up` starts it again."""
        if not any(_kill_if_named(child, word) for child in self._cloud().children()):
            raise ProcessEndedError(f"Expected a child of `up` with {word!r} in its command line, found none")

    def kill_campaign_workers(self) -> None:
        """Kills (-9) the processes that run jobs, and nothing else; the coordinator starts them again."""
        for child in self._cloud().children(recursive=True):
            _kill_if_named(child, "cloud.jobs.worker")

    def _start_cloud(self) -> None:
        arguments: list[str | Path] = ["up", "--data", self.cloud_dir, "--address", self._address]
        self.processes.start("cloud", arguments, environment=self._environment)
        ca_file, token_file = self.cloud_dir / "pki" / "ca.pem", self.cloud_dir / "operator.token"
        self.processes.wait_until("a token", lambda: ca_file.exists() and token_file.exists(), timeout_s=_START_S)
        token = token_file.read_text(encoding="utf-8").strip()
        url = f"https://{self._address}:8444"
        self.client = CoordinatorClient(url, token=token, ca_file=ca_file, timeout_s=_ANSWER_S)
        self.processes.wait_until("a coordinator", self.is_up, timeout_s=_START_S)

    def _cloud(self) -> psutil.Process:
        return psutil.Process(self.processes.pid("cloud"))


def _kill_if_named(process: psutil.Process, word: str) -> bool:
    """Kills a process with this word in its command line, if it has not ended meanwhile; returns whether it has."""
    with contextlib.suppress(psutil.NoSuchProcess):
        if word in process.cmdline():
            _kill_tree(process.pid)
            return True
    return False


def _kill_tree(pid: int) -> None:
    root = psutil.Process(pid)
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
