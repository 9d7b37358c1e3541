"""What every hub promises, asked of the hub in memory, of the local hub, and of a Mosquitto, with the real adapters."""

import asyncio
import itertools
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cloud.hubs.iothub import IotHubFleet
from cloud.hubs.mqtt.fleet import MqttFleet
from cloud.hubs.mqtt.store import MqttStore
from edge_agent.hubs.iothub import IotHubDevice
from edge_agent.hubs.mqtt import MqttDevice
from shared.hub.memory import MemoryHub
from shared.hub.mqtt import connection
from shared.hub.port import (
    COMMAND_BYTES_MAX,
    DOCUMENT_BYTES_MAX,
    EVENT_BYTES_MAX,
    CommandReply,
    DeviceHub,
    DeviceOfflineError,
    Event,
    FleetHub,
    HubRefusedError,
    HubUnavailableError,
    UnknownDeviceError,
    Versioned,
)
from shared.ids import DeviceId
from tests.cloud.localhub.support import Authority, HubProcess, hub_process
from tests.support.mosquitto import Mosquitto, credential, migrated_store, own_mosquitto

_names = itertools.count(1)
_WAIT_S = 10.0


@dataclass
class World:
    """One hub, and what a story did with it."""

    fleet: FleetHub
    make_device: Callable[[DeviceId], DeviceHub]
    devices: list[DeviceHub] = field(default_factory=list)

    async def enrolled(self) -> tuple[DeviceId, DeviceHub]:
        device_id = DeviceId(f"press-{next(_names)}")
        await self.fleet.add_device(device_id)
        return device_id, self.device(device_id)

    def device(self, device_id: DeviceId) -> DeviceHub:
        self.devices.append(self.make_device(device_id))
        return self.devices[-1]

    async def events_of(self, device_id: DeviceId, *, count: int) -> list[Event]:
        """Reads the log from its start until it holds this many events of the device."""
        found: list[Event] = []
        after = 0
        async with asyncio.timeout(_WAIT_S):
            while len(found) < count:
                page = await self.fleet.read_events(after, limit=100, wait_s=1)
                found += [event for event in page if event.device_id == device_id]
                after = page[-1].offset if page else after
        return found

    async def close(self) -> None:
        for device in self.devices:
            await device.close()
        await self.fleet.close()


Story = Callable[[World], Awaitable[None]]


async def _answer(name: str, payload: Any) -> CommandReply:
    if name == "fail":
        raise RuntimeError("a mistake in the handler")
    if name == "silence":
        await asyncio.sleep(60)
    return CommandReply(202, {"name": name, "payload": payload})


