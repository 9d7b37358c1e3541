"""Who may connect, and as whom: policies' tokens, both keys of everything, and one connection an identity."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from cloud.localhub import codec
from tests.cloud.localhub.support import Authority, RawDevice, hub_here
from tests.cloud.localhub.tokens import make_sas

_ADDRESS = "127.0.0.89"
_HOST = "hub.example"
_USERNAME = f"{_HOST}/press-07/?api-version=2021-04-12"


def _token(live: Any, policy: str, *, secondary: bool = False, resource: str = _HOST, lives_s: int = 60) -> str:
    keys = live.hub.policies[policy]
    key = keys.secondary_key if secondary else keys.primary_key
    return make_sas(resource=resource, key=key, expiry=int(time.time()) + lives_s, policy=policy)


async def _code(live: Any, authority: Authority, token: str, username: str = _USERNAME) -> int:
    device = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port)
    await device.send(codec.Connect("press-07", username=username, password=token.encode()))
    answer = await device.receive()
    assert isinstance(answer, codec.ConnAck)
    await device.close()
    return answer.return_code


def test_a_policy_with_device_connect_opens_any_device_by_either_key_until_it_expires(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS) as (live, authority):
            await live.hub.put_identity("press-07", {}, etag=None)
            good = [
                _token(live, "device"),
                _token(live, "device", secondary=True),
                _token(live, "iothubowner"),
                _token(live, "device", resource=f"{_HOST}/devices/press-07"),
            ]
            bad = [
                _token(live, "service"),
                _token(live, "registryReadWrite"),
                _token(live, "device", resource="other.example"),
                _token(live, "device", resource=f"{_HOST}/devices/press-08"),
                _token(live, "device", lives_s=-1),
                _token(live, "device").replace("skn=device", "skn=service"),
                "",
                "SharedAccessSignature sr=a",
            ]
            assert [await _code(live, authority, token) for token in good] == [0] * len(good)
            assert [await _code(live, authority, token) for token in bad] == [5] * len(bad)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("username", "code"),
    [
        (f"{_HOST}/press-07/?api-version=2018-06-30", 0),
        (f"{_HOST}/press-07/?api-version=2021-04-12&DeviceClientType=azure-iot-device%2F2.14.0", 0),
        (f"{_HOST}/press-07/?api-version=2020-09-30&model-id=dtmi%3Acom%3Aexample%3BThermostat%3B1", 0),
        (f"{_HOST}/press-07/?DeviceClientType=x", 4),
        (f"{_HOST}/press-07/?api-version=soon", 4),
        (f"{_HOST}/press-07", 4),
        ("press-07", 4),
        (f"{_HOST}/press-08/?api-version=2021-04-12", 2),
        (f"{_HOST}/press-07/camera/?api-version=2021-04-12", 2),
    ],
)
def test_the_user_name_says_which_device_and_which_api_version(tmp_path: Path, username: str, code: int) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS) as (live, authority):
            await live.hub.put_identity("press-07", {}, etag=None)
            assert await _code(live, authority, _token(live, "device"), username) == code

    asyncio.run(story())


def test_a_second_connection_closes_the_first_and_publishes_its_will(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS) as (live, authority):
            await live.hub.put_identity("press-07", {}, etag=None)
            will = codec.Will("devices/press-07/messages/events/", b"replaced")
            devices = [await RawDevice.dial(authority, _ADDRESS, live.mqtt_port) for _ in range(2)]
            for device, its_will in zip(devices, (will, None), strict=True):
                token = _token(live, "device").encode()
                await device.send(codec.Connect("press-07", username=_USERNAME, password=token, will=its_will))
                assert await device.receive() == codec.ConnAck(0)
            first, second = devices
            assert await first.receive() is None
            await second.send(codec.PingReq())
            assert await second.receive() == codec.PingResp()
            (event,) = await live.hub.events.read(after=0, limit=10, wait_s=10)
            assert event.body == b"replaced"
            await first.close()
            await second.close()

    asyncio.run(story())
