"""What goes wrong around the hub, and that only the one who did it notices."""

import asyncio
import contextlib
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloud.hubs.iothub import IotHubFleet
from cloud.localhub import codec, session
from cloud.localhub.limits import Limits
from shared.ids import DeviceId
from tests.cloud.localhub.support import REPOSITORY, Authority, RawDevice, eventually, hub_here, hub_process
from tests.cloud.localhub.tokens import make_sas

_ADDRESS = "127.0.0.13"
_CA = {"authentication": {"type": "certificateAuthority"}}


def _events(device_id: str) -> str:
    return f"devices/{device_id}/messages/events/"


def test_a_certificate_of_another_ca_does_not_pass_the_handshake(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS) as (live, authority):
            await live.hub.put_identity("press-07", _CA, etag=None)
            stranger = Authority(tmp_path / "other").issue("press-07")
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                device = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port, stranger)
                # In TLS 1.3 the client learns of the refusal only when it reads.
                await device.send(codec.Connect("press-07", username="hub/press-07/?api-version=2021-04-12"))
                assert await device.receive() is None
                await device.close()
            assert len(live.hub.links) == 0

    asyncio.run(story())


def test_an_expired_certificate_does_not_pass_the_handshake(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS) as (live, authority):
            await live.hub.put_identity("press-07", _CA, etag=None)
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                expired = authority.issue("press-07", expired=True)
                device = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port, expired)
                await device.send(codec.Connect("press-07", username="hub/press-07/?api-version=2021-04-12"))
                assert await device.receive() is None
                await device.close()
            assert len(live.hub.links) == 0

    asyncio.run(story())


def test_a_certificate_of_another_device_or_none_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS) as (live, authority):
            await live.hub.put_identity("press-07", _CA, etag=None)
            await live.hub.put_identity("press-08", _CA, etag=None)
            for credential in (authority.issue("press-08"), None):
                device = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port, credential)
                assert await device.connect("press-07") == 5
                assert await device.receive() is None
                await device.close()
            assert len(live.hub.links) == 0

    asyncio.run(story())


def test_a_disabled_device_is_cut_off_and_stays_out(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS) as (live, authority):
            await live.hub.put_identity("press-07", _CA, etag=None)
            credential = authority.issue("press-07")
            device = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port, credential)
            assert await device.connect("press-07") == 0
            await live.hub.put_identity("press-07", {**_CA, "status": "disabled"}, etag="*")
            assert await device.receive() is None
            again = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port, credential)
            assert await again.connect("press-07") == 5
            await device.close()
            await again.close()

    asyncio.run(story())


def test_an_oversized_event_closes_only_that_connection(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS) as (live, authority):
            devices = []
            for name in ("good", "greedy"):
                await live.hub.put_identity(name, _CA, etag=None)
                device = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port, authority.issue(name))
                assert await device.connect(name) == 0
                devices.append(device)
            good, greedy = devices
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await greedy.send(codec.Publish(_events("greedy"), bytes(session.EVENT_BYTES_MAX + 1), 1, 1))
            assert await greedy.receive() is None
            await good.send(codec.Publish(_events("good"), b"fine", 1, 1))
            assert await good.receive() == codec.PubAck(1)
            assert [event.body for event in await live.hub.events.read(after=0, limit=10, wait_s=0)] == [b"fine"]
            for device in devices:
                await device.close()

    asyncio.run(story())


def test_slow_handshakes_and_connects_end_and_block_nobody(tmp_path: Path) -> None:
    async def story() -> None:
        limits = Limits(handshake_s=0.5, connect_s=0.5)
        async with hub_here(tmp_path, _ADDRESS, limits=limits) as (live, authority):
            await live.hub.put_identity("press-07", _CA, etag=None)
            silent = [await asyncio.open_connection(_ADDRESS, live.mqtt_port) for _ in range(20)]
            mute = [await RawDevice.dial(authority, _ADDRESS, live.mqtt_port) for _ in range(5)]
            for device in mute:
                device.writer.write(b"\x10\x50\x00")  # The beginning of a CONNECT, and then nothing.
            device = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port, authority.issue("press-07"))
            assert await device.connect("press-07") == 0
            for reader, writer in silent:
                with contextlib.suppress(ConnectionError):
                    assert await asyncio.wait_for(reader.read(100), 5) == b""
                writer.close()
            for slow in mute:
                assert await slow.receive(timeout_s=5) is None
                await slow.close()
            await device.send(codec.PingReq())
            assert await device.receive() == codec.PingResp()
            await device.close()

    asyncio.run(story())


def test_a_device_that_stays_silent_beyond_its_keep_alive_is_closed_and_its_will_logged(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS) as (live, authority):
            await live.hub.put_identity("press-07", _CA, etag=None)
            device = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port, authority.issue("press-07"))
            will = codec.Will(_events("press-07"), b"gone")
            assert await device.connect("press-07", keep_alive_s=1, will=will) == 0
            assert await device.receive(timeout_s=5) is None
            (event,) = await live.hub.events.read(after=0, limit=10, wait_s=5)
            assert (event.body, event.properties) == (b"gone", {"iothub-MessageType": "Will"})
            await device.close()

    asyncio.run(story())


