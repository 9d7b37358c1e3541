"""The generated access list on a real Mosquitto: with a good certificate, a device reaches its own topics alone."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.hubs.mqtt.store import MqttStore
from shared.hub.mqtt.connection import MqttConnection, Session
from shared.hub.mqtt.topics import COORDINATOR, Topics
from shared.hub.port import CommandReply, HubError, HubRefusedError
from shared.ids import DeviceId
from tests.cloud.hubs.mqtt.world import World, world
from tests.cloud.localhub.support import Authority
from tests.support.mosquitto import FLEET, Mosquitto, credential, migrated_store, own_mosquitto

pytestmark = pytest.mark.processes
TOPICS = Topics(FLEET)
GOOD, EVIL = DeviceId("press-good"), DeviceId("press-evil")
_WAIT_S = 10.0


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mosquitto, Authority, MqttStore]]:
    folder: Path = tmp_path_factory.mktemp("isolation")
    with own_mosquitto(folder, "127.0.0.62") as (broker, authority):
        yield broker, authority, migrated_store(folder)


async def answer(_name: str, _payload: object) -> CommandReply:
    return CommandReply(200, None)


class Intruder:
    """Whatever a device's own certificate can be made to do by hand."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.arrived = asyncio.Event()

    async def connect(self, here: World, *, client_id: str = EVIL) -> MqttConnection:
        def take(line: MqttConnection, topic: str, _payload: bytes, message_id: int) -> None:
            line.acknowledge(message_id)
            self.seen.append(topic)
            self.arrived.set()

        name = credential(here.authority, EVIL)
        return await MqttConnection.open(here.broker.for_devices, name, Session(client_id), take)


def test_a_device_can_neither_listen_to_another_nor_to_all(parts: tuple[Mosquitto, Authority, MqttStore]) -> None:
    async def story() -> None:
        async with world(*parts) as here:
            fleet, good, intruder = here.fleet(), here.device(GOOD), Intruder()
            good.on_command(answer)
            await fleet.add_device(GOOD)
            await fleet.add_device(EVIL)
            line = await intruder.connect(here)
            # Mosquitto grants any subscription and looks at the list when it delivers.
            everything = [TOPICS.all_down(GOOD), TOPICS.up(GOOD, "#"), "#", f"{TOPICS.root}/#", TOPICS.all_down("+")]
            shared = [*TOPICS.requests("coordinators"), *(f"$share/x/{wanted}" for wanted in everything)]
            await line.subscribe([*everything, *TOPICS.requests(""), *shared])
            await good.connect()
            await asyncio.gather(*(good.send_event(b"private") for _ in range(20)))
            await fleet.set_desired(GOOD, {"private": True})
            assert (await fleet.command(GOOD, "work", None, timeout_s=_WAIT_S)).status == 200
            await fleet.set_desired(EVIL, {"its": "own"})  # what it may read comes after all that, and alone
            await asyncio.wait_for(intruder.arrived.wait(), _WAIT_S)
            assert {topic.split("/")[3] for topic in intruder.seen} == {EVIL}
            await line.close()
            await good.close()

    asyncio.run(story())


def test_a_device_can_neither_speak_as_another_nor_as_the_coordinator(
    parts: tuple[Mosquitto, Authority, MqttStore],
) -> None:
    async def story() -> None:
        async with world(*parts) as here:
            fleet, good = here.fleet(), here.device(GOOD)
            await fleet.add_device(GOOD)
            await fleet.add_device(EVIL)
            good.on_command(answer)
            await good.connect()
            version = (await good.get_twin()).desired.version
            intruder = Intruder()
            line = await intruder.connect(here)
            await line.subscribe([TOPICS.all_down(EVIL)])
            await line.publish(TOPICS.up(GOOD, "events", "x-1"), b"forged")
            await line.publish(TOPICS.up(GOOD, "bye", "x"), b"")
            await line.publish(TOPICS.down(GOOD, "desired", str(version + 1)), b'{"release": "evil"}')
            await line.publish(TOPICS.down(GOOD, "end", "removed"), b"")
            await line.publish(TOPICS.down(EVIL, "desired", "9"), b"{}")  # not even to itself
            # After its own event is answered, everything it sent before has had its effect, if it had any.
            await line.publish(TOPICS.up(EVIL, "events", "x-2"), b"its own")
            await asyncio.wait_for(intruder.arrived.wait(), _WAIT_S)
            assert intruder.seen == [TOPICS.down(EVIL, "answers", "x-2", "200")]
            events = await here.events()
            assert (events[-1].device_id, events[-1].payload) == (EVIL, b"its own")
            assert b"forged" not in [event.payload for event in events]
            await good.send_event(b"still here")
            assert (await good.get_twin()).desired.version == version
            assert (await fleet.command(GOOD, "work", None, timeout_s=_WAIT_S)).status == 200
            await line.close()
            await good.close()

    asyncio.run(story())


def test_a_device_cannot_push_another_off_by_taking_its_client_id(
    parts: tuple[Mosquitto, Authority, MqttStore],
) -> None:
    async def story() -> None:
        async with world(*parts) as here:
            fleet, good = here.fleet(), here.device(GOOD)
            await fleet.add_device(GOOD)
            await good.connect()
            for client_id in (GOOD, f"{COORDINATOR}.{FLEET}.one"):
                line = await Intruder().connect(here, client_id=client_id)
                await good.send_event(b"still here")
                await line.close()
            await good.close()

    asyncio.run(story())


def test_a_certificate_of_another_ca_is_refused_in_words(
    parts: tuple[Mosquitto, Authority, MqttStore], tmp_path: Path
) -> None:
    async def story() -> None:
        async with world(*parts) as here:
            stranger = credential(Authority(tmp_path / "other"), GOOD)
            with pytest.raises(HubRefusedError, match="certificate"):
                await MqttConnection.open(here.broker.for_devices, stranger, Session(GOOD), lambda *_: None)
            mixed = type(stranger)(stranger.certificate_file, stranger.key_file, here.authority.ca_pem)
            with pytest.raises(HubError) as refused:  # the broker may hang up before its reason is read
                await MqttConnection.open(here.broker.for_devices, mixed, Session(GOOD), lambda *_: None)
            assert "certificate" in f"{refused.value} {refused.value.hint}"

    asyncio.run(story())
