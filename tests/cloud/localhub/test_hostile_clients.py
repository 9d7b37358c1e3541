"""Clients that mean harm, or are broken: only their own connections end, nothing leaks, no secret is logged."""

import asyncio
import contextlib
import gc
import signal
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from cloud.localhub import codec
from cloud.localhub.connection import Connection
from cloud.localhub.enrollments import derived_key
from cloud.localhub.limits import Limits
from cloud.localhub.policies import load_or_create_policies
from tests.cloud.localhub.service import Service
from tests.cloud.localhub.support import Authority, RawDevice, eventually, hub_here, hub_process
from tests.cloud.localhub.tokens import make_sas

_ADDRESS = "127.0.0.98"
_CA = {"authentication": {"type": "certificateAuthority"}}
_EVENTS = "devices/bad/messages/events/"
_MESSAGES = "devices/bad/messages/devicebound/#"


@asynccontextmanager
async def _hub_with_a_good_device(
    folder: Path, limits: Limits | None = None
) -> AsyncIterator[tuple[Any, Authority, RawDevice]]:
    """A hub with the devices good and bad; at the end, good is still served, and nothing failed in the loop."""
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    async with hub_here(folder, _ADDRESS, limits=limits) as (live, authority):
        for name in ("good", "bad"):
            await live.hub.put_identity(name, _CA, etag=None)
        good = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port, authority.issue("good"))
        assert await good.connect("good") == 0
        authority.issue("bad")
        yield live, authority, good
        await good.send(codec.Publish("devices/good/messages/events/", b"still here", 1, 1))
        assert await good.receive() == codec.PubAck(1)
        await good.close()
    assert failures == []


async def _bad(live: Any, authority: Authority, **fields: Any) -> RawDevice:
    device = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port, authority.issued("bad"))
    assert await device.connect("bad", **fields) == 0
    return device


_packets: st.SearchStrategy[codec.Packet] = st.sampled_from(
    [
        codec.Publish(_EVENTS, b"x", 1, 7),
        codec.Publish("$iothub/twin/GET/?$rid=1", b""),
        codec.Publish("$iothub/twin/PATCH/properties/reported/?$rid=2", b'{"a": 1}'),
        codec.Publish("$iothub/methods/res/200/?$rid=1", b"{}", 1, 9),
        codec.Subscribe(3, ((_MESSAGES, 1), ("$iothub/twin/res/#", 0))),
        codec.Unsubscribe(4, (_MESSAGES,)),
        codec.PubAck(5),
        codec.PingReq(),
        codec.Connect("bad", username="hub/bad/?api-version=2021-04-12"),
        codec.Connect("bad", username="0ne0/registrations/bad/api-version=2019-03-31"),
    ]
)


