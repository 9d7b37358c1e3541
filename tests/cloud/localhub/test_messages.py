"""Cloud-to-device messages: the queue's rules without sockets, and the unmodified SDKs as its two ends."""

import asyncio
import base64
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient as SyncClient
from azure.iot.device.aio import IoTHubDeviceClient
from azure.iot.hub import IoTHubHttpRuntimeManager

from cloud.localhub import codec
from cloud.localhub.errors import ServiceError
from cloud.localhub.limits import Limits
from cloud.localhub.messages import Message, Outcome, feedback_on, parse_message
from cloud.localhub.policies import connection_string
from tests.cloud.localhub.service import Service
from tests.cloud.localhub.support import HubProcess, RawDevice, eventually, hub_here, hub_process
from tests.cloud.localhub.tokens import make_sas

_ADDRESS = "127.0.0.91"
_CA = {"authentication": {"type": "certificateAuthority"}}
_KEY = base64.b64encode(b"p" * 32).decode()
_KEYS = {"authentication": {"type": "sas", "symmetricKey": {"primaryKey": _KEY, "secondaryKey": _KEY}}}
_FILTER = "devices/press-07/messages/devicebound/#"

pytestmark = pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning")


def _message(body: bytes = b"x", **headers: str) -> Message:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return parse_message("press-07", named, body, now=time.time(), life_s=3600.0)


# Rules without sockets


@pytest.mark.parametrize(
    ("ack", "told"),
    [
        ("none", set()),
        ("positive", {Outcome.SUCCESS}),
        ("negative", set(Outcome) - {Outcome.SUCCESS}),
        ("full", set(Outcome)),
    ],
)
def test_a_sender_hears_what_its_ack_asks_for(ack: str, told: set[Outcome]) -> None:
    message = _message(iothub_ack=ack, iothub_messageid="m1")
    records = {outcome: feedback_on(message, outcome, generation_id="1", now="now") for outcome in Outcome}
    assert {outcome for outcome, record in records.items() if record is not None} == told
    assert all(record["originalMessageId"] == "m1" for record in records.values() if record is not None)


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"iothub_ack": "maybe"}, b"", 400),
        ({"iothub_expiry": "yesterday"}, b"", 400),
        ({"iothub_expiry": "2001-01-01T00:00:00Z"}, b"", 400),
        ({"iothub_expiry": "2999-01-01T00:00:00Z"}, b"", 400),
        ({}, bytes(64 * 1024 + 1), 413),
        ({"iothub_app_a": "b"}, bytes(64 * 1024), 413),
    ],
)
def test_a_message_that_cannot_be_is_refused(headers: dict[str, str], body: bytes, status: int) -> None:
    with pytest.raises(ServiceError) as caught:
        _message(body, **headers)
    assert caught.value.status == status


# The hub in this process, with devices that do what a proper client never does


def test_a_message_without_a_puback_comes_again_when_its_lock_ran_out_and_on_the_next_connection(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        limits = Limits(message_lock_s=0.3)
        async with hub_here(tmp_path, _ADDRESS, limits=limits) as (live, authority):
            await live.hub.put_identity("press-07", _CA, etag=None)
            credential = authority.issue("press-07")
            device = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port, credential)
            assert await device.connect("press-07", clean_session=False) == 0
            await device.send(codec.Subscribe(1, ((_FILTER, 1),)))
            assert await device.receive() == codec.SubAck(1, (1,))
            await live.hub.mailbox.send(_message(b"one"))
            first, again = await device.receive(), await device.receive()
            assert isinstance(first, codec.Publish)
            assert isinstance(again, codec.Publish)
            assert (first.payload, first.qos, first.duplicate) == (b"one", 1, False)
            assert again == codec.Publish(first.topic, b"one", 1, first.packet_id, duplicate=True)
            await device.close()
            later = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port, credential)
            assert await later.connect("press-07", clean_session=False) == 0
            assert await later.receive() == again
            await later.send(codec.PubAck(first.packet_id))
            await later.send(codec.PingReq())
            assert await later.receive() == codec.PingResp()
            await live.hub.mailbox.send(_message(b"two"))
            second = await later.receive()
            assert isinstance(second, codec.Publish)
            assert (second.payload, second.duplicate) == (b"two", False)
            await later.close()

    asyncio.run(story())


