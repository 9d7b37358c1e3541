"""Throttles and injected faults as clients meet them: over HTTPS with a status, over MQTT with silence or a goodbye."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud.localhub import codec
from cloud.localhub.__main__ import main
from tests.cloud.localhub.service import Service
from tests.cloud.localhub.support import Authority, HubProcess, RawDevice, hub_here, hub_process

_ADDRESS = "127.0.0.105"
_CA = {"authentication": {"type": "certificateAuthority"}}
_EVENTS = "devices/press-07/messages/events/"
_TWIN = ("$iothub/twin/GET/?$rid=1", "$iothub/twin/res/#")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with hub_process(tmp_path_factory.mktemp("hub"), _ADDRESS) as running:
        yield running


@pytest.mark.processes
def test_a_tiers_throttle_answers_429_and_when_to_come_back(hub: HubProcess) -> None:
    service = Service(hub)
    on = {"throttles": {"tier": "F1"}, "faults": []}
    assert service.call("PATCH", "/admin/switches", on)[1]["throttles"] == {"tier": "F1", "units": 1}
    # Each device of a bulk request counts: 100 a minute, and a few more that wait for their turn.
    entries = [{"id": f"many-{number}", "importMode": "create"} for number in range(100)]
    assert service.call("POST", "/devices", entries)[0] == 200
    status, headers, body = service.request("POST", "/devices", json.dumps(entries).encode())
    assert (status, json.loads(body)["Message"].partition(";")[0]) == (429, "ErrorCode:ThrottlingException")
    assert 40 <= int(headers["retry-after"]) <= 50
    # One more operation waits for its turn, and is answered.
    assert service.call("GET", "/devices/many-0")[0] == 200
    off = service.call("PATCH", "/admin/switches", {"throttles": None})[1]
    assert off == {"throttles": None, "faults": []}
    assert service.call("POST", "/devices", entries)[0] == 400


@pytest.mark.processes
def test_the_messages_of_a_day_are_counted_in_parts(hub: HubProcess) -> None:
    service = Service(hub)
    assert service.call("PUT", "/devices/chatty", _CA)[0] == 200
    service.call("PATCH", "/admin/switches", {"throttles": {"tier": "F1"}})
    # 8,000 messages of 512 bytes; a patch of 7 KB is 14.
    patch = {"tags": {"a": "x" * 3_500, "b": "y" * 3_500}}
    assert service.call("PATCH", "/twins/chatty", patch)[0] == 200
    assert service.call("GET", "/admin/switches")[1]["messagesToday"] == 14
    service.call("PATCH", "/admin/switches", {"throttles": None})


@pytest.mark.processes
def test_injected_refusals_strike_whom_they_name_and_only_the_owner_switches(hub: HubProcess) -> None:
    owner = Service(hub)
    fault = {"on": "twin_read", "device": "press-*", "kind": "refuse", "status": 500, "times": 1}
    assert owner.call("PATCH", "/admin/switches", {"faults": [fault]})[0] == 200
    for device_id in ("press-07", "other"):
        assert owner.call("PUT", f"/devices/{device_id}", _CA)[0] == 200
    assert owner.call("GET", "/twins/other")[0] == 200
    assert owner.call("GET", "/twins/press-07")[0] == 500
    assert owner.call("GET", "/twins/press-07")[0] == 200
    assert owner.call("PATCH", "/admin/switches", {"faults": [{"on": "lunch"}]})[0] == 400
    for policy in ("service", "registryReadWrite", "device"):
        assert Service(hub, policy).call("GET", "/admin/switches")[0] == 401
    assert owner.call("PATCH", "/admin/switches", {"faults": []})[0] == 200


def test_a_wrong_file_of_faults_or_number_of_units_stops_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "faults.toml").write_text("[[faults]]\non = 'lunch'\nkind = 'drop'\n")
    serve = ["serve", "--data", str(tmp_path / "hub")]
    assert main([*serve, "--faults", str(tmp_path / "faults.toml")]) == 1
    assert "Expected on = *" in capsys.readouterr().err
    assert main([*serve, "--faults", str(tmp_path / "none.toml")]) == 1
    assert main([*serve, "--tier", "S1", "--units", "0"]) == 1
    assert main([*serve, "--tier", "B7"]) == 2


async def _device(authority: Authority, port: int) -> RawDevice:
    device = await RawDevice.dial(authority, _ADDRESS, port, authority.issue("press-07"))
    assert await device.connect("press-07") == 0
    return device


def _fault(on: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"faults": [{"on": on, "kind": kind, "times": 1, **more}]}


def test_an_event_is_dropped_doubled_or_ends_the_connection_as_told(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS) as (live, authority):
            await live.hub.put_identity("press-07", _CA, etag=None)
            device = await _device(authority, live.mqtt_port)
            live.hub.gates.switch(_fault("send", "drop"))
            for packet_id, body in ((1, b"lost"), (2, b"kept")):
                await device.send(codec.Publish(_EVENTS, body, 1, packet_id))
            assert await device.receive() == codec.PubAck(2)
            live.hub.gates.switch(_fault("send", "duplicate"))
            await device.send(codec.Publish(_EVENTS, b"twice", 1, 3))
            assert await device.receive() == codec.PubAck(3)
            live.hub.gates.switch(_fault("send", "disconnect"))
            await device.send(codec.Publish(_EVENTS, b"last", 1, 4))
            assert await device.receive() is None
            await device.close()
            logged = await live.hub.events.read(after=0, limit=10, wait_s=0)
            assert [event.body for event in logged] == [b"kept", b"twice", b"twice"]

    asyncio.run(story())


def test_over_mqtt_a_twins_request_gets_the_status_and_a_connect_its_code(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS) as (live, authority):
            await live.hub.put_identity("press-07", _CA, etag=None)
            live.hub.gates.switch(_fault("connect", "refuse", status=429))
            device = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port, authority.issue("press-07"))
            assert await device.connect("press-07") == 3
            await device.close()
            device = await _device(authority, live.mqtt_port)
            get, answers = _TWIN
            await device.send(codec.Subscribe(1, ((answers, 0),)))
            assert await device.receive() == codec.SubAck(1, (0,))
            live.hub.gates.switch(_fault("twin_read", "refuse", status=429))
            await device.send(codec.Publish(get, b" "))
            refused = await device.receive()
            assert isinstance(refused, codec.Publish)
            assert refused.topic.startswith("$iothub/twin/res/429/?$rid=1")
            await device.send(codec.Publish(get, b" "))
            answered = await device.receive()
            assert isinstance(answered, codec.Publish)
            assert answered.topic.startswith("$iothub/twin/res/200/")
            await device.close()

    asyncio.run(story())


def test_an_event_beyond_the_quota_of_the_day_ends_the_connection_and_is_not_logged(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS) as (live, authority):
            await live.hub.put_identity("press-07", _CA, etag=None)
            live.hub.gates.switch({"throttles": {"tier": "F1"}})
            device = await _device(authority, live.mqtt_port)
            # 8,000 messages of 512 bytes: twenty events of 400 are all.
            for packet_id in range(1, 21):
                await device.send(codec.Publish(_EVENTS, bytes(400 * 512), 1, packet_id))
                assert await device.receive() == codec.PubAck(packet_id)
            await device.send(codec.Publish(_EVENTS, b"one too many", 1, 21))
            assert await device.receive() is None
            await device.close()
            assert live.hub.gates.switches()["messagesToday"] == 8_000
            live.hub.gates.switch({"throttles": None})
            assert len(await live.hub.events.read(after=19, limit=10, wait_s=0)) == 1

    asyncio.run(story())
