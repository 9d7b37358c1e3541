"""The hub lets in who has access and nobody else, however long it was away and whatever it forgot."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloud.devices.controller import HubAccessController
from cloud.devices.models import DeviceRecord
from cloud.domains import event_consumer
from cloud.events.batch import read_offset
from shared.hub.memory import MemoryFleet, MemoryHub
from shared.hub.port import HubUnavailableError, UnknownDeviceError
from shared.ids import DeviceId
from tests.support.coordinator import Machine, TestCoordinator, enrol, machine, open_coordinator
from tests.support.signing_client import signed


class SometimesAway(MemoryFleet):
    """A hub that can be away."""

    is_away = False

    async def remove_device(self, device_id: DeviceId) -> None:
        if self.is_away:
            raise HubUnavailableError("Expected the hub, got nothing")
        await super().remove_device(device_id)


@pytest.fixture
def coordinator(tmp_path: Path, database_url: str) -> Iterator[TestCoordinator]:
    found = open_coordinator(tmp_path, database_url=database_url)
    yield replace(found, services=replace(found.services, hub=SometimesAway(found.memory)))
    found.engine.dispose()


def knows(memory: MemoryHub, device: Machine) -> bool:
    try:
        asyncio.run(memory.fleet().get_twin(device.device_id))
    except UnknownDeviceError:
        return False
    return True


def step(coordinator: TestCoordinator) -> str:
    return asyncio.run(HubAccessController(coordinator.services).step())


def row(coordinator: TestCoordinator, device: Machine) -> DeviceRecord:
    with coordinator.services.sessions() as session, session.begin():
        return session.get_one(DeviceRecord, device.device_id)


def test_a_revocation_while_the_hub_is_away_closes_https_at_once_and_the_hub_later(
    coordinator: TestCoordinator,
) -> None:
    device, hub = machine(), coordinator.services.hub
    assert isinstance(hub, SometimesAway)
    with coordinator.client() as client:
        enrol(client, coordinator, device)
        hub.is_away = True
        path = f"/v1/devices/{device.device_id}"
        assert client.delete(path, headers=coordinator.operator).status_code == 204
        assert signed(client, device, "GET", "/v1/device/work").status_code == 403
        shown = client.get(path, headers=coordinator.operator).json()
    assert shown["why_not_at_target"] == "revoked; the hub was not told yet"
    assert knows(coordinator.memory, device)
    assert "could not be told of 1 device" in step(coordinator)

    hub.is_away = False

    assert step(coordinator) == ""
    assert not knows(coordinator.memory, device)
    assert row(coordinator, device).is_in_hub is False


def test_nothing_is_told_twice(coordinator: TestCoordinator) -> None:
    with coordinator.client() as client:
        enrol(client, coordinator, machine())
    hub = coordinator.services.hub
    assert isinstance(hub, SometimesAway)
    hub.is_away = True
    assert step(coordinator) == ""  # it would say what is wrong


def test_a_hub_that_lost_its_data_hears_again_who_may_connect(coordinator: TestCoordinator) -> None:
    kept, revoked = machine("kept"), machine("revoked")
    with coordinator.client() as client:
        for device in (kept, revoked):
            enrol(client, coordinator, device)
        client.delete("/v1/devices/revoked", headers=coordinator.operator)
    _send_and_read(coordinator, coordinator.memory, kept)
    assert _offset(coordinator) == 1

    empty = MemoryHub(random.Random(2))
    after = replace(coordinator, memory=empty, services=replace(coordinator.services, hub=SometimesAway(empty)))
    asyncio.run(event_consumer(after.services).run_once())
    assert _offset(after) == 0
    assert step(after) == ""

    assert knows(empty, kept)
    assert not knows(empty, revoked)
    _send_and_read(after, empty, kept)
    assert _offset(after) == 1


def _send_and_read(coordinator: TestCoordinator, memory: MemoryHub, device: Machine) -> None:
    async def story() -> None:
        hub = memory.device(device.device_id)
        await hub.connect()
        await hub.send_event(b"{}")
        await hub.close()
        await event_consumer(coordinator.services).run_once()

    asyncio.run(story())


def _offset(coordinator: TestCoordinator) -> int:
    with coordinator.services.sessions() as session, session.begin():
        return read_offset(session)
