"""MQTT over WebSockets: the unmodified SDK and paho over it, and what comes to its door but is none."""

import asyncio
import base64
import threading
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
import websockets
from azure.iot.device.aio import IoTHubDeviceClient

from cloud.localhub import codec
from cloud.localhub.limits import Limits
from tests.cloud.localhub.support import Authority, hub_here, may_bind

_ADDRESS = "127.0.0.94"
_KEY = base64.b64encode(b"w" * 32).decode()
_SAS = {"authentication": {"type": "sas", "symmetricKey": {"primaryKey": _KEY, "secondaryKey": _KEY}}}
_CA = {"authentication": {"type": "certificateAuthority"}}

pytestmark = pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning")


def _url(port: int) -> str:
    return f"wss://{_ADDRESS}:{port}/$iothub/websocket"


@pytest.mark.skipif(not may_bind(_ADDRESS, 443), reason="the SDK dials port 443, which may not be bound here")
def test_the_sdk_over_websockets_sends_and_receives(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS, rest_port=443) as (live, authority):
            await live.hub.put_identity("press-07", _SAS, etag=None)
            text = f"HostName={_ADDRESS};DeviceId=press-07;SharedAccessKey={_KEY}"
            client = IoTHubDeviceClient.create_from_connection_string(
                text, websockets=True, server_verification_cert=authority.ca_pem
            )
            await client.connect()
            await client.send_message("x" * 100_000)
            await client.patch_twin_reported_properties({"a": 1})
            assert (await client.get_twin())["reported"] == {"a": 1, "$version": 2}
            (event,) = await live.hub.events.read(after=0, limit=10, wait_s=5)
            assert event.body == b"x" * 100_000
            assert live.hub.presence("press-07").connected
            await client.shutdown()

    asyncio.run(story())


def test_paho_over_websockets_with_a_certificate(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS) as (live, authority):
            await live.hub.put_identity("press-07", _CA, etag=None)
            acknowledged = await asyncio.to_thread(_publish_with_paho, live.rest_port, authority)
            assert acknowledged
            events = await live.hub.events.read(after=0, limit=10, wait_s=5)
            assert [event.body for event in events] == [b"one"]

    asyncio.run(story())


def _publish_with_paho(port: int, authority: Authority) -> bool:
    credential, connected = authority.issue("press-07"), threading.Event()
    client = paho.Client("press-07", clean_session=False, transport="websockets")
    client.on_connect = lambda *_: connected.set()
    client.ws_set_options(path="/$iothub/websocket")
    context = authority.context()
    context.load_cert_chain(credential.certificate_file, credential.key_file)
    client.tls_set_context(context)
    client.username_pw_set(f"{_ADDRESS}/press-07/?api-version=2021-04-12")
    client.connect(_ADDRESS, port)
    client.loop_start()
    assert connected.wait(20)
    message = client.publish("devices/press-07/messages/events/", b"one", qos=1)
    message.wait_for_publish(20)
    client.disconnect()
    client.loop_stop()
    return bool(message.is_published())


@pytest.mark.parametrize(("path", "subprotocols"), [("/elsewhere", ["mqtt"]), ("/$iothub/websocket", ["chat"])])
def test_another_path_or_protocol_is_refused(tmp_path: Path, path: str, subprotocols: list[Any]) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS) as (live, authority):
            url = f"wss://{_ADDRESS}:{live.rest_port}{path}"
            with pytest.raises(websockets.InvalidStatus) as refused:
                async with websockets.connect(url, ssl=authority.context(), subprotocols=subprotocols):
                    pass
            assert refused.value.response.status_code == 403

    asyncio.run(story())


def test_packets_may_be_cut_anywhere_and_text_or_silence_ends_the_connection(tmp_path: Path) -> None:
    async def story() -> None:
        limits = Limits(connect_s=0.5)
        async with hub_here(tmp_path, _ADDRESS, limits=limits) as (live, authority):
            await live.hub.put_identity("press-07", _SAS, etag=None)
            options: dict[str, Any] = {"ssl": authority.context(), "subprotocols": [websockets.Subprotocol("mqtt")]}
            async with websockets.connect(_url(live.rest_port), **options) as socket:
                assert socket.subprotocol == "mqtt"
                refused = codec.encode(codec.Connect("press-07", username="hub/press-07/?api-version=2021-04-12"))
                for byte in refused:
                    await socket.send(bytes((byte,)))
                assert await socket.recv() == codec.encode(codec.ConnAck(5))
                with pytest.raises(websockets.ConnectionClosed):
                    await asyncio.wait_for(socket.recv(), 10)
            for spoken in ("text", None):
                async with websockets.connect(_url(live.rest_port), **options) as socket:
                    if spoken is not None:
                        await socket.send(spoken)
                    with pytest.raises(websockets.ConnectionClosed):
                        await asyncio.wait_for(socket.recv(), 10)
            assert len(live.hub.links) == 0

    asyncio.run(story())


def test_websockets_count_among_the_devices_and_the_service_stays_reachable(tmp_path: Path) -> None:
    async def story() -> None:
        limits = Limits(connections_max=2)
        async with hub_here(tmp_path, _ADDRESS, limits=limits) as (live, authority):
            options: dict[str, Any] = {"ssl": authority.context(), "subprotocols": [websockets.Subprotocol("mqtt")]}
            async with (
                websockets.connect(_url(live.rest_port), **options),
                websockets.connect(_url(live.rest_port), **options),
                websockets.connect(_url(live.rest_port), **options) as third,
            ):
                with pytest.raises(websockets.ConnectionClosed):
                    await asyncio.wait_for(third.recv(), 10)
                reader, writer = await asyncio.open_connection(_ADDRESS, live.rest_port, ssl=authority.context())
                writer.write(b"GET /health HTTP/1.1\r\nhost: hub\r\n\r\n")
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
                writer.close()

    asyncio.run(story())