def test_a_connection_ends_when_its_token_expires(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS) as (live, authority):
            key = (await live.hub.put_identity("press-07", {}, etag=None)).identity.primary_key or ""
            token = make_sas(resource="hub/devices/press-07", key=key, expiry=int(time.time()) + 1)
            device = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port)
            assert await device.connect("press-07", token=token) == 0
            assert await device.receive(timeout_s=5) is None
            await device.close()

    asyncio.run(story())


def test_a_connection_above_the_bound_is_closed_and_room_is_made_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS, limits=Limits(connections_max=1)) as (live, authority):
            first = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await RawDevice.dial(authority, _ADDRESS, live.mqtt_port)
            await first.close()
            async with asyncio.timeout(5):
                while True:
                    with contextlib.suppress(ssl.SSLError, ConnectionError):
                        again = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port)
                        break
                    await asyncio.sleep(0.02)
            await again.close()

    asyncio.run(story())


def test_a_device_never_hears_what_another_was_told(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS) as (live, authority):
            devices = {}
            for name in ("one", "other"):
                await live.hub.put_identity(name, _CA, etag=None)
                device = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port, authority.issue(name))
                assert await device.connect(name) == 0
                wanted = ("$iothub/methods/POST/#", "$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#")
                await device.send(codec.Subscribe(1, tuple((topic, 0) for topic in wanted)))
                assert await device.receive() == codec.SubAck(1, (0, 0, 0))
                devices[name] = device
            await live.hub.patch_twin("one", {"properties": {"desired": {"secret": 1}}}, etag="*")
            calling = asyncio.ensure_future(live.hub.invoke_method("one", {"methodName": "reboot"}))
            heard = [await devices["one"].receive() for _ in range(2)]
            assert [type(packet) for packet in heard] == [codec.Publish, codec.Publish]
            await devices["other"].send(codec.PingReq())
            assert await devices["other"].receive() == codec.PingResp()
            # Even the right request id helps the other device nothing.
            await devices["other"].send(codec.Publish("$iothub/methods/res/200/?$rid=1", b"{}"))
            await devices["other"].send(codec.PingReq())
            assert await devices["other"].receive() == codec.PingResp()
            assert not calling.done()
            await devices["one"].send(codec.Publish("$iothub/methods/res/204/?$rid=1", b""))
            assert (await asyncio.wait_for(calling, 5)).status == 204
            for device in devices.values():
                await device.close()

    asyncio.run(story())


@pytest.mark.processes
def test_killed_under_load_the_hub_has_every_event_it_acknowledged(tmp_path: Path) -> None:
    with hub_process(tmp_path, _ADDRESS) as hub:
        acknowledged: set[bytes] = set()

        async def load(name: str) -> None:
            device = await RawDevice.dial(hub.authority, _ADDRESS, 8883, hub.authority.issue(name))
            assert await device.connect(name) == 0
            sent: dict[int, bytes] = {}
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                for number in range(1, 20_000):
                    sent[number] = f"{name} {number}".encode()
                    await device.send(codec.Publish(_events(name), sent[number], 1, number))
                    while len(sent) >= 16:
                        answer = await device.receive()
                        if not isinstance(answer, codec.PubAck):
                            raise ConnectionResetError
                        acknowledged.add(sent.pop(answer.packet_id))
            await device.close()

        async def story() -> None:
            fleet = IotHubFleet(hub.connection_string(), ca_file=hub.authority.ca_file)
            names = [f"load-{number}" for number in range(4)]
            for name in names:
                await fleet.add_device(DeviceId(name))
            tasks = [asyncio.ensure_future(load(name)) for name in names]
            await eventually(lambda: len(acknowledged) >= 500, timeout_s=30)
            hub.kill()
            await asyncio.wait_for(asyncio.gather(*tasks), 10)
            hub.start()
            kept: set[bytes] = set()
            after = 0
            while page := await fleet.read_events(after, limit=1000, wait_s=0):
                kept |= {event.payload for event in page}
                assert [event.offset for event in page] == list(range(after + 1, after + 1 + len(page)))
                after = page[-1].offset
            assert acknowledged - kept == set()
            assert (await fleet.get_twin(DeviceId("load-0"))).desired.version == 1
            await fleet.close()

        asyncio.run(story())


@pytest.mark.processes
def test_the_hub_stops_cleanly_and_a_second_one_keeps_off_its_folder(tmp_path: Path) -> None:
    with hub_process(tmp_path, _ADDRESS) as hub:
        command = [sys.executable, "-m", "cloud.localhub", "serve", "--data", str(hub.data_dir)]
        command += ["--address", _ADDRESS, "--mqtt-port", "0", "--rest-port", "0"]
        command += ["--certificate", str(hub.credential.certificate_file), "--key", str(hub.credential.key_file)]
        command += ["--client-ca", str(hub.authority.ca_file)]
        second = subprocess.run(command, capture_output=True, timeout=30, cwd=REPOSITORY, check=False)
        assert second.returncode == 1
        assert b"another hub works on it" in second.stderr
        assert hub.stop() == 0
