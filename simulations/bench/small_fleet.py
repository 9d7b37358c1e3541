"""The fleet that rounds are measured on: as many devices as asked for, and how much memory each takes."""

from collections.abc import Mapping
from pathlib import Path

import psutil

from fleet import calls
from shared.tasks.digits import TASK
from simulations.local_fleet import LocalFleet


class SmallFleet(LocalFleet):
    """A fleet that grows. Of its devices' data only the size matters; what they learn is the bench's own task.

    Args:
        folder: Of everything.
        address: A loopback address that nobody else uses.
        environment: Of all its processes, besides our own.
    """

    def __init__(self, folder: Path, *, address: str, environment: Mapping[str, str]) -> None:
        super().__init__(folder, address=address, task=TASK, environment=environment, agent_environment=environment)
        self.devices: list[str] = []

    def grow(self, devices: int) -> None:
        """Enrols devices until there are this many, starts their agents, and waits until all are online."""
        for number in range(len(self.devices), devices):
            device_id = f"bench-{number}"
            self.enrol(device_id, number=number, options=["--allow-without-privacy", "--heartbeat-s", "10"])
            self.devices.append(device_id)
        self.processes.wait_until(f"{devices} devices online", lambda: self._online() == devices, timeout_s=120)

    def resident_mb(self) -> float:
        """Resident memory of one agent and what it started, in MB (10^6 bytes): the median agent's."""
        sizes = sorted(_tree_mb(self.processes.pid(device)) for device in self.devices)
        return sizes[len(sizes) // 2]

    def _online(self) -> int:
        return sum(device.is_online and bool(device.tasks) for device in self.client.send(calls.devices()))


def _tree_mb(pid: int) -> float:
    parts = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return float(sum(part.memory_info().rss for part in parts)) / 1e6