class HubContract:
    """The promises; a subclass brings the hub."""

    def world(self) -> World:
        raise NotImplementedError

    def play(self, story: Story) -> None:
        async def run() -> None:
            world = self.world()
            try:
                async with asyncio.timeout(60):
                    await story(world)
            finally:
                await world.close()

        asyncio.run(run())

    def test_an_acknowledged_event_is_in_the_log_under_the_name_the_hub_authenticated(self) -> None:
        async def story(world: World) -> None:
            device_id, device = await world.enrolled()
            await device.connect()
            await device.send_event(b'{"device_id":"somebody-else"}')
            (event,) = await world.events_of(device_id, count=1)
            assert event.device_id == device_id
            assert event.payload == b'{"device_id":"somebody-else"}'
            assert event.offset >= 1
            assert event.enqueued_at > 0

        self.play(story)

    def test_events_of_a_device_come_in_order_and_reading_goes_on_after_any_offset(self) -> None:
        async def story(world: World) -> None:
            device_id, device = await world.enrolled()
            await device.connect()
            for number in range(5):
                await device.send_event(str(number).encode())
            events = await world.events_of(device_id, count=5)
            assert [event.payload for event in events] == [b"0", b"1", b"2", b"3", b"4"]
            rest = await world.fleet.read_events(events[2].offset, limit=100, wait_s=0)
            assert [event.payload for event in rest if event.device_id == device_id] == [b"3", b"4"]
            assert len(await world.fleet.read_events(0, limit=2, wait_s=0)) == 2

        self.play(story)

    def test_many_events_at_once_all_arrive(self) -> None:
        async def story(world: World) -> None:
            device_id, device = await world.enrolled()
            await device.connect()
            sent = {f"event {number}".encode() for number in range(100)}
            await asyncio.gather(*map(device.send_event, sent))
            assert {event.payload for event in await world.events_of(device_id, count=100)} == sent

        self.play(story)

    def test_reading_waits_for_the_first_event_and_not_longer_than_asked(self) -> None:
        async def story(world: World) -> None:
            _, device = await world.enrolled()
            await device.connect()
            after = 0
            while page := await world.fleet.read_events(after, limit=1000, wait_s=0):
                after = page[-1].offset
            assert await world.fleet.read_events(after, limit=10, wait_s=0.1) == []
            reading = asyncio.ensure_future(world.fleet.read_events(after, limit=10, wait_s=30))
            await device.send_event(b"wake up")
            (event,) = await asyncio.wait_for(reading, _WAIT_S)
            assert event.payload == b"wake up"

        self.play(story)

    def test_any_bytes_travel_up_to_the_limit_and_more_are_refused(self) -> None:
        async def story(world: World) -> None:
            device_id, device = await world.enrolled()
            await device.connect()
            payload = random.Random(1).randbytes(EVENT_BYTES_MAX - 1024)
            await device.send_event(payload)
            assert (await world.events_of(device_id, count=1))[0].payload == payload
            with pytest.raises(HubRefusedError):
                await device.send_event(bytes(EVENT_BYTES_MAX + 1))
            await device.send_event(b"still connected")

        self.play(story)

    def test_desired_changes_reach_a_connected_device_and_merge(self) -> None:
        async def story(world: World) -> None:
            device_id, device = await world.enrolled()
            await device.connect()
            before = (await device.get_twin()).desired
            assert before.document == {}
            async with aclosing(_closing(device.desired_changes())) as changes:
                first = await world.fleet.set_desired(device_id, {"release": {"id": "a", "wave": 1}, "old": True})
                second = await world.fleet.set_desired(device_id, {"release": {"wave": 2}, "old": None})
                assert await _next(changes) == Versioned({"release": {"id": "a", "wave": 1}, "old": True}, first)
                assert await _next(changes) == Versioned({"release": {"wave": 2}, "old": None}, second)
            assert before.version < first < second
            expected = Versioned({"release": {"id": "a", "wave": 2}}, second)
            assert (await device.get_twin()).desired == expected
            assert (await world.fleet.get_twin(device_id)).desired == expected

        self.play(story)

    def test_a_change_between_connect_and_the_first_look_is_not_missed(self) -> None:
        async def story(world: World) -> None:
            device_id, device = await world.enrolled()
            await device.connect()
            version = await world.fleet.set_desired(device_id, {"a": 1})
            await device.get_twin()
            async with aclosing(_closing(device.desired_changes())) as changes:
                assert await _next(changes) == Versioned({"a": 1}, version)

        self.play(story)

    def test_changes_while_offline_are_in_the_document_and_not_queued(self) -> None:
        async def story(world: World) -> None:
            device_id, device = await world.enrolled()
            await device.connect()
            await device.close()
            await world.fleet.set_desired(device_id, {"a": 1})
            await device.connect()
            assert (await device.get_twin()).desired.document == {"a": 1}
            version = await world.fleet.set_desired(device_id, {"b": 2})
            async with aclosing(_closing(device.desired_changes())) as changes:
                assert await _next(changes) == Versioned({"b": 2}, version)

        self.play(story)

    def test_reports_merge_and_the_cloud_sees_them(self) -> None:
        async def story(world: World) -> None:
            device_id, device = await world.enrolled()
            await device.connect()
            before = (await device.get_twin()).reported.version
            await device.report({"release": "a", "slots": {"a": "good", "b": "empty"}, "unicode": "Prüfstand ✓"})
            await device.report({"slots": {"b": None}, "release": "b"})
            reported = (await world.fleet.get_twin(device_id)).reported
            assert reported.document == {"release": "b", "slots": {"a": "good"}, "unicode": "Prüfstand ✓"}
            assert reported.version > before
            assert (await device.get_twin()).reported == reported

        self.play(story)

    def test_documents_beyond_the_limit_are_refused_and_leave_the_old_one(self) -> None:
        async def story(world: World) -> None:
            device_id, device = await world.enrolled()
            await device.connect()
            too_much = {f"key{number}": "x" * 1000 for number in range(DOCUMENT_BYTES_MAX // 1000 + 1)}
            with pytest.raises(HubRefusedError):
                await device.report(too_much)
            with pytest.raises(HubRefusedError):
                await world.fleet.set_desired(device_id, too_much)
            twin = await world.fleet.get_twin(device_id)
            assert (twin.desired.document, twin.reported.document) == ({}, {})
            await device.report({"still": "connected"})

        self.play(story)

    def test_a_command_is_answered_by_the_device_it_was_sent_to(self) -> None:
        async def story(world: World) -> None:
            (one_id, one), (other_id, other) = await world.enrolled(), await world.enrolled()
            called: list[str] = []

            async def refuse(name: str, payload: Any) -> CommandReply:
                called.append(name)
                return CommandReply(403, None)

            one.on_command(_answer)
            other.on_command(refuse)
            await one.connect()
            await other.connect()
            reply = await world.fleet.command(one_id, "sync", {"round": 3}, timeout_s=_WAIT_S)
            assert reply == CommandReply(202, {"name": "sync", "payload": {"round": 3}})
            assert called == []
            assert (await world.fleet.command(other_id, "sync", None, timeout_s=_WAIT_S)).status == 403
            assert (await world.fleet.command(one_id, "fail", None, timeout_s=_WAIT_S)).status == 500

        self.play(story)

    def test_a_command_to_a_device_that_is_away_or_silent_or_unknown_says_so(self) -> None:
        async def story(world: World) -> None:
            device_id, device = await world.enrolled()
            with pytest.raises(DeviceOfflineError):
                await world.fleet.command(device_id, "sync", None, timeout_s=_WAIT_S)
            device.on_command(_answer)
            await device.connect()
            with pytest.raises(DeviceOfflineError):
                await world.fleet.command(device_id, "silence", None, timeout_s=0.3)
            with pytest.raises(UnknownDeviceError):
                await world.fleet.command(DeviceId("nobody"), "sync", None, timeout_s=_WAIT_S)
            with pytest.raises(HubRefusedError):
                await world.fleet.command(device_id, "sync", "x" * COMMAND_BYTES_MAX, timeout_s=_WAIT_S)

        self.play(story)

    def test_an_unknown_device_cannot_connect_and_has_no_twin(self) -> None:
        async def story(world: World) -> None:
            stranger = DeviceId(f"stranger-{next(_names)}")
            with pytest.raises(HubRefusedError):
                await world.device(stranger).connect()
            with pytest.raises(UnknownDeviceError):
                await world.fleet.get_twin(stranger)
            with pytest.raises(UnknownDeviceError):
                await world.fleet.set_desired(stranger, {"a": 1})

        self.play(story)

    def test_removing_a_device_closes_its_connection_and_keeps_it_out(self) -> None:
        async def story(world: World) -> None:
            device_id, device = await world.enrolled()
            await device.connect()
            await world.fleet.remove_device(device_id)
            await world.fleet.remove_device(device_id)
            await asyncio.wait_for(device.wait_closed(), _WAIT_S)
            with pytest.raises(HubUnavailableError):
                await device.send_event(b"too late")
            with pytest.raises(HubRefusedError):
                await device.connect()

        self.play(story)

    def test_adding_a_device_twice_keeps_its_documents(self) -> None:
        async def story(world: World) -> None:
            device_id, _ = await world.enrolled()
            version = await world.fleet.set_desired(device_id, {"a": 1})
            await world.fleet.add_device(device_id)
            assert (await world.fleet.get_twin(device_id)).desired == Versioned({"a": 1}, version)

        self.play(story)

    def test_a_second_connection_of_a_name_closes_the_first(self) -> None:
        async def story(world: World) -> None:
            device_id, first = await world.enrolled()
            second = world.device(device_id)
            await first.connect()
            await second.connect()
            await asyncio.wait_for(first.wait_closed(), _WAIT_S)
            with pytest.raises(HubUnavailableError):
                await first.send_event(b"from the older")
            await second.send_event(b"from the newer")
            (event,) = await world.events_of(device_id, count=1)
            assert event.payload == b"from the newer"

        self.play(story)

    def test_changes_end_when_the_connection_ends(self) -> None:
        async def story(world: World) -> None:
            device_id, device = await world.enrolled()
            await device.connect()

            async def follow() -> int:
                return len([change async for change in device.desired_changes()])

            following = asyncio.ensure_future(follow())
            await asyncio.sleep(0)
            await world.fleet.remove_device(device_id)
            assert await asyncio.wait_for(following, _WAIT_S) == 0

        self.play(story)

    def test_closing_twice_or_before_connecting_does_no_harm(self) -> None:
        async def story(world: World) -> None:
            _, device = await world.enrolled()
            await device.close()
            with pytest.raises(HubUnavailableError):
                await device.get_twin()
            await device.connect()
            await device.close()
            await device.close()
            await device.connect()
            await device.send_event(b"again")

        self.play(story)


class TestMemoryHub(HubContract):
    def world(self) -> World:
        hub = MemoryHub(random.Random(1))
        return World(hub.fleet(), hub.device)


@pytest.mark.processes
@pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning")
class TestLocalHub(HubContract):
    hub: HubProcess

    @pytest.fixture(scope="class", autouse=True)
    def _hub(self, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[None]:
        folder: Path = tmp_path_factory.mktemp("hub")
        with hub_process(folder, "127.0.0.11") as hub:
            request.cls.hub = hub
            yield

    def world(self) -> World:
        return World(IotHubFleet(self.hub.connection_string(), ca_file=self.hub.authority.ca_file), self._device)

    def _device(self, device_id: DeviceId) -> DeviceHub:
        credential = self.hub.authority.issue(device_id)
        return IotHubDevice(
            hostname=self.hub.hostname,
            device_id=device_id,
            certificate_file=credential.certificate_file,
            key_file=credential.key_file,
            ca_pem=self.hub.authority.ca_pem,
        )


@pytest.mark.processes
class TestMqttBroker(HubContract):
    """Over MQTT 5, which Mosquitto speaks."""

    versions: tuple[int, ...] = (5, 4)
    broker: Mosquitto
    authority: Authority
    store: MqttStore

    @pytest.fixture(scope="class", autouse=True)
    def _broker(self, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[None]:
        folder: Path = tmp_path_factory.mktemp("broker")
        with own_mosquitto(folder, "127.0.0.61") as (broker, authority):
            request.cls.broker, request.cls.authority = broker, authority
            request.cls.store = migrated_store(folder)
            yield

    @pytest.fixture(autouse=True)
    def _version(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connection, "VERSIONS", self.versions)

    def world(self) -> World:
        fleet = MqttFleet(
            address=self.broker.for_coordinators,
            credential=credential(self.authority),
            store=self.store,
            replica="contract",
            rng=random.Random(1),
        )
        return World(fleet, self._device)

    def _device(self, device_id: DeviceId) -> DeviceHub:
        issued = self.authority.issue(device_id)
        return MqttDevice(
            address=self.broker.for_devices,
            device_id=device_id,
            certificate_file=issued.certificate_file,
            key_file=issued.key_file,
            ca_pem=self.authority.ca_pem,
        )


class TestMqttBrokerOf2014(TestMqttBroker):
    """The same over MQTT 3.1.1, as where a broker knows nothing newer."""

    versions = (4,)


async def _next(changes: AsyncIterator[Versioned]) -> Versioned:
    return await asyncio.wait_for(anext(changes), _WAIT_S)


async def _closing(changes: AsyncIterator[Versioned]) -> AsyncGenerator[Versioned, None]:
    """The same as a generator, which can be closed."""
    async for change in changes:
        yield change
