"""Several coordinators behind one broker: they take turns, and who only calls devices takes no turn."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.hubs.mqtt.fleet import MqttFleet
from cloud.hubs.mqtt.store import MqttStore
from shared.hub.port import CommandReply
from shared.ids import DeviceId
from tests.cloud.hubs.mqtt.world import world
from tests.cloud.localhub.support import Authority
from tests.support.mosquitto import Mosquitto, migrated_store, own_mosquitto

pytestmark = pytest.mark.processes
DEVICE = DeviceId("press-07")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mosquitto, Authority, MqttStore]]:
    folder: Path = tmp_path_factory.mktemp("replicas")
    with own_mosquitto(folder, "127.0.0.66") as (broker, authority):
        yield broker, authority, migrated_store(folder)


async def _answer(name: str, _payload: object) -> CommandReply:
    return CommandReply(200, name)


def test_two_coordinators_share_what_devices_send_and_each_gets_its_own_replies(
    parts: tuple[Mosquitto, Authority, MqttStore],
) -> None:
    async def story() -> None:
        async with world(*parts) as here:
            fleets = [here.fleet(replica=name, group="nobody-knows") for name in ("one", "two")]
            for fleet in fleets:
                await fleet.add_device(DEVICE)
                await fleet.read_events(0, limit=1, wait_s=0)
            device = here.device(DEVICE)
            device.on_command(_answer)
            await device.connect()
            await asyncio.gather(*(device.send_event(b"%d" % number) for number in range(100)))
            events = [event.payload for event in await here.events()]
            assert sorted(events, key=int) == [b"%d" % number for number in range(100)]
            assert all(served(fleet) > 10 for fleet in fleets)
            replies = [await fleet.command(DEVICE, "work", None, timeout_s=10) for fleet in fleets]
            assert [reply.payload for reply in replies] == ["work", "work"]
            await fleets[0].close()
            await asyncio.gather(*(device.send_event(b"more") for _ in range(20)))  # the other takes every turn
            await device.close()

    asyncio.run(story())


def test_a_process_without_a_desk_calls_devices_and_answers_none(parts: tuple[Mosquitto, Authority, MqttStore]) -> None:
    async def story() -> None:
        async with world(*parts) as here:
            coordinator, caller = here.fleet(), here.fleet(replica="")
            await coordinator.add_device(DEVICE)
            device = here.device(DEVICE)
            device.on_command(_answer)
            await device.connect()
            assert (await caller.command(DEVICE, "work", None, timeout_s=10)).status == 200
            await asyncio.gather(*(device.send_event(b"x") for _ in range(50)))  # none goes to the caller, unanswered
            version = await caller.set_desired(DEVICE, {"a": 1})
            assert (await anext(device.desired_changes())).version == version
            await device.close()

    asyncio.run(story())


def served(fleet: MqttFleet) -> int:
    """Requests that this coordinator answered."""
    assert fleet._desk is not None
    return fleet._desk.answered