def test_a_newer_connection_gets_what_the_older_did_not_acknowledge(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS) as (live, authority):
            await live.hub.put_identity("press-07", _CA, etag=None)
            credential = authority.issue("press-07")
            older = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port, credential)
            assert await older.connect("press-07", clean_session=False) == 0
            await older.send(codec.Subscribe(1, ((_FILTER, 1),)))
            assert await older.receive() == codec.SubAck(1, (1,))
            for number in range(3):
                await live.hub.mailbox.send(_message(str(number).encode()))
            sent = [await older.receive() for _ in range(3)]
            newer = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port, credential)
            assert await newer.connect("press-07", clean_session=False) == 0
            got = [await newer.receive() for _ in range(3)]
            assert [packet.payload for packet in got if isinstance(packet, codec.Publish)] == [b"0", b"1", b"2"]
            assert [getattr(packet, "packet_id", 0) for packet in got] == [getattr(p, "packet_id", 0) for p in sent]
            assert await older.receive() is None
            await older.close()
            await newer.close()

    asyncio.run(story())


def test_a_subscription_with_qos_0_gets_each_message_once_without_puback(tmp_path: Path) -> None:
    async def story() -> None:
        limits = Limits(message_lock_s=0.1, feedback_wait_s=0.0)
        async with hub_here(tmp_path, _ADDRESS, limits=limits) as (live, authority):
            await live.hub.put_identity("press-07", _CA, etag=None)
            device = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port, authority.issue("press-07"))
            assert await device.connect("press-07") == 0
            await live.hub.mailbox.send(_message(b"waits", iothub_ack="full", iothub_messageid="m1"))
            await device.send(codec.Subscribe(1, ((_FILTER, 0),)))
            assert await device.receive() == codec.SubAck(1, (0,))
            packet = await device.receive()
            assert isinstance(packet, codec.Publish)
            assert (packet.payload, packet.qos, packet.packet_id) == (b"waits", 0, 0)
            batch = None
            async with asyncio.timeout(10):
                while batch is None:
                    batch = await live.hub.mailbox.feedback.receive()
            assert [record["statusCode"] for record in batch.records] == ["Success"]
            await device.close()

    asyncio.run(story())


def test_expired_purged_and_worn_out_messages_end_with_their_own_feedback(tmp_path: Path) -> None:
    async def story() -> None:
        limits = Limits(message_life_s=0.2, feedback_wait_s=0.0, message_deliveries_max=2)
        async with hub_here(tmp_path, _ADDRESS, limits=limits) as (live, _):
            hub = live.hub
            await hub.put_identity("press-07", _CA, etag=None)
            short = parse_message(
                "press-07", {"iothub-ack": "negative"}, b"short", now=hub.time(), life_s=limits.message_life_s
            )
            await hub.mailbox.send(short)
            await asyncio.sleep(0.25)
            assert await hub.mailbox.receive("press-07") is None
            assert await hub.mailbox.expire() == 1
            await hub.mailbox.send(_message(b"rejected", iothub_ack="negative"))
            (_, token) = await hub.mailbox.receive("press-07") or (None, "")
            await hub.mailbox.settle("press-07", token, Outcome.REJECTED)
            await hub.mailbox.send(_message(b"worn out", iothub_ack="negative"))
            for deliveries in range(2):
                message, token = await hub.mailbox.receive("press-07") or (short, "")
                assert (message.body, message.deliveries) == (b"worn out", deliveries)
                await hub.mailbox.abandon("press-07", token)
            assert await hub.mailbox.receive("press-07") is None
            with pytest.raises(ServiceError, match="lock"):
                await hub.mailbox.settle("press-07", token, Outcome.SUCCESS)
            await hub.mailbox.send(_message(b"purged", iothub_ack="full"))
            assert await hub.mailbox.purge("press-07") == 1
            batch = await hub.mailbox.feedback.receive()
            assert batch is not None
            outcomes = [record["statusCode"] for record in batch.records]
            assert outcomes == ["Expired", "Rejected", "DeliveryCountExceeded", "Purged"]
            assert await hub.mailbox.feedback.receive() is None
            hub.mailbox.feedback.abandon(batch.token)
            again = await hub.mailbox.feedback.receive()
            assert again is not None
            assert again.records == batch.records
            with pytest.raises(ServiceError, match="lock"):
                await hub.mailbox.feedback.complete(batch.token)
            await hub.mailbox.feedback.complete(again.token)
            assert await hub.mailbox.feedback.receive() is None

    asyncio.run(story())


