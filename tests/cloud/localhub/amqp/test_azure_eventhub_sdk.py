"""The unmodified azure-eventhub reads the local hub: properties, positions, groups, owner levels, refusals."""

import asyncio
import datetime
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from azure.eventhub import EventData, EventHubConsumerClient
from azure.eventhub.aio import EventHubConsumerClient as AsyncConsumerClient
from azure.eventhub.exceptions import AuthenticationError, EventHubError

from cloud.hubs.azure import consumer
from cloud.hubs.event_hub import EventHubEvents
from cloud.localhub import codec
from cloud.localhub.partitions import partition_of
from cloud.localhub.policies import events_connection_string
from shared.hub.port import Event, HubRefusedError
from tests.cloud.localhub.service import Service
from tests.cloud.localhub.support import HubProcess, RawDevice, hub_process

_ADDRESS = "127.0.0.82"
_DEVICES = ("press-07", "press-08", "press-09")
_PATIENCE_S = 30.0

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with hub_process(tmp_path_factory.mktemp("hub"), _ADDRESS, "--amqp-port", "5671") as running:
        service = Service(running)
        for name in _DEVICES:
            assert (
                service.call("PUT", f"/devices/{name}", {"authentication": {"type": "certificateAuthority"}})[0] == 200
            )
        asyncio.run(_send(running, "press-07", [f"event {number}" for number in range(20)]))
        yield running


async def _send(
    hub: HubProcess, name: str, bodies: list[str], *, bag: str = "$.mid=m1&$.ct=text%2Fplain&line=3"
) -> None:
    device = await RawDevice.dial(hub.authority, _ADDRESS, 8883, hub.authority.issue(name))
    assert await device.connect(name) == 0
    for number, body in enumerate(bodies, start=1):
        await device.send(codec.Publish(f"devices/{name}/messages/events/{bag}", body.encode(), 1, number))
        assert await device.receive() == codec.PubAck(number)
    await device.close()


def _connection_string(hub: HubProcess, policy: str = "service") -> str:
    return events_connection_string(hub.data_dir, hostname=_ADDRESS, policy=policy)


def _client(hub: HubProcess, policy: str = "service", group: str = "$Default", **options: Any) -> AsyncConsumerClient:
    return AsyncConsumerClient.from_connection_string(
        _connection_string(hub, policy),
        group,
        connection_verify=str(hub.authority.ca_file),
        retry_total=0,
        **options,
    )


@asynccontextmanager
async def _receiving(client: AsyncConsumerClient, **options: Any) -> AsyncIterator[asyncio.Queue[Any]]:
    """What the client's own loop hands over: events, and errors."""
    found: asyncio.Queue[Any] = asyncio.Queue()

    async def take(_: object, event: EventData | None) -> None:
        found.put_nowait(event)

    async def fail(_: object, error: Exception) -> None:
        found.put_nowait(error)

    async with client:
        task = asyncio.create_task(client.receive(take, on_error=fail, **options))
        yield found
        task.cancel()


async def _next(found: asyncio.Queue[Any]) -> Any:
    return await asyncio.wait_for(found.get(), _PATIENCE_S)


def test_the_properties_of_the_hub_and_of_its_partitions(hub: HubProcess) -> None:
    async def story() -> None:
        async with _client(hub) as client:
            assert await client.get_partition_ids() == ["0", "1", "2", "3"]
            assert (await client.get_eventhub_properties())["eventhub_name"] == "events"
            number = str(partition_of("press-07", 4))
            properties = await client.get_partition_properties(number)
            assert (properties["id"], properties["is_empty"]) == (number, False)
            assert (properties["beginning_sequence_number"], properties["last_enqueued_sequence_number"]) == (0, 19)

    asyncio.run(story())


def test_an_event_arrives_with_iot_hubs_properties(hub: HubProcess) -> None:
    async def story() -> None:
        async with _receiving(_client(hub), starting_position="-1") as found:
            event = await _next(found)
        assert (event.body_as_str(), event.sequence_number, event.content_type) == ("event 0", 0, "text/plain")
        assert event.properties == {b"line": b"3"}
        assert event.message_id == "m1"
        assert event.system_properties[b"iothub-connection-device-id"] == b"press-07"
        assert abs(event.enqueued_time - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(minutes=10)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("position", "inclusive", "first"),
    [
        (7, False, 8),
        (7, True, 7),
        ("3", False, 3),
        ("-1", False, 0),
        (datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), False, 0),
    ],
)
def test_a_reader_begins_where_it_asked(hub: HubProcess, position: Any, inclusive: bool, first: int) -> None:
    async def story() -> None:
        options = {"starting_position": position, "starting_position_inclusive": inclusive}
        client = _client(hub)
        async with _receiving(client, partition_id=str(partition_of("press-07", 4)), **options) as found:
            assert (await _next(found)).sequence_number == first

    asyncio.run(story())


