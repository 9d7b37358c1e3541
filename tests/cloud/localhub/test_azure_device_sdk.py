"""The unmodified azure-iot-device against the local hub: tokens, telemetry, twins, methods, its own reconnect."""

import asyncio
import base64
import time
from collections.abc import Iterator
from typing import Any

import pytest
from azure.iot.device import Message, MethodResponse, exceptions
from azure.iot.device.aio import IoTHubDeviceClient

from cloud.hubs.iothub import IotHubFleet
from shared.ids import DeviceId
from tests.cloud.localhub.service import Service
from tests.cloud.localhub.support import HubProcess, RawDevice, eventually, hub_process
from tests.cloud.localhub.tokens import make_sas

_ADDRESS = "127.0.0.12"
_PRIMARY = base64.b64encode(b"p" * 32).decode()
_SECONDARY = base64.b64encode(b"s" * 32).decode()

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with hub_process(tmp_path_factory.mktemp("hub"), _ADDRESS) as running:
        yield running


@pytest.fixture(scope="module")
def service(hub: HubProcess) -> Service:
    return Service(hub)


def _sas_device(service: Service, device_id: str) -> None:
    keys = {"primaryKey": _PRIMARY, "secondaryKey": _SECONDARY}
    body = {"deviceId": device_id, "authentication": {"type": "sas", "symmetricKey": keys}}
    assert service.call("PUT", f"/devices/{device_id}", body)[0] == 200


def _client(hub: HubProcess, device_id: str, key: str, **options: Any) -> IoTHubDeviceClient:
    text = f"HostName={_ADDRESS};DeviceId={device_id};SharedAccessKey={key}"
    return IoTHubDeviceClient.create_from_connection_string(
        text, server_verification_cert=hub.authority.ca_pem, **options
    )


@pytest.mark.parametrize("key", [_PRIMARY, _SECONDARY])
def test_either_key_of_a_device_connects(hub: HubProcess, service: Service, key: str) -> None:
    async def story() -> None:
        device_id = f"sas-{'primary' if key == _PRIMARY else 'secondary'}"
        _sas_device(service, device_id)
        client = _client(hub, device_id, key)
        await client.connect()
        assert service.call("GET", f"/devices/{device_id}")[1]["connectionState"] == "Connected"
        await client.shutdown()

    asyncio.run(story())


def test_another_key_is_refused(hub: HubProcess, service: Service) -> None:
    async def story() -> None:
        _sas_device(service, "sas-wrong")
        client = _client(hub, "sas-wrong", base64.b64encode(b"x" * 32).decode(), connection_retry=False)
        with pytest.raises(exceptions.CredentialError):
            await client.connect()
        await client.shutdown()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("resource", "lives_s"),
    [(f"{_ADDRESS}/devices/sas-token", -10), (f"{_ADDRESS}/devices/somebody", 60), ("elsewhere/devices/sas-token", 60)],
)
def test_a_token_that_expired_or_is_for_something_else_is_refused(
    hub: HubProcess, service: Service, resource: str, lives_s: int
) -> None:
    async def story() -> None:
        service.call("DELETE", "/devices/sas-token", None, etag="*")
        _sas_device(service, "sas-token")
        good = make_sas(resource=f"{_ADDRESS}/devices/sas-token", key=_PRIMARY, expiry=int(time.time()) + 60)
        bad = make_sas(resource=resource, key=_PRIMARY, expiry=int(time.time()) + lives_s)
        codes = []
        for token in (bad, good):
            device = await RawDevice.dial(hub.authority, _ADDRESS, 8883)
            codes.append(await device.connect("sas-token", token=token, host=_ADDRESS))
            await device.close()
        assert codes == [5, 0]

    asyncio.run(story())


def test_telemetry_carries_its_properties(hub: HubProcess, service: Service) -> None:
    async def story() -> None:
        _sas_device(service, "sas-telemetry")
        client = _client(hub, "sas-telemetry", _PRIMARY)
        await client.connect()
        message = Message(  # type: ignore[no-untyped-call]
            "körper ✓", message_id="id 1", content_type="application/json", content_encoding="utf-8"
        )
        message.custom_properties["alert & more"] = "ja/nein=vielleicht"
        await client.send_message(message)
        await client.shutdown()
        page = service.call("GET", "/events?after=0&limit=1000&waitSeconds=5")[1]
        (event,) = [event for event in page["events"] if event["deviceId"] == "sas-telemetry"]
        assert base64.b64decode(event["body"]).decode() == "körper ✓"
        expected = {"$.mid": "id 1", "$.ct": "application/json", "$.ce": "utf-8", "alert & more": "ja/nein=vielleicht"}
        assert event["properties"].items() >= expected.items()

    asyncio.run(story())


def test_the_twin_and_methods_work_through_the_sdks_own_handlers(hub: HubProcess, service: Service) -> None:
    async def story() -> None:
        _sas_device(service, "sas-twin")
        client = _client(hub, "sas-twin", _PRIMARY)
        patches: list[dict[str, Any]] = []

        async def on_method(request: Any) -> None:
            reply = MethodResponse.create_from_method_request(request, 201, {"echo": request.payload})
            await client.send_method_response(reply)

        async def on_patch(patch: dict[str, Any]) -> None:
            patches.append(patch)

        await client.connect()
        client.on_method_request_received = on_method
        client.on_twin_desired_properties_patch_received = on_patch
        assert await client.get_twin() == {"desired": {"$version": 1}, "reported": {"$version": 1}}
        body = {"properties": {"desired": {"interval": 5}}}
        await asyncio.to_thread(service.call, "PATCH", "/twins/sas-twin", body)
        await eventually(lambda: patches == [{"interval": 5, "$version": 2}])
        await client.patch_twin_reported_properties({"interval": 5})
        assert (await client.get_twin())["reported"] == {"interval": 5, "$version": 2}
        call = {"methodName": "re/boot now", "payload": {"in": 3}, "responseTimeoutInSeconds": 10}
        status, answer = await asyncio.to_thread(service.call, "POST", "/twins/sas-twin/methods", call)
        assert (status, answer) == (200, {"status": 201, "payload": {"echo": {"in": 3}}})
        await client.shutdown()
        status, answer = service.call("POST", "/twins/sas-twin/methods", call)
        assert status == 404
        assert "404103" in answer["Message"]

    asyncio.run(story())


# paho 1.6 overwrites its pair of wake-up sockets at each connect of one client, without closing the old ones.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_sdks_own_reconnect_finds_its_subscriptions_after_the_hub_was_killed(
    hub: HubProcess, service: Service
) -> None:
    async def story() -> None:
        _sas_device(service, "sas-patient")
        client = _client(hub, "sas-patient", _PRIMARY, connection_retry_interval=1)
        patches: list[dict[str, Any]] = []
        client.on_background_exception = lambda error: None

        async def on_patch(patch: dict[str, Any]) -> None:
            patches.append(patch)

        await client.connect()
        client.on_twin_desired_properties_patch_received = on_patch
        hub.kill()
        await eventually(lambda: not client.connected)
        await asyncio.to_thread(hub.start)
        await eventually(lambda: bool(client.connected), timeout_s=15)
        fleet = IotHubFleet(hub.connection_string(), ca_file=hub.authority.ca_file)
        await fleet.set_desired(DeviceId("sas-patient"), {"a": 1})
        await eventually(lambda: patches[-1:] == [{"a": 1, "$version": 2}])
        await client.send_message("after the restart")
        await client.shutdown()
        await fleet.close()

    asyncio.run(story())