@st.composite
def _garbage(draw: st.DrawFn) -> bytes:
    """Packets with some bytes changed, put in or taken out, or bytes alone."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=200))
    data = bytearray(b"".join(codec.encode(packet) for packet in draw(st.lists(_packets, min_size=1, max_size=4))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data)


def _count_connections() -> int:
    """Those in memory. By type alone: `isinstance` asks each object, and some answer with a warning."""
    gc.collect()
    return sum(type(each) is Connection for each in gc.get_objects())


def test_arbitrary_bytes_end_at_most_their_own_connection_and_leave_nothing_behind(tmp_path: Path) -> None:
    streams: list[tuple[bool, bytes]] = []

    @settings(max_examples=60, deadline=None, database=None, derandomize=True, phases=[Phase.generate])
    @given(st.booleans(), _garbage())
    def collect(is_connected: bool, data: bytes) -> None:  # hypothesis passes it
        streams.append((is_connected, data))

    collect()

    async def story() -> None:
        async with _hub_with_a_good_device(tmp_path) as (live, authority, _):
            before = _count_connections()
            for is_connected, data in streams:
                device = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port, authority.issued("bad"))
                if is_connected:
                    assert await device.connect("bad") == 0
                device.writer.write(data)
                with contextlib.suppress(ConnectionError, ssl.SSLError):
                    await device.writer.drain()
                await device.close()
            await eventually(lambda: len(live.hub.links) == 1)
            await eventually(lambda: _count_connections() <= before)

    asyncio.run(story())


def test_a_flood_is_slowed_down_and_others_are_not(tmp_path: Path) -> None:
    async def story() -> None:
        limits = Limits(in_flight_max=4, inbox_bytes_max=64 * 1024)
        async with _hub_with_a_good_device(tmp_path, limits) as (live, authority, good):
            flooding = await _bad(live, authority)
            for _ in range(500):
                flooding.writer.write(codec.encode(codec.Publish(_EVENTS, bytes(8_000), 1, 1)))
            for number in range(1, 20):
                await good.send(codec.Publish("devices/good/messages/events/", b"", 1, number))
                assert await good.receive() == codec.PubAck(number)
            flooding.writer.transport.abort()

    asyncio.run(story())


def test_a_device_that_does_not_read_is_closed(tmp_path: Path) -> None:
    async def story() -> None:
        limits = Limits(outgoing_bytes_max=64 * 1024, messages_pending_max=1_000)
        async with _hub_with_a_good_device(tmp_path, limits) as (live, authority, _):
            deaf = await _bad(live, authority)
            await deaf.send(codec.Subscribe(1, (("$iothub/twin/PATCH/properties/desired/#", 0),)))
            assert await deaf.receive() == codec.SubAck(1, (0,))
            cast("asyncio.Transport", deaf.writer.transport).pause_reading()
            patch = {"properties": {"desired": {str(number): "x" * 4_000 for number in range(7)}}}
            async with asyncio.timeout(60):
                while live.hub.presence("bad").connected:
                    await live.hub.patch_twin("bad", patch, etag="*")
            deaf.writer.transport.abort()

    asyncio.run(story())


def test_half_a_tls_handshake_plain_text_and_an_http_request_end_alone(tmp_path: Path) -> None:
    async def story() -> None:
        limits = Limits(handshake_s=0.5)
        async with _hub_with_a_good_device(tmp_path, limits) as (live, authority, _):
            outgoing = ssl.MemoryBIO()
            tls = authority.context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=_ADDRESS)
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            hello = outgoing.read()
            plain = codec.encode(codec.Connect("bad", username="hub/bad/?api-version=2021-04-12"))
            for sent in (hello[: len(hello) // 2], hello, plain, b"GET / HTTP/1.1\r\n\r\n", b"\0" * 70_000):
                reader, writer = await asyncio.open_connection(_ADDRESS, live.mqtt_port)
                writer.write(sent)
                with contextlib.suppress(ConnectionError):
                    while await asyncio.wait_for(reader.read(65_536), 20):
                        pass
                writer.close()

    asyncio.run(story())


@pytest.mark.processes
def test_no_key_token_or_signature_is_logged(tmp_path: Path) -> None:
    with hub_process(tmp_path, _ADDRESS) as hub:
        service = Service(hub)
        assert service.call("PUT", "/devices/press-07", {})[0] == 200
        identity = service.call("GET", "/devices/press-07")[1]
        key = identity["authentication"]["symmetricKey"]["primaryKey"]
        group = service.call("PUT", "/enrollmentGroups/presses", {"attestation": {"type": "symmetricKey"}})
        assert group[0] == 200
        mechanism = service.call("POST", "/enrollmentGroups/presses/attestationmechanism")[1]
        group_key = mechanism["symmetricKey"]["primaryKey"]
        scope = service.call("GET", "/provisioning")[1]["idScope"]
        expiry = int(time.time()) + 60
        good = make_sas(resource=f"{_ADDRESS}/devices/press-07", key=key, expiry=expiry)
        wrong = make_sas(resource=f"{_ADDRESS}/devices/press-07", key=group_key, expiry=expiry)
        registration_key = derived_key(group_key, "press-08")
        registration = make_sas(resource=f"{scope}/registrations/press-08", key=registration_key, expiry=expiry)
        device = service.as_caller(good)
        status, _, body = device.request("POST", "/devices/press-07/files", b'{"blobName": "a"}')
        assert status == 200
        signature = body.decode().partition("sig=")[2].partition("&")[0]
        assert service.as_caller(wrong).request("POST", "/devices/press-07/files", b"{}")[0] == 401
        assert device.request("GET", f"/uploads/press-07/a?sig={signature}&se=1")[0] == 403

        async def story() -> None:
            for token in (good, wrong, good[:-9], good.replace("&se=", "&xx=")):
                one = await RawDevice.dial(hub.authority, _ADDRESS, 8883)
                await one.connect("press-07", token=token, host=_ADDRESS)
                await one.close()
            username = f"{scope}/registrations/press-08/api-version=2019-03-31"
            for token in (registration, wrong):
                one = await RawDevice.dial(hub.authority, _ADDRESS, 8883)
                await one.send(codec.Connect("press-08", username=username, password=token.encode()))
                assert isinstance(await one.receive(), codec.ConnAck)
                await one.close()

        asyncio.run(story())
        assert hub.process is not None
        assert hub.process.stderr is not None
        hub.process.send_signal(signal.SIGTERM)
        log = hub.process.stderr.read().decode()
        hub.stop()
        assert "device_refused" in log
        assert "registration_refused" in log
        policies = load_or_create_policies(hub.data_dir)
        secrets = [key, group_key, registration_key, signature, *(policy.primary_key for policy in policies.values())]
        secrets += [
            token.partition("sig=")[2].partition("&")[0] for token in (good, wrong, registration, service.token)
        ]
        assert [secret for secret in secrets if secret in log] == []