def test_a_reader_at_the_end_gets_what_comes_next_at_once(hub: HubProcess) -> None:
    async def story() -> None:
        partition = str(partition_of("press-08", 4))
        async with _receiving(_client(hub), partition_id=partition, starting_position="-1") as found:
            await _send(hub, "press-08", ["first", "second"], bag="")
            assert [(await _next(found)).body_as_str() for _ in range(2)] == ["first", "second"]

    asyncio.run(story())


def test_the_synchronous_client_reads_too(hub: HubProcess) -> None:
    bodies: list[str] = []
    client = EventHubConsumerClient.from_connection_string(
        _connection_string(hub), "$Default", connection_verify=str(hub.authority.ca_file)
    )

    def take(_: object, event: EventData | None) -> None:
        if event is not None:
            bodies.append(event.body_as_str())
        if len(bodies) == 20:
            client.close()

    with client:
        client.receive(take, partition_id=str(partition_of("press-07", 4)), starting_position="-1", max_wait_time=5)
    assert bodies == [f"event {number}" for number in range(20)]


def test_a_higher_owner_level_ends_the_lower_reader(hub: HubProcess) -> None:
    async def story() -> None:
        options: dict[str, Any] = {"partition_id": str(partition_of("press-07", 4)), "starting_position": "-1"}
        async with _receiving(_client(hub), owner_level=1, **options) as older:
            assert (await _next(older)).sequence_number == 0
            async with _receiving(_client(hub), owner_level=2, **options) as newer:
                assert (await _next(newer)).sequence_number == 0
                while not isinstance(lost := await _next(older), EventHubError):
                    continue
                assert "higher epoch" in str(lost)

    asyncio.run(story())


@pytest.mark.parametrize(("policy", "group"), [("registryRead", "$Default"), ("service", "nobody")])
def test_a_wrong_right_and_an_unknown_group_are_refused(hub: HubProcess, policy: str, group: str) -> None:
    async def story() -> None:
        async with _receiving(_client(hub, policy, group), partition_id="0", starting_position="-1") as found:
            error = await _next(found)
            assert isinstance(error, AuthenticationError if policy == "registryRead" else EventHubError)

    asyncio.run(story())


def test_the_coordinators_adapter_reads_everything_once_over_restarts_of_both(hub: HubProcess, tmp_path: Path) -> None:
    async def read(after: int, *, until: bytes) -> list[Event]:
        make = consumer(_connection_string(hub), group="$Default", ca_file=hub.authority.ca_file)
        events = EventHubEvents(make, inbox_file=tmp_path / "inbox.sqlite")
        found: list[Event] = []
        async with asyncio.timeout(60):
            while until not in [event.payload for event in found]:
                found += await events.read(found[-1].offset if found else after, limit=5, wait_s=10)
        await events.close()
        return found

    async def story() -> None:
        first = await read(0, until=b"event 19")
        hub.kill()
        hub.start()
        await _send(hub, "press-09", ["after the restart"], bag="")
        rest = await read(first[-1].offset, until=b"after the restart")
        assert [event.offset for event in first + rest] == list(range(1, len(first + rest) + 1))
        assert len({event.payload for event in first + rest}) == len(first + rest)
        pressed = [event.payload for event in first + rest if event.device_id == "press-07"]
        assert pressed == [b"event %d" % number for number in range(20)]

    asyncio.run(story())


def test_the_adapter_says_that_it_is_refused(hub: HubProcess, tmp_path: Path) -> None:
    async def story() -> None:
        make = consumer(_connection_string(hub, "registryRead"), group="$Default", ca_file=hub.authority.ca_file)
        events = EventHubEvents(make, inbox_file=tmp_path / "inbox.sqlite")
        with pytest.raises(HubRefusedError):
            await events.read(0, limit=1, wait_s=60)
        await events.close()

    asyncio.run(story())
