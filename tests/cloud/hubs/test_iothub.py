"""The cloud's adapter: its tokens, its translations, and a hub that is away."""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.hubs.access import ConnectionString, ConnectionStringError
from cloud.hubs.iothub import IotHubFleet
from cloud.localhub.sas import check_sas, parse_sas
from shared.hub.port import HubRefusedError, HubUnavailableError
from shared.ids import DeviceId
from tests.cloud.localhub.support import Authority, HubProcess, hub_process

_ADDRESS = "127.0.0.18"
_KEY = base64.b64encode(b"k" * 32).decode()
_TEXT = f"HostName=localhost:8443;SharedAccessKeyName=iothubowner;SharedAccessKey={_KEY}"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with hub_process(tmp_path_factory.mktemp("hub"), _ADDRESS) as running:
        yield running


def test_a_connection_string_makes_tokens_that_the_hub_checks_and_never_shows_its_key() -> None:
    connection = ConnectionString.parse(_TEXT)
    token = parse_sas(connection.token(now=1000.0))
    check_sas(token, keys=[_KEY], resource="localhost:8443/devices/a", now=1000.0)
    assert (token.policy, token.expiry) == ("iothubowner", 4600)
    assert _KEY not in repr(connection)


@pytest.mark.parametrize("text", ["", "HostName=a", _TEXT.replace("SharedAccessKey=", "Key="), _TEXT + "!"])
def test_another_text_is_no_connection_string_and_the_error_does_not_repeat_it(text: str) -> None:
    with pytest.raises(ConnectionStringError) as failure:
        ConnectionString.parse(text)
    assert _KEY not in str(failure.value)


@pytest.mark.processes
def test_a_wrong_key_a_wrong_ca_and_a_lacking_right_are_refusals(hub: HubProcess, tmp_path: Path) -> None:
    async def story() -> None:
        good = hub.connection_string()
        wrong_key = good.rpartition("SharedAccessKey=")[0] + f"SharedAccessKey={_KEY}"
        other_ca = Authority(tmp_path).ca_file
        for text, ca_file in (
            (wrong_key, hub.authority.ca_file),
            (good, other_ca),
            (hub.connection_string("registryRead"), hub.authority.ca_file),
        ):
            fleet = IotHubFleet(text, ca_file=ca_file)
            with pytest.raises(HubRefusedError):
                await fleet.add_device(DeviceId("press-07"))
            await fleet.close()
        with pytest.raises(HubRefusedError):
            IotHubFleet(good, ca_file=tmp_path / "missing.pem")

    asyncio.run(story())


@pytest.mark.processes
def test_the_token_is_renewed_before_it_expires(hub: HubProcess) -> None:
    async def story() -> None:
        import time

        shift = -3000.0
        fleet = IotHubFleet(hub.connection_string(), ca_file=hub.authority.ca_file, clock=lambda: time.time() + shift)
        await fleet.read_events(0, limit=1, wait_s=0)
        shift = 3500.0  # The first token expired long ago.
        await fleet.read_events(0, limit=1, wait_s=0)
        await fleet.close()

    asyncio.run(story())


@pytest.mark.processes
def test_a_hub_that_is_killed_is_an_outage_and_back_after_its_start(hub: HubProcess) -> None:
    async def story() -> None:
        fleet = IotHubFleet(hub.connection_string(), ca_file=hub.authority.ca_file)
        await fleet.add_device(DeviceId("press-09"))
        reading = asyncio.ensure_future(fleet.read_events(10**9, limit=1, wait_s=30))
        await asyncio.sleep(0.1)
        hub.kill()
        with pytest.raises(HubUnavailableError):
            await asyncio.wait_for(reading, 5)
        with pytest.raises(HubUnavailableError):
            await fleet.get_twin(DeviceId("press-09"))
        await asyncio.to_thread(hub.start)
        assert (await fleet.get_twin(DeviceId("press-09"))).desired.version == 1
        await fleet.close()

    asyncio.run(story())