# The unmodified SDKs


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with hub_process(tmp_path_factory.mktemp("hub"), _ADDRESS) as running:
        yield running


@pytest.fixture(scope="module")
def service(hub: HubProcess) -> Service:
    return Service(hub)


def _connection_string(device_id: str) -> str:
    return f"HostName={_ADDRESS};DeviceId={device_id};SharedAccessKey={_KEY}"


@pytest.mark.processes
def test_the_sdk_receives_what_waited_with_its_properties(hub: HubProcess, service: Service) -> None:
    async def story() -> None:
        assert service.call("PUT", "/devices/sdk", _KEYS)[0] == 200
        headers = {
            "iothub-messageid": "id 1",
            "iothub-correlationid": "köln",
            "iothub-ack": "full",
            "iothub-contenttype": "application/json",
            "iothub-contentencoding": "utf-8",
            "iothub-app-alert": "ja/nein=vielleicht & mehr",
        }
        assert service.send("sdk", b'{"a": 1}', headers)[0] == 204
        client = IoTHubDeviceClient.create_from_connection_string(
            _connection_string("sdk"), server_verification_cert=hub.authority.ca_pem
        )
        got: list[Any] = []

        async def on_message(message: Any) -> None:
            got.append(message)

        await client.connect()
        client.on_message_received = on_message
        await eventually(lambda: got)
        (message,) = got
        assert message.data == b'{"a": 1}'
        assert (message.message_id, message.correlation_id, message.ack) == ("id 1", "köln", "full")
        assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")
        assert message.custom_properties == {"alert": "ja/nein=vielleicht & mehr"}
        assert await asyncio.to_thread(service.send, "sdk", b"now") == (204, None)
        await eventually(lambda: len(got) == 2)
        await client.shutdown()

    asyncio.run(story())


def test_azure_iot_hub_fetches_abandons_and_completes_feedback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS, limits=Limits(feedback_wait_s=0.0)) as (live, authority):
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.ca_file))
            await live.hub.put_identity("press-07", _CA, etag=None)
            for number in range(2):
                await live.hub.mailbox.send(_message(b"", iothub_ack="full", iothub_messageid=f"m{number}"))
            await live.hub.mailbox.purge("press-07")
            text = connection_string(tmp_path / "hub", hostname=f"{_ADDRESS}:{live.rest_port}", policy="service")
            await asyncio.to_thread(_take_feedback, text)

    asyncio.run(story())


def _take_feedback(text: str) -> None:
    runtime = IoTHubHttpRuntimeManager.from_connection_string(text)
    operations = runtime.protocol.cloud_to_device_messages
    first = operations.receive_feedback_notification(raw=True).response
    assert [(record["originalMessageId"], record["statusCode"]) for record in first.json()] == [
        ("m0", "Purged"),
        ("m1", "Purged"),
    ]
    assert operations.receive_feedback_notification(raw=True).response.status_code == 204  # It is locked.
    runtime.abandon_feedback_notification(first.headers["etag"].strip('"'))
    again = operations.receive_feedback_notification(raw=True).response
    assert again.json() == first.json()
    runtime.complete_feedback_notification(again.headers["etag"].strip('"'))
    assert operations.receive_feedback_notification(raw=True).response.status_code == 204


