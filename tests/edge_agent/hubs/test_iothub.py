"""The device's adapter under faults: it never hangs, says what happened, and leaves no threads behind."""

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.hubs.iothub import IotHubFleet
from edge_agent.hubs.iothub import IotHubDevice
from shared.hub.port import CommandReply, HubRefusedError, HubUnavailableError
from shared.ids import DeviceId
from tests.cloud.localhub.support import Authority, Credential, HubProcess, hub_process

_ADDRESS = "127.0.0.15"
_SILENT_ADDRESS = "127.0.0.16"
_NOBODY_ADDRESS = "127.0.0.17"
_DEVICE = DeviceId("press-07")

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with hub_process(tmp_path_factory.mktemp("hub"), _ADDRESS) as running:
        fleet = IotHubFleet(running.connection_string(), ca_file=running.authority.ca_file)

        async def add() -> None:
            await fleet.add_device(_DEVICE)
            await fleet.close()

        asyncio.run(add())
        yield running
        gc.collect()


def _device(
    authority: Authority, credential: Credential, *, hostname: str = _ADDRESS, connect_timeout_s: float = 10
) -> IotHubDevice:
    return IotHubDevice(
        hostname=hostname,
        device_id=_DEVICE,
        certificate_file=credential.certificate_file,
        key_file=credential.key_file,
        ca_pem=authority.ca_pem,
        keep_alive_s=2,
        connect_timeout_s=connect_timeout_s,
    )


def test_it_survives_the_hub_being_killed_again_and_again_and_leaks_no_threads(hub: HubProcess) -> None:
    async def answer(name: str, payload: object) -> CommandReply:
        return CommandReply(200, payload)

    async def story() -> list[int]:
        device = _device(hub.authority, hub.authority.issue(_DEVICE))
        device.on_command(answer)
        threads = []
        await device.connect()
        for number in range(4):
            hub.kill()
            await asyncio.wait_for(device.wait_closed(), 2)
            with pytest.raises(HubUnavailableError):
                await device.send_event(b"nobody listens")
            with pytest.raises(HubUnavailableError):
                await device.connect()
            await asyncio.to_thread(hub.start)
            await device.connect()
            await device.send_event(b"%d" % number)
            await device.report({"number": number})
            threads.append(threading.active_count())
        await device.close()
        return threads

    threads = asyncio.run(story())
    assert threads[-1] <= threads[0] + 1


def test_a_call_in_flight_ends_when_the_connection_does(hub: HubProcess) -> None:
    async def story() -> None:
        device = _device(hub.authority, hub.authority.issue(_DEVICE))
        await device.connect()
        assert hub.process is not None
        sending = asyncio.gather(*(device.send_event(bytes(100_000)) for _ in range(50)), return_exceptions=True)
        hub.kill()
        results = await asyncio.wait_for(sending, 5)
        assert {type(result) for result in results} <= {HubUnavailableError, type(None)}
        await device.close()
        await asyncio.to_thread(hub.start)

    asyncio.run(story())


def test_a_certificate_that_the_hub_does_not_accept_is_a_refusal_not_an_outage(hub: HubProcess, tmp_path: Path) -> None:
    async def story() -> None:
        stranger = Authority(tmp_path / "other").issue(_DEVICE)
        expired = hub.authority.issue(_DEVICE, expired=True)
        for credential in (stranger, expired, hub.authority.issue("press-08")):
            device = _device(hub.authority, credential)
            with pytest.raises(HubRefusedError):
                await device.connect()
            await device.close()

    asyncio.run(story())


def test_a_hub_with_a_certificate_of_another_ca_is_refused(hub: HubProcess, tmp_path: Path) -> None:
    async def story() -> None:
        device = _device(Authority(tmp_path / "other"), hub.authority.issue(_DEVICE))
        with pytest.raises(HubRefusedError, match="certificate"):
            await device.connect()

    asyncio.run(story())


def test_a_missing_or_damaged_identity_is_refused_with_a_hint(hub: HubProcess, tmp_path: Path) -> None:
    async def story() -> None:
        damaged = Credential(tmp_path / "a.pem", tmp_path / "a.key")
        with pytest.raises(HubRefusedError) as failure:
            await _device(hub.authority, damaged).connect()
        assert "Enrol" in failure.value.hint

    asyncio.run(story())


# paho's handshake goes on in the SDK's thread, and its socket is left to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_hub_that_accepts_and_stays_silent_does_not_hang_the_agent(hub: HubProcess) -> None:
    async def story() -> None:
        with socket.create_server((_SILENT_ADDRESS, 8883)):
            credential = hub.authority.issue(_DEVICE)
            device = _device(hub.authority, credential, hostname=_SILENT_ADDRESS, connect_timeout_s=0.5)
            started = time.monotonic()
            with pytest.raises(HubUnavailableError):
                await device.connect()
            assert time.monotonic() - started < 10
        del device
        gc.collect()

    asyncio.run(story())


def test_nobody_listening_is_an_outage(hub: HubProcess) -> None:
    async def story() -> None:
        device = _device(hub.authority, hub.authority.issue(_DEVICE), hostname=_NOBODY_ADDRESS)
        with pytest.raises(HubUnavailableError, match="refused"):
            await device.connect()
        await asyncio.wait_for(device.wait_closed(), 1)

    asyncio.run(story())
