"""A fleet in real processes as tests use one: quick to report, asked about its devices, and released to."""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fleet import calls
from fleet.signing import sign_targets
from fleet.waiting import Patience, wait_for_job
from shared.api.devices import Device
from shared.api.releases import Release, ReleaseCreate, SignedTargets
from shared.errors import FleetlearnError
from shared.tasks.registry import load_task
from simulations.local_fleet import LocalFleet
from tests.support.waiting import wait_until

PATIENCE = Patience(timeout_s=150, away_s_max=60, poll_s=0.2)


class Fleet(LocalFleet):
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
        super().__init__(folder, address=address, task=load_task(task), environment=environment)
        self._agent_options = agent_options
        self._numbers: dict[str, int] = {}

    def enrol(self, device_id: str, *, number: int, options: Sequence[str | Path] = ()) -> None:
        """Enrols a device, starts its agent, with more options where any are given, and waits until it is online."""
        self._numbers[device_id] = number
        super().enrol(device_id, number=number, options=options)
        self.wait_until(f"{device_id} online", lambda: self.device(device_id).is_online, timeout_s=60)

    def start_agent(self, device_id: str, *, options: Sequence[str | Path] = ()) -> None:
        """Starts a device's agent, which reports every other second."""
        pace = ["--heartbeat-s", "2", "--report-window-s", "2"]
        super().start_agent(device_id, options=[*pace, *self._agent_options(self._numbers[device_id]), *options])

    def device(self, device_id: str) -> Device:
        return self.client.send(calls.device(device_id))

    def serving_url(self, device_id: str) -> str:
        return str(json.loads((self.device_dir(device_id) / "state" / "serving.json").read_text())["url"])

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
