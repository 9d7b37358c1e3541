"""A broker that keeps nothing is killed with -9 under load, and so is the coordinator: nothing acknowledged is lost."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy.exc import DataError
from structlog.testing import capture_logs

from cloud.hubs.mqtt.fleet import MqttFleet
from cloud.hubs.mqtt.store import Answer, MqttStore, Request
from edge_agent.hub_link import HubLink
from edge_agent.signals import Signal
from edge_agent.telemetry.spool import Outbox
from shared.backoff import Backoff
from shared.hub.port import HubRefusedError
from shared.ids import DeviceId
from shared.messages.events import EventKind
from tests.cloud.hubs.mqtt.world import World, world
from tests.cloud.localhub.support import Authority
from tests.support.mosquitto import Mosquitto, migrated_store, own_mosquitto

pytestmark = pytest.mark.processes
_PATIENCE_S = 60.0
DEVICES = 4
EVENTS = 60


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[tuple[Mosquitto, Authority, MqttStore]]:
    with own_mosquitto(tmp_path, "127.0.0.63") as (broker, authority):
        yield broker, authority, migrated_store(tmp_path)


class Agent:
    """A device's link and outbox as the agent keeps them up, with its back-off."""

    def __init__(self, here: World, device_id: str, folder: Path) -> None:
        self.device_id = DeviceId(device_id)
        self.outbox = Outbox.open(folder / f"{device_id}.sqlite")
        self.signals: list[Signal] = []
        device = here.device(device_id, connect_timeout_s=20)
        self.link = HubLink(device, self.outbox, emit=self._take, clock=asyncio.get_running_loop().time)
        self.task = asyncio.create_task(self._keep_up())

    async def _take(self, signal: Signal) -> None:
        self.signals.append(signal)

    async def _keep_up(self) -> None:
        backoff, rng = Backoff(base_s=0.1, cap_s=1.0), random.Random(self.device_id)
        for attempt in range(10_000):
            await self.link.connect_once()
            await asyncio.sleep(backoff.delay_s(min(attempt, 4), rng))

    async def say(self, text: str) -> None:
        await asyncio.to_thread(self.outbox.add, EventKind.SERVING_REPORT, text.encode())
        self.link.wake()

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.outbox.close()


async def enrolled_agents(here: World, fleet: MqttFleet, folder: Path) -> list[Agent]:
    agents = [Agent(here, f"press-{number}", folder) for number in range(DEVICES)]
    for agent in agents:
        await fleet.add_device(agent.device_id)
    return agents


async def until_sent(agents: list[Agent]) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while any(len(agent.outbox) for agent in agents):  # noqa: ASYNC110  # the outbox has no event of its own
            await asyncio.sleep(0.02)


async def speak(agents: list[Agent], first: int, count: int) -> None:
    for number in range(first, first + count):
        for agent in agents:
            await agent.say(str(number))
        await asyncio.sleep(0.005)


