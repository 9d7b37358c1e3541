"""A whole fleet in real processes on one loopback address: hub, coordinator, agents; killed and started at will."""

import contextlib
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from fleet import calls
from fleet.client import CoordinatorClient
from fleet.signing import sign_targets
from fleet.waiting import Patience, wait_for_job
from shared.api.devices import Device
from shared.api.enrolment import TokenCreate
from shared.api.jobs import TrainingCreate
from shared.api.models import ModelVersion
from shared.api.releases import Release, ReleaseCreate, SignedTargets
from shared.errors import FleetlearnError
from shared.tasks.registry import load_task
from simulations.demo.processes import Processes, run_once
from tests.support.waiting import wait_until

ANSWER_S = 60.0
"""For one answer: a first campaign loads a task and plans its noise, on a machine that does much else."""
PATIENCE = Patience(timeout_s=150, away_s_max=60, poll_s=0.2)


class Fleet:
    """Starts on entry, stops everything on exit. Device `number` holds the task's slice of that number.

    Args:
        folder: Of everything.
        address: A loopback address that nobody else uses.
        task: What is learned.
        environment: Settings of the cloud side, as environment variables.
        agent_options: Further options of each agent, by the device's number.
    """

    def __init__(
        self,
        folder: Path,
        *,
        address: str,
        task: str = "digits",
        environment: Mapping[str, str] | None = None,
        agent_options: Callable[[int], Sequence[str | Path]] = lambda number: (),
    ) -> None:
        self.folder = folder
        self.address = address
        self.environment = environment
        self._agent_options = agent_options
        self._numbers: dict[str, int] = {}
        self.task = load_task(task)
        self.processes = Processes(log_dir=folder / "logs")
        self.cloud_dir = folder / "cloud"

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

    def enrol(self, device_id: str, *, number: int, options: Sequence[str | Path] = ()) -> None:
        """Enrols a device and starts its agent, with more options where any are given."""
        self._numbers[device_id] = number
        slices = list(self.task.device_slices())
        self.task.write_device_data(self.device_dir(device_id) / "data", (slices[number],))
        token = self.client.send(calls.create_token(TokenCreate(device_id=device_id))).token
        state_dir = self.device_dir(device_id) / "state"
        run_once(
            ["agent", "enrol", "--state", state_dir, "--device-id", device_id, "--token", token],
            timeout_s=60,
        )
        self.start_agent(device_id, options=options)
        self.wait_until(f"{device_id} online", lambda: self.device(device_id).is_online, timeout_s=60)

    def start_agent(self, device_id: str, *, options: Sequence[str | Path] = ()) -> None:
        folder = self.device_dir(device_id)
        folders: list[str | Path] = ["--state", folder / "state", "--data", folder / "data"]
        pace = ["--heartbeat-s", "2", "--report-window-s", "2"]
        own = [*self._agent_options(self._numbers[device_id]), *options]
        self.processes.start(device_id, ["agent", "run", *folders, "--serve-port", "0", *pace, *own])

    def device_dir(self, device_id: str) -> Path:
        return self.folder / "devices" / device_id

    def device(self, device_id: str) -> Device:
        return self.client.send(calls.device(device_id))

    def serving_url(self, device_id: str) -> str:
        return str(json.loads((self.device_dir(device_id) / "state" / "serving.json").read_text())["url"])

    def kill_agent(self, device_id: str) -> None:
        """kill -9 of the agent and, as a power cut would, of its training process."""
        self._kill_tree(self.processes.pid(device_id))
        self.processes.forget(device_id)

    def kill_cloud_child(self, word: str) -> None:
        """kill -9 of `up`'s child whose command line has this word, and of what that child started."""
        for child in psutil.Process(self.processes.pid("cloud")).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if word in child.cmdline():
                    self._kill_tree(child.pid)
                    return
        raise AssertionError(f"up has no child with {word!r} in its command line")

    def kill_campaign_workers(self) -> None:
        """kill -9 of the processes that run jobs, and of nothing else; the coordinator starts them again."""
        for child in psutil.Process(self.processes.pid("cloud")).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "cloud.jobs.worker" in child.cmdline():
                    self._kill_tree(child.pid)

    def train_base(self, *, seed: int = 0) -> ModelVersion:
        job = self.client.send(calls.start_training(TrainingCreate(task=self.task.name, seed=seed)))
        done = wait_for_job(self.client, job.job_id, patience=PATIENCE)
        return self.client.send(calls.model(done.result["model_version_id"]))

    def publish(self, model_version_id: str) -> Release:
        job = self.client.send(calls.package_release(ReleaseCreate(model_version_id=model_version_id)))
        release_id = wait_for_job(self.client, job.job_id, patience=PATIENCE).result["release_id"]
        request = self.client.send(calls.request_signing(release_id))
        key_file = self.cloud_dir / "offline-keys" / "targets.pem"
        signed = sign_targets(request.targets_metadata, targets_key_file=key_file)
        return self.client.send(calls.publish_release(release_id, SignedTargets(targets_metadata=signed)))

    def wait_until(self, what: str, is_true: Callable[[], bool], *, timeout_s: float) -> None:
        """Polls through the coordinator's restarts; fails with the devices' own words."""

        def holds() -> bool:
            with contextlib.suppress(FleetlearnError):
                return is_true()
            return False

        def otherwise() -> str:
            states = [(d.device_id, d.release_state, d.why_not_at_target) for d in self.client.send(calls.devices())]
            return f"expected {what} within {timeout_s} s; devices: {states}; logs: {self.folder / 'logs'}"

        wait_until(holds, timeout_s=timeout_s, otherwise=otherwise)

    def _start_cloud(self) -> None:
        arguments: list[str | Path] = ["up", "--data", self.cloud_dir, "--address", self.address]
        self.processes.start("cloud", arguments, environment=self.environment)
        ca_file, token_file = self.cloud_dir / "pki" / "ca.pem", self.cloud_dir / "operator.token"
        self.processes.wait_until("a token", lambda: ca_file.exists() and token_file.exists(), timeout_s=60)
        token = token_file.read_text().strip()
        url = f"https://{self.address}:8444"
        self.client = CoordinatorClient(url, token=token, ca_file=ca_file, timeout_s=ANSWER_S)
        self.processes.wait_until("a coordinator", self._is_up, timeout_s=60)

    def _is_up(self) -> bool:
        with contextlib.suppress(FleetlearnError):
            self.client.send(calls.devices())
            return True
        return False

    @staticmethod
    def _kill_tree(pid: int) -> None:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
