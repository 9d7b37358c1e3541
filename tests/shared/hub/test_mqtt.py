"""What both ends of a broker agree on: addresses, topics, and a connection to brokers of every age."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.hub.mqtt.address import BrokerAddress, BrokerAddressError
from shared.hub.mqtt.connection import Credential, MqttConnection, Session
from shared.hub.mqtt.topics import COORDINATOR, Topics
from shared.hub.port import HubError, HubRefusedError, HubUnavailableError
from shared.ids import DeviceId, InvalidIdError, parse_device_id
from tests.cloud.localhub.support import Authority

ADDRESS = "127.0.0.64"
TOPICS = Topics("plant-7")
device_ids = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True).map(DeviceId)
levels = st.text(st.characters(exclude_characters="/+#\x00", exclude_categories=["Cs"]), min_size=1, max_size=20)


def test_an_address_names_the_broker_and_the_fleet() -> None:
    assert BrokerAddress.parse("mqtts://broker.example") == BrokerAddress("broker.example", 8883, "main")
    assert BrokerAddress.parse("mqtts://[::1]:8884/plant-7/") == BrokerAddress("::1", 8884, "plant-7")
    assert BrokerAddress.parse(str(BrokerAddress("::1", 8884, "plant-7"))) == BrokerAddress("::1", 8884, "plant-7")


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://b/f",
        "b",
        "mqtts://",
        "mqtts://b:x",
        "mqtts://b:70000",
        "mqtts://b/a/b",
        "mqtts://b/+",
        "mqtts://b/f?x=1",
    ],
)
def test_what_is_no_address_is_refused_with_the_form(url: str) -> None:
    with pytest.raises(BrokerAddressError, match=r"mqtts://HOST\[:PORT\]\[/FLEET\]"):
        BrokerAddress.parse(url)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(BrokerAddressError) as refused:
        BrokerAddress.parse("mqtts://me:hunter2@broker/f")
    assert "hunter2" not in str(refused.value)


@given(device_id=device_ids, path=st.lists(levels, min_size=1, max_size=3))
def test_topics_are_read_as_they_were_written_and_each_way_alone(device_id: DeviceId, path: list[str]) -> None:
    sent = TOPICS.parse_up(TOPICS.up(device_id, *path))
    assert sent is not None
    assert (sent.device_id, sent.path) == (device_id, tuple(path))
    assert TOPICS.parse_down(device_id, TOPICS.down(device_id, *path)) == tuple(path)
    assert TOPICS.parse_up(TOPICS.down(device_id, *path)) is None
    assert TOPICS.parse_down(device_id, TOPICS.up(device_id, *path)) == ()
    assert Topics("another").parse_up(TOPICS.up(device_id, *path)) is None
    assert TOPICS.parse_down(DeviceId(f"{device_id}0"), TOPICS.down(device_id, *path)) == ()


@given(topic=st.text(max_size=60) | st.builds(lambda t: TOPICS.up(t, "events", "1"), st.text(max_size=20)))
def test_any_text_is_a_topic_or_none_and_never_a_crash(topic: str) -> None:
    sent = TOPICS.parse_up(topic)
    assert sent is None or parse_device_id(sent.device_id) == sent.device_id


def test_no_device_can_have_the_coordinators_name() -> None:
    with pytest.raises(InvalidIdError):
        parse_device_id(COORDINATOR)


Answer = Callable[[bytes], bytes]
"""What a broker says to the first packet; empty: it hangs up."""


async def connect_to(folder: Path, answer: Answer, *, timeout_s: float = 30.0) -> MqttConnection:
    """Connects to a server that answers CONNECT so, and then waits for the end."""
    authority = Authority(folder / "ca")
    server, client = authority.issue("server", address=ADDRESS), authority.issue("press-07")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(server.certificate_file, server.key_file)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            said = answer(await reader.read(1000))
            writer.write(said)
            if said[:1] == b"\x20":
                await reader.read(1000)
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, ADDRESS, 0, ssl=context)
    address = BrokerAddress(ADDRESS, listening.sockets[0].getsockname()[1], "main")
    credential = Credential(client.certificate_file, client.key_file, authority.ca_pem)
    async with listening:
        return await MqttConnection.open(address, credential, Session("press-07"), lambda *_: None, timeout_s=timeout_s)


def level_of(connect: bytes) -> int:
    """The protocol level of a CONNECT: after `MQTT` with its length (MQTT 5.0, 3.1.2.2)."""
    return connect[connect.index(b"MQTT") + 4]


def test_mqtt_5_is_spoken_where_the_broker_knows_it(tmp_path: Path) -> None:
    async def story() -> None:
        connection = await connect_to(tmp_path, lambda _packet: b"\x20\x03\x00\x00\x00")
        assert connection.version == "5"
        # Without it a small answer waits 40 ms for the acknowledgement of the packet before it.
        assert connection._client.socket().getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await connection.close()
        assert connection.closed.is_set()

    asyncio.run(story())


def test_an_old_broker_gets_mqtt_3_1_1(tmp_path: Path) -> None:
    asked: list[int] = []

    def answer(packet: bytes) -> bytes:
        asked.append(level_of(packet))
        return b"\x20\x02\x00\x01" if asked[-1] == 5 else b"\x20\x02\x00\x00"

    async def story() -> None:
        connection = await connect_to(tmp_path, answer)
        assert connection.version == "3.1.1"
        await connection.close()

    asyncio.run(story())
    assert list(dict.fromkeys(asked)) == [5, 4]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"\x20\x03\x00\x87\x00", HubRefusedError),  # not authorised
        (b"\x20\x03\x00\x86\x00", HubRefusedError),  # bad user name or password
        (b"\x20\x03\x00\x88\x00", HubUnavailableError),  # server unavailable
        (b"\x20\x03\x00\x97\x00", HubUnavailableError),  # quota exceeded
        (b"", HubUnavailableError),  # hung up
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", HubUnavailableError),  # not a broker at all
    ],
)
def test_a_refusal_says_whether_trying_again_helps(answer: bytes, error: type[HubError], tmp_path: Path) -> None:
    with pytest.raises(error):
        asyncio.run(connect_to(tmp_path, lambda _packet: answer))


def test_a_broker_that_says_nothing_is_given_up_in_time(tmp_path: Path) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            writer.close()

    async def story() -> None:
        silent = await asyncio.start_server(say_nothing, ADDRESS, 0)
        issued = Authority(tmp_path).issue("press-07")
        credential = Credential(issued.certificate_file, issued.key_file, Authority(tmp_path / "ca").ca_pem)
        address = BrokerAddress(ADDRESS, silent.sockets[0].getsockname()[1])
        async with silent:
            with pytest.raises(HubUnavailableError, match=r"within 0\.3 s"):
                await MqttConnection.open(address, credential, Session("x"), lambda *_: None, timeout_s=0.3)

    asyncio.run(story())
