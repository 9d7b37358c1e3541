"""Modules of a device: the unmodified SDK's module client, and what modules may not do."""

import asyncio
import base64
import time
from pathlib import Path
from typing import Any

import pytest
from azure.iot.device import MethodResponse
from azure.iot.device.aio import IoTHubModuleClient

from cloud.localhub.devices import split_key
from cloud.localhub.errors import ServiceError
from cloud.localhub.limits import Limits
from tests.cloud.localhub.support import Authority, RawDevice, eventually, hub_here
from tests.cloud.localhub.tokens import make_sas

_ADDRESS = "127.0.0.92"
_KEY = base64.b64encode(b"m" * 32).decode()
_SAS = {"authentication": {"type": "sas", "symmetricKey": {"primaryKey": _KEY, "secondaryKey": _KEY}}}
_CA = {"authentication": {"type": "certificateAuthority"}}


def _token(resource: str) -> str:
    return make_sas(resource=resource, key=_KEY, expiry=int(time.time()) + 60)


@pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning")
def test_the_sdks_module_client_has_twin_methods_and_events_of_its_own(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS, mqtt_port=8883) as (live, authority):
            hub = live.hub
            await hub.put_identity("press-07", _SAS, etag=None)
            await hub.put_identity("press-07/camera", _SAS, etag=None)
            text = f"HostName={_ADDRESS};DeviceId=press-07;ModuleId=camera;SharedAccessKey={_KEY}"
            client = IoTHubModuleClient.create_from_connection_string(text, server_verification_cert=authority.ca_pem)
            patches: list[dict[str, Any]] = []

            async def on_method(request: Any) -> None:
                await client.send_method_response(MethodResponse.create_from_method_request(request, 200, {"ok": 1}))

            async def on_patch(patch: dict[str, Any]) -> None:
                patches.append(patch)

            await client.connect()
            # Setting a handler subscribes, and waits for it; the hub answers in this loop.
            await asyncio.to_thread(setattr, client, "on_method_request_received", on_method)
            await asyncio.to_thread(setattr, client, "on_twin_desired_properties_patch_received", on_patch)
            await client.patch_twin_reported_properties({"lens": "wide"})
            await client.send_message("seen")
            await hub.patch_twin("press-07/camera", {"properties": {"desired": {"zoom": 2}}}, etag="*")
            await eventually(lambda: patches == [{"zoom": 2, "$version": 2}])
            result = await hub.invoke_method("press-07/camera", {"methodName": "look"})
            assert (result.status, result.payload) == (200, {"ok": 1})
            twin = hub.twin_form(await hub.get_device("press-07/camera"))
            assert (twin["deviceId"], twin["moduleId"], twin["connectionState"]) == ("press-07", "camera", "Connected")
            assert twin["properties"]["reported"]["lens"] == "wide"
            assert (await hub.get_device("press-07")).twin.reported.document == {}
            await client.shutdown()

    asyncio.run(story())


def test_a_module_proves_itself_as_itself_and_not_as_its_device(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS) as (live, authority):
            for key, body in (("press-07", _SAS), ("press-07/camera", _SAS), ("press-07/lamp", _CA)):
                await live.hub.put_identity(key, body, etag=None)
            own = _token("hub/devices/press-07/modules/camera")
            other = _token("hub/devices/press-07/modules/lamp")
            codes = [await _connect(live, authority, "press-07/camera", token) for token in (own, other)]
            assert codes == [0, 5]
            assert await _connect(live, authority, "press-07/nobody", own) == 5
            assert await _connect(live, authority, "press-07/lamp", None, certificate="press-07/lamp") == 0
            assert await _connect(live, authority, "press-07/lamp", None, certificate="press-07") == 5

    asyncio.run(story())


def test_modules_go_with_their_device(tmp_path: Path) -> None:
    async def story() -> None:
        async with hub_here(tmp_path, _ADDRESS, limits=Limits(modules_max=2)) as (live, authority):
            hub = live.hub
            with pytest.raises(ServiceError, match="press-07"):
                await hub.put_identity("press-07/camera", _SAS, etag=None)
            await hub.put_identity("press-07", _SAS, etag=None)
            for name in ("camera", "lamp"):
                await hub.put_identity(f"press-07/{name}", _SAS, etag=None)
            with pytest.raises(ServiceError) as refused:
                await hub.put_identity("press-07/third", _SAS, etag=None)
            assert refused.value.name == "TooManyModulesOnDevice"
            assert [module.identity.module_id for module in await hub.list_modules("press-07")] == ["camera", "lamp"]
            device = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port)
            token = _token("hub/devices/press-07/modules/camera")
            assert await device.connect("press-07/camera", token=token) == 0
            await hub.put_identity("press-07", {**_SAS, "status": "disabled"}, etag="*")
            assert await device.receive() is None
            await device.close()
            assert await _connect(live, authority, "press-07/camera", token) == 5
            await hub.delete_identity("press-07", etag="*")
            with pytest.raises(ServiceError, match="not registered"):
                await hub.get_device("press-07/camera")

    asyncio.run(story())


@pytest.mark.parametrize("key", ["a/b/c", "/a", "a/", "", "a b", "a/b b"])
def test_a_key_that_names_no_device_or_module_is_refused(key: str) -> None:
    with pytest.raises(ServiceError):
        split_key(key)


async def _connect(
    live: Any, authority: Authority, key: str, token: str | None, *, certificate: str | None = None
) -> int:
    credential = None if certificate is None else authority.issue(certificate, file_name="module")
    device = await RawDevice.dial(authority, _ADDRESS, live.mqtt_port, credential)
    code = await device.connect(key, token=token)
    await device.close()
    return code