@pytest.mark.processes
def test_the_synchronous_sdk_receives_after_the_hub_was_killed_what_was_queued_before(
    hub: HubProcess, service: Service
) -> None:
    assert service.call("PUT", "/devices/sync", _KEYS)[0] == 200
    for number in range(3):
        assert service.send("sync", str(number).encode())[0] == 204
    hub.kill()
    hub.start()
    client = SyncClient.create_from_connection_string(
        _connection_string("sync"), server_verification_cert=hub.authority.ca_pem
    )
    got: list[bytes] = []
    complete = threading.Event()

    def on_message(message: Any) -> None:
        got.append(message.data)
        if len(got) == 3:
            complete.set()

    client.connect()
    client.on_message_received = on_message
    assert complete.wait(20)
    assert got == [b"0", b"1", b"2"]
    client.send_message("all taken")
    client.shutdown()
    # What is acknowledged does not come again: the next connection hears nothing before the answer to its ping.
    asyncio.run(_hears_nothing(hub, "sync"))


async def _hears_nothing(hub: HubProcess, device_id: str) -> None:
    token = make_sas(resource=f"{_ADDRESS}/devices/{device_id}", key=_KEY, expiry=int(time.time()) + 60)
    device = await RawDevice.dial(hub.authority, _ADDRESS, 8883)
    assert await device.connect(device_id, token=token, host=_ADDRESS, clean_session=False) == 0
    await device.send(codec.PingReq())
    assert await device.receive() == codec.PingResp()
    await device.close()


@pytest.mark.processes
def test_the_fifty_first_message_is_refused_and_purging_makes_room(
    hub: HubProcess, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert service.call("PUT", "/devices/full", _KEYS)[0] == 200
    assert [service.send("full", b"x")[0] for _ in range(50)] == [204] * 50
    status, answer = service.send("full", b"x")
    assert status == 403
    for path in ("/devices/full", "/twins/full"):
        assert service.call("GET", path)[1]["cloudToDeviceMessageCount"] == 50
    query = {"query": "SELECT deviceId, cloudToDeviceMessageCount FROM devices WHERE cloudToDeviceMessageCount > 49"}
    expected = [{"deviceId": "full", "cloudToDeviceMessageCount": 50}]
    assert service.call("POST", "/devices/query", query) == (200, expected)
    assert "DeviceMaximumQueueDepthExceeded" in answer["Message"]
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(hub.authority.ca_file))
    runtime = IoTHubHttpRuntimeManager.from_connection_string(hub.connection_string("service"))
    purged = runtime.protocol.cloud_to_device_messages.purge_cloud_to_device_message_queue("full")
    assert (purged.total_messages_purged, purged.device_id) == (50, "full")
    assert service.send("full", b"x")[0] == 204
    assert service.send("nobody", b"x")[0] == 404


@pytest.mark.processes
def test_a_device_without_a_connection_receives_and_settles_over_https(hub: HubProcess, service: Service) -> None:
    assert service.call("PUT", "/devices/https", _KEYS)[0] == 200
    token = make_sas(resource=f"{_ADDRESS}/devices/https", key=_KEY, expiry=int(time.time()) + 60)
    device = service.as_caller(token)
    path = "/devices/https/messages/deviceBound"
    assert device.request("GET", path)[0] == 204
    assert service.send("https", b"take me", {"iothub-messageid": "m1", "iothub-app-a": "b"})[0] == 204
    for deliveries in ("0", "1"):
        status, headers, body = device.request("GET", path)
        assert (status, body) == (200, b"take me")
        assert (headers["iothub-messageid"], headers["iothub-app-a"]) == ("m1", "b")
        assert headers["iothub-deliverycount"] == deliveries
        assert device.request("GET", path)[0] == 204  # It is locked.
        lock = headers["etag"].strip('"')
        if deliveries == "0":
            assert device.request("POST", f"{path}/{lock}/abandon")[0] == 204
    assert device.request("DELETE", f"{path}/{lock}")[0] == 204
    status, _, body = device.request("DELETE", f"{path}/{lock}")
    assert (status, "DeviceMessageLockLost" in json.loads(body)["Message"]) == (412, True)
    assert device.request("POST", "/devices/https/messages/events", b"event", {"iothub-app-a": "b"})[0] == 204
    # Its token opens nothing of another device, and nothing of a service.
    assert service.call("PUT", "/devices/other", _KEYS)[0] == 200
    assert device.request("GET", "/devices/other/messages/deviceBound")[0] == 401
    assert device.request("POST", "/devices/https/messages/deviceBound", b"to myself")[0] == 401