def test_the_broker_dies_twice_under_load_and_every_event_arrives_and_every_device_comes_back(
    parts: tuple[Mosquitto, Authority, MqttStore], tmp_path: Path
) -> None:
    async def story() -> None:
        async with world(*parts) as here:
            fleet = here.fleet()
            agents = await enrolled_agents(here, fleet, tmp_path)
            for part in range(3):
                await speak(agents, part * EVENTS // 3, EVENTS // 3)
                if part < 2:
                    here.broker.kill()
                    await speak(agents, 1000 + part, 1)
                    here.broker.start()
            await until_sent(agents)
            expected = {*map(str, range(EVENTS)), "1000", "1001"}
            for agent in agents:
                got = [event.payload.decode() for event in await here.events() if event.device_id == agent.device_id]
                assert set(got) == expected
                assert list(dict.fromkeys(got)) == sorted(expected, key=got.index)
                await agent.close()

    with capture_logs() as logs:
        asyncio.run(story())
    said = [line["event"] for line in logs if line["event"].startswith("broker_")]
    assert said == ["broker_connected", *["broker_connection_lost", "broker_connected"] * 2]


def test_the_coordinator_dies_with_requests_in_its_hands_and_its_successor_answers_them(
    parts: tuple[Mosquitto, Authority, MqttStore], tmp_path: Path
) -> None:
    async def story() -> None:
        async with world(*parts) as here:
            first = here.fleet()
            agents = await enrolled_agents(here, first, tmp_path)
            await speak(agents, 0, 10)
            die(here)
            await speak(agents, 10, 10)
            second = here.fleet()
            await second.read_events(0, limit=1, wait_s=0)
            await until_sent(agents)
            for agent in agents:
                got = {event.payload.decode() for event in await here.events() if event.device_id == agent.device_id}
                assert got == {*map(str, range(20))}
                await agent.close()

    asyncio.run(story())


def die(here: World) -> None:
    """As a kill would: the coordinator's connection is cut and its tasks are gone, in the middle of whatever."""
    fleet = here.open.pop()
    if fleet._line._connection is not None:
        fleet._line._connection.end()
    fleet._line._task.cancel()
    assert fleet._serving is not None
    fleet._serving.cancel()


def test_a_document_written_while_the_broker_is_away_reaches_the_device(
    parts: tuple[Mosquitto, Authority, MqttStore], tmp_path: Path
) -> None:
    async def story() -> None:
        async with world(*parts) as here:
            fleet, agent = here.fleet(), Agent(here, "press-1", tmp_path)
            await fleet.add_device(agent.device_id)
            await agent.say("hello")
            await until_sent([agent])
            here.broker.kill()
            version = await fleet.set_desired(agent.device_id, {"release": {"generation": 1}})
            here.broker.start()
            async with asyncio.timeout(_PATIENCE_S):
                while version not in [getattr(signal, "version", 0) for signal in agent.signals]:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            await agent.close()

    asyncio.run(story())


def test_a_document_that_a_dead_coordinator_told_nobody_of_is_made_up_for_by_the_next(
    parts: tuple[Mosquitto, Authority, MqttStore], tmp_path: Path
) -> None:
    async def story() -> None:
        async with world(*parts) as here:
            fleet, agent = here.fleet(), Agent(here, "press-1", tmp_path)
            await fleet.add_device(agent.device_id)
            await agent.say("hello")
            await until_sent([agent])
            die(here)
            version = await asyncio.to_thread(here.store.set_desired, agent.device_id, {"release": {"generation": 1}})
            await here.fleet().read_events(0, limit=1, wait_s=0)
            async with asyncio.timeout(_PATIENCE_S):
                while version not in [getattr(signal, "version", 0) for signal in agent.signals]:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            await agent.close()

    asyncio.run(story())


def test_one_request_that_the_database_does_not_take_holds_up_no_other(
    parts: tuple[Mosquitto, Authority, MqttStore],
) -> None:
    class Picky(MqttStore):
        """The database refuses a value, as some do; which one is not known beforehand."""

        def answer(self, requests: Sequence[Request]) -> list[Answer]:
            if any(request.payload == b"indigestible" for request in requests):
                raise DataError("INSERT", {}, Exception("a value that is none"))
            return super().answer(requests)

    broker, authority, store = parts

    async def story() -> None:
        async with world(broker, authority, Picky(store._sessions, now=lambda: 1.0)) as here:
            fleet, device = here.fleet(), here.device("press-1")
            await fleet.add_device(DeviceId("press-1"))
            await device.connect()
            payloads = [b"a", b"indigestible", b"b", b"c"]
            outcomes = await asyncio.gather(*map(device.send_event, payloads), return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [type(None), HubRefusedError, type(None), type(None)]
            assert {event.payload for event in await here.events()} == {b"a", b"b", b"c"}
            await device.close()

    asyncio.run(story())
