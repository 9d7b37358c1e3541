"""The faults of the hub in memory: they happen, they are seeded, and they stay within what the port allows."""

import asyncio
import random

from shared.hub.memory import Faults, MemoryHub
from shared.hub.port import HubUnavailableError
from shared.ids import DeviceId

_DEVICE = DeviceId("press-07")


async def _send_all(hub: MemoryHub, count: int) -> list[bytes]:
    """Sends each event until it is acknowledged; the payloads in the log, in its order."""
    fleet, device = hub.fleet(), hub.device(_DEVICE)
    await _persistently(lambda: fleet.add_device(_DEVICE))
    for number in range(count):
        while True:
            try:
                await device.send_event(b"%d" % number)
                break
            except HubUnavailableError:
                await _persistently(device.connect)
    return await _read(hub)


async def _persistently(call) -> None:  # type: ignore[no-untyped-def]  # any coroutine function
    for _ in range(1000):
        try:
            await call()
            return
        except HubUnavailableError:
            continue
    raise AssertionError("never got through")


async def _read(hub: MemoryHub) -> list[bytes]:
    for _ in range(1000):
        try:
            return [event.payload for event in await hub.fleet().read_events(0, limit=10_000, wait_s=0)]
        except HubUnavailableError:
            continue
    raise AssertionError("never got through")


def test_without_faults_every_event_comes_once_in_order() -> None:
    events = asyncio.run(_send_all(MemoryHub(random.Random(1)), 50))
    assert events == [b"%d" % number for number in range(50)]


def test_with_every_fault_no_acknowledged_event_is_lost() -> None:
    faults = Faults(loss=0.3, duplication=0.3, reordering=0.3)
    events = asyncio.run(_send_all(MemoryHub(random.Random(2), faults), 200))
    assert set(events) == {b"%d" % number for number in range(200)}
    assert len(events) > 200
    assert events != sorted(events, key=int)


def test_the_same_seed_gives_the_same_history() -> None:
    faults = Faults(loss=0.2, duplication=0.2, reordering=0.2)
    histories = [asyncio.run(_send_all(MemoryHub(random.Random(seed), faults), 50)) for seed in (3, 3, 4)]
    assert histories[0] == histories[1] != histories[2]


def test_a_lost_answer_may_have_taken_effect() -> None:
    async def story() -> tuple[int, int]:
        hub = MemoryHub(random.Random(5), Faults(loss=0.5))
        fleet, failed = hub.fleet(), 0
        await _persistently(lambda: fleet.add_device(_DEVICE))
        for number in range(100):
            try:
                await fleet.set_desired(_DEVICE, {"n": number})
            except HubUnavailableError:
                failed += 1
        await _persistently(lambda: fleet.get_twin(_DEVICE))
        return failed, hub._devices[_DEVICE].desired.version - 1

    failed, applied = asyncio.run(story())
    assert 100 - failed < applied < 100


def test_a_restart_of_the_hub_drops_connections_and_keeps_events_and_documents() -> None:
    async def story() -> None:
        hub = MemoryHub(random.Random(6))
        fleet, device = hub.fleet(), hub.device(_DEVICE)
        await fleet.add_device(_DEVICE)
        await device.connect()
        await device.send_event(b"before")
        await fleet.set_desired(_DEVICE, {"a": 1})
        hub.restart()
        await asyncio.wait_for(device.wait_closed(), 1)
        await device.connect()
        assert (await device.get_twin()).desired.document == {"a": 1}
        assert await _read(hub) == [b"before"]

    asyncio.run(story())
