"""Revocation and a lost hub, with the local hub as a process and a device connected over MQTT."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloud.devices.controller import HubAccessController
from cloud.domains import event_consumer
from cloud.events.batch import read_offset
from cloud.hubs.iothub import IotHubFleet
from edge_agent.hubs.iothub import IotHubDevice
from shared.hub.port import HubRefusedError
from tests.cloud.localhub.support import HubProcess, hub_process
from tests.support.coordinator import Machine, TestCoordinator, enrol, machine, open_coordinator
from tests.support.http import AppClient
from tests.support.signing_client import signed

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning"),  # of the SDK
]
ADDRESS = "127.0.0.53"
WAIT_S = 20.0


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    with hub_process(tmp_path / "hub", ADDRESS) as running:
        yield running


@pytest.fixture
def coordinator(tmp_path: Path, hub: HubProcess) -> Iterator[TestCoordinator]:
    found = open_coordinator(tmp_path / "cloud")
    fleet = IotHubFleet(hub.connection_string(), ca_file=hub.authority.ca_file)
    yield replace(found, services=replace(found.services, hub=fleet))
    found.engine.dispose()


def device_of(hub: HubProcess, device: Machine) -> IotHubDevice:
    credential = hub.authority.issue(device.device_id)
    return IotHubDevice(
        hostname=hub.hostname,
        device_id=device.device_id,
        certificate_file=credential.certificate_file,
        key_file=credential.key_file,
        ca_pem=hub.authority.ca_pem,
    )


def test_a_revoked_device_loses_its_connection_and_https_together(
    coordinator: TestCoordinator, hub: HubProcess
) -> None:
    machine_ = machine()
    device = device_of(hub, machine_)

    async def is_thrown_out() -> None:
        await asyncio.wait_for(device.wait_closed(), WAIT_S)
        with pytest.raises(HubRefusedError):
            await device.connect()
        await device.close()

    with coordinator.client() as client:
        enrol(client, coordinator, machine_)
        client.call(device.connect)
        assert signed(client, machine_, "GET", "/v1/device/work").status_code == 200

        answer = client.delete(f"/v1/devices/{machine_.device_id}", headers=coordinator.operator)

        assert answer.status_code == 204
        client.call(is_thrown_out)
        assert signed(client, machine_, "GET", "/v1/device/work").status_code == 403
        client.call(coordinator.services.hub.close)


def test_a_hub_that_lost_its_data_is_told_again_and_its_new_log_is_read(
    coordinator: TestCoordinator, hub: HubProcess
) -> None:
    machine_ = machine()
    with coordinator.client() as client:
        enrol(client, coordinator, machine_)
        _send_and_read(client, coordinator, device_of(hub, machine_))
        assert _offset(coordinator) == 1

        _lose_events_and_devices(hub)
        client.call(event_consumer(coordinator.services).run_once)
        assert _offset(coordinator) == 0
        assert client.call(HubAccessController(coordinator.services).step) == ""

        _send_and_read(client, coordinator, device_of(hub, machine_))
        assert _offset(coordinator) == 1
        client.call(coordinator.services.hub.close)


def _lose_events_and_devices(hub: HubProcess) -> None:
    """The folder is lost but for its policies, which the coordinator's connection string names."""
    hub.kill()
    for path in hub.data_dir.iterdir():
        if "sqlite" in path.name or path.suffix in (".db", ".db-wal", ".db-shm"):
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
    hub.start()


def _send_and_read(client: AppClient, coordinator: TestCoordinator, device: IotHubDevice) -> None:
    async def story() -> None:
        await device.connect()
        await device.send_event(b"{}")
        await device.close()
        await event_consumer(coordinator.services).run_once(wait_s=5)

    client.call(story)


def _offset(coordinator: TestCoordinator) -> int:
    with coordinator.services.sessions() as session, session.begin():
        return read_offset(session)
