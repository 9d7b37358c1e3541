"""The unmodified azure-iot-hub against the local hub: bulk changes, modules, digital twins, and every path it knows."""

import asyncio
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

from edge_agent.hubs.iothub import IotHubDevice
from shared.hub.port import CommandReply
from shared.ids import DeviceId
from tests.cloud.localhub.azure import MARKS, Azure, failure
from tests.cloud.localhub.support import HubProcess, hub_process

pytestmark = [*MARKS, pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning")]
_KEY = "cHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHA="


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with hub_process(tmp_path_factory.mktemp("hub"), "127.0.0.104") as running:
        yield running


@pytest.fixture
def azure(hub: HubProcess, monkeypatch: pytest.MonkeyPatch) -> Azure:
    return Azure(hub, monkeypatch)


def _entry(device_id: str, mode: str, **more: Any) -> Any:
    from azure.iot.hub.models import AuthenticationMechanism, ExportImportDevice

    authentication = AuthenticationMechanism(type="certificateAuthority")
    return ExportImportDevice(id=device_id, import_mode=mode, status="enabled", authentication=authentication, **more)


def test_bulk_changes_each_succeed_or_fail_by_themselves(azure: Azure) -> None:
    from azure.iot.hub.models import PropertyContainer

    bulk = azure.registry.bulk_create_or_update_devices
    tags = {"site": "lyon"}
    created = bulk(
        [_entry(f"bulk-{n}", "create", tags=tags, properties=PropertyContainer(desired={"n": n})) for n in range(50)]
    )
    assert (created.is_successful, created.errors) == (True, [])
    rows = azure.query(
        "SELECT COUNT() AS number, SUM(properties.desired.n) AS total FROM devices WHERE tags.site = 'lyon'"
    )
    assert rows == [{"number": 50, "total": 1225}]
    stale = azure.registry.get_device("bulk-2").etag
    mixed = bulk(
        [
            _entry("bulk-0", "create"),
            _entry("bulk-1", "delete"),
            _entry("bulk-2", "update"),
            _entry("bulk-3", "updateTwin", tags={"site": "turin"}),
            _entry("bulk-99", "update"),
            _entry("bulk-2", "deleteIfMatchETag", e_tag=stale),
            _entry("bulk-4", "updateTwinIfMatchETag", twin_etag="AAAAAAAAAAk=", tags={"site": "turin"}),
            _entry("bulk-5", "create", module_id="camera"),
        ]
    )
    assert not mixed.is_successful
    assert [(error.device_id, error.error_code) for error in mixed.errors] == [
        ("bulk-0", "DeviceAlreadyExists"),
        ("bulk-99", "DeviceNotFound"),
        ("bulk-2", "PreconditionFailed"),
        ("bulk-4", "PreconditionFailed"),
    ]
    assert failure(azure.registry.get_device, "bulk-1") == (404, "DeviceNotFound")
    assert azure.registry.get_twin("bulk-3").tags == {"site": "turin"}
    assert azure.registry.get_module("bulk-5", "camera").module_id == "camera"
    # The SDK takes any 400 for a result; this one is an error.
    assert bulk([_entry(f"more-{n}", "create") for n in range(101)]).is_successful is None
    assert failure(azure.registry.get_device, "more-0") == (404, "DeviceNotFound")


def test_a_module_has_an_identity_and_a_twin_of_its_own(azure: Azure) -> None:
    from azure.iot.hub.models import CloudToDeviceMethod, Twin, TwinProperties

    registry = azure.registry
    registry.create_device_with_sas("gateway", _KEY, _KEY, "enabled")
    made = registry.create_module_with_sas("gateway", "camera", "operator", _KEY, _KEY)
    assert (made.device_id, made.module_id, made.managed_by) == ("gateway", "camera", "operator")
    registry.create_module_with_x509("gateway", "lidar", "", "A" * 40, "B" * 40)
    registry.create_module_with_certificate_authority("gateway", "radar", "")
    assert [module.module_id for module in registry.get_modules("gateway")] == ["camera", "lidar", "radar"]
    changed = registry.update_module_with_certificate_authority("gateway", "camera", "nobody", made.etag)
    assert (changed.authentication.type, changed.managed_by) == ("certificateAuthority", "nobody")
    stale = (registry.update_module_with_sas, "gateway", "camera", "operator", made.etag, _KEY, _KEY)
    assert failure(*stale) == (412, "PreconditionFailed")
    first = registry.get_module_twin("gateway", "camera")
    patch = Twin(tags={"lens": "wide"}, properties=TwinProperties(desired={"fps": 30}))
    second = registry.update_module_twin("gateway", "camera", patch, first.etag)
    assert (second.module_id, second.tags, second.properties.desired["fps"]) == ("camera", {"lens": "wide"}, 30)
    assert failure(registry.update_module_twin, "gateway", "camera", patch, first.etag) == (412, "PreconditionFailed")
    third = registry.replace_module_twin("gateway", "camera", Twin(tags={"lens": "tele"}), second.etag)
    assert (third.tags, "fps" in third.properties.desired) == ({"lens": "tele"}, False)
    rows = azure.query("SELECT deviceId, moduleId FROM devices.modules WHERE tags.lens = 'tele'")
    assert rows == [{"deviceId": "gateway", "moduleId": "camera"}]
    assert registry.get_twin("gateway").tags == {}
    method = CloudToDeviceMethod(method_name="snap", response_timeout_in_seconds=5)
    assert failure(registry.invoke_device_module_method, "gateway", "nothing", method) == (404, "ModuleNotFound")
    assert failure(registry.create_module_with_sas, "gateway", "camera", "", _KEY, _KEY)[0] == 409
    registry.delete_module("gateway", "radar", registry.get_module("gateway", "radar").etag)
    registry.delete_module("gateway", "lidar")
    registry.delete_device("gateway")
    assert failure(registry.get_module, "gateway", "camera") == (404, "ModuleNotFound")


def test_statistics_count_devices_and_connections(azure: Azure) -> None:
    azure.registry.create_device_with_sas("counted", _KEY, _KEY, "disabled")
    statistics = azure.registry.get_device_registry_statistics()
    assert statistics.disabled_device_count == 1
    assert statistics.total_device_count == statistics.enabled_device_count + 1
    assert azure.registry.get_service_statistics().connected_device_count == 0


def test_a_digital_twin_is_read_patched_and_commanded(hub: HubProcess, azure: Azure) -> None:
    azure.registry.create_device_with_certificate_authority("plug", "enabled")
    patch = [
        {"op": "add", "path": "/rate", "value": 5},
        {"op": "add", "path": "/thermostat/target", "value": 21},
    ]
    update = azure.digital_twins.update_digital_twin
    update("plug", patch)
    twin = azure.digital_twins.get_digital_twin("plug")
    assert (twin["$dtId"], twin["$metadata"]["rate"]["desiredValue"]) == ("plug", 5)
    assert twin["thermostat"]["$metadata"]["target"]["desiredValue"] == 21
    assert azure.registry.get_twin("plug").properties.desired["thermostat"] == {"__t": "c", "target": 21}
    assert failure(update, "plug", patch, '"AAAAAAAAAAk="') == (
        412,
        "PreconditionFailed",
    )
    assert failure(update, "plug", [{"op": "test", "path": "/a"}])[0] == 400
    assert failure(azure.digital_twins.get_digital_twin, "nobody") == (404, "DeviceNotFound")

    async def answer(name: str, payload: Any) -> CommandReply:
        return CommandReply(200, {name: payload})

    async def story() -> None:
        credential = hub.authority.issue("plug")
        device = IotHubDevice(
            hostname=hub.address,
            device_id=DeviceId("plug"),
            certificate_file=credential.certificate_file,
            key_file=credential.key_file,
            ca_pem=hub.authority.ca_pem,
        )
        device.on_command(answer)
        await device.connect()
        client = azure.digital_twins
        answered = await asyncio.to_thread(client.invoke_command, "plug", "reboot", {"in": 5}, 10, 20)
        assert answered == {"reboot": {"in": 5}}
        invoke = client.invoke_component_command
        answered = await asyncio.to_thread(invoke, "plug", "thermostat", "reset", 3, 10, 20)
        assert answered == {"thermostat*reset": 3}
        await device.close()

    asyncio.run(story())


def test_feedback_is_fetched_and_a_lock_that_is_not_held_is_refused(azure: Azure) -> None:
    azure.runtime.receive_feedback_notification()
    for settle in (azure.runtime.complete_feedback_notification, azure.runtime.abandon_feedback_notification):
        assert failure(settle, "00000000-0000-0000-0000-000000000000")[0] == 412


def test_every_operation_that_the_sdk_knows_has_a_route() -> None:
    """A new release of the SDK with more operations fails here, until the hub has them."""
    from azure.iot.hub.protocol import operations

    from cloud.localhub.rest.application import ROUTES

    known = {(route.method, _anonymous(route.template)) for route in ROUTES}
    found = set()
    for _, kind in inspect.getmembers(operations, inspect.isclass):
        for name, function in inspect.getmembers(kind, inspect.isfunction):
            if hasattr(function, "metadata"):
                source = inspect.getsource(function)
                (method,) = {each for each in ("get", "put", "post", "patch", "delete") if f"_client.{each}(" in source}
                found.add((method.upper(), _anonymous(function.metadata["url"]), name))
    assert len(found) > 35
    assert {(method, url, name) for method, url, name in found if (method, url) not in known} == set()


def _anonymous(template: str) -> str:
    return re.sub(r"\{\w+\}", "{}", template)
