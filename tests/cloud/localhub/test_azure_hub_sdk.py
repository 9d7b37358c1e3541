"""The unmodified azure-iot-hub against the local hub: identities, twins, queries, methods."""

import asyncio
import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edge_agent.hubs.iothub import IotHubDevice
from shared.hub.port import CommandReply
from shared.ids import DeviceId
from tests.cloud.localhub.support import HubProcess, hub_process

_ADDRESS = "127.0.0.14"

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
    # requests leaves its sessions to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with hub_process(tmp_path_factory.mktemp("hub"), _ADDRESS) as running:
        yield running


@pytest.fixture
def registry(hub: HubProcess, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An IoTHubRegistryManager; untyped."""
    from azure.iot.hub import IoTHubRegistryManager

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(hub.authority.ca_file))
    monkeypatch.setenv("NO_PROXY", _ADDRESS)
    return IoTHubRegistryManager.from_connection_string(hub.connection_string())


def _status(call: Any, *arguments: object) -> int:
    """The HTTP status a call fails with."""
    from msrest.exceptions import HttpOperationError

    with pytest.raises(HttpOperationError) as failure:
        call(*arguments)
    return int(failure.value.response.status_code)


def test_an_identity_lives_through_create_get_update_delete(registry: Any) -> None:
    keys = [base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2, 3)]
    made = registry.create_device_with_sas("press-1", keys[0], keys[1], "enabled")
    assert (made.device_id, made.status, made.connection_state) == ("press-1", "enabled", "Disconnected")
    assert registry.get_device("press-1").authentication.symmetric_key.primary_key == keys[0]
    changed = registry.update_device_with_sas("press-1", made.etag, keys[2], keys[1], "disabled")
    assert (changed.status, changed.authentication.symmetric_key.primary_key) == ("disabled", keys[2])
    assert changed.generation_id == made.generation_id
    assert changed.etag != made.etag
    assert _status(registry.update_device_with_sas, "press-1", made.etag, keys[0], keys[1], "enabled") == 412
    assert _status(registry.create_device_with_sas, "press-1", keys[0], keys[1], "enabled") == 409
    assert _status(registry.delete_device, "press-1", made.etag) == 412
    registry.delete_device("press-1", changed.etag)
    assert _status(registry.get_device, "press-1") == 404
    assert _status(registry.delete_device, "press-1") == 404


def test_every_way_to_authenticate_can_be_registered(registry: Any) -> None:
    registry.create_device_with_certificate_authority("by-ca", "enabled")
    assert registry.get_device("by-ca").authentication.type == "certificateAuthority"
    registry.create_device_with_x509("by-thumbprint", "A" * 40, "B" * 40, "enabled")
    assert registry.get_device("by-thumbprint").authentication.x509_thumbprint.primary_thumbprint == "A" * 40
    assert _status(registry.create_device_with_x509, "bad-thumbprint", "zz", "zz", "enabled") == 400
    names = {device.device_id for device in registry.get_devices()}
    assert {"by-ca", "by-thumbprint"} <= names
    statistics = registry.get_device_registry_statistics()
    assert statistics.total_device_count == statistics.enabled_device_count == len(names)


def test_a_twin_merges_replaces_and_guards_its_etag(registry: Any) -> None:
    from azure.iot.hub.models import Twin, TwinProperties

    registry.create_device_with_certificate_authority("twin-1", "enabled")
    first = registry.get_twin("twin-1")
    assert first.properties.desired["$version"] == 1
    patch = Twin(tags={"site": "lyon"}, properties=TwinProperties(desired={"interval": 5, "old": {"a": 1}}))
    second = registry.update_twin("twin-1", patch, first.etag)
    assert second.tags == {"site": "lyon"}
    assert (second.properties.desired["interval"], second.properties.desired["$version"]) == (5, 2)
    assert second.properties.desired["$metadata"]["interval"]["$lastUpdatedVersion"] == 2
    assert _status(registry.update_twin, "twin-1", patch, first.etag) == 412
    whole = Twin(tags={"line": 3}, properties=TwinProperties(desired={"interval": 9}))
    third = registry.replace_twin("twin-1", whole, second.etag)
    assert third.tags == {"line": 3}
    assert "old" not in third.properties.desired
    assert third.properties.desired["$version"] == 3
    too_much = Twin(properties=TwinProperties(desired={f"k{n}": "x" * 4000 for n in range(9)}))
    assert _status(registry.update_twin, "twin-1", too_much) == 413
    assert _status(registry.update_twin, "nobody", patch) == 404


def test_a_query_selects_and_pages(registry: Any) -> None:
    from azure.iot.hub.models import QuerySpecification, Twin

    for number in range(5):
        registry.create_device_with_certificate_authority(f"query-{number}", "enabled")
        registry.update_twin(f"query-{number}", Twin(tags={"site": "lyon" if number % 2 else "turin", "n": number}))
    query = QuerySpecification(query="SELECT * FROM devices WHERE tags.n >= 1 AND NOT tags.site = 'lyon'")
    assert [twin.device_id for twin in registry.query_iot_hub(query).items] == ["query-2", "query-4"]
    everything = QuerySpecification(query="select * from devices where is_defined(tags.n)")
    found, token, pages = [], None, 0
    while True:
        page = registry.query_iot_hub(everything, token, 2)
        found += [twin.device_id for twin in page.items]
        token, pages = page.continuation_token, pages + 1
        if token is None:
            break
    assert found == [f"query-{number}" for number in range(5)]
    assert pages == 3
    for refused in ("SELECT * FROM clouds", "SELECT COUNT() FROM devices", "SELECT * FROM devices GROUP BY x", "x"):
        assert _status(registry.query_iot_hub, QuerySpecification(query=refused)) == 400


@pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning")
def test_a_method_reaches_a_connected_device_and_fails_as_on_iot_hub_otherwise(hub: HubProcess, registry: Any) -> None:
    from azure.iot.hub.models import CloudToDeviceMethod

    registry.create_device_with_certificate_authority("method-1", "enabled")
    method = CloudToDeviceMethod(method_name="sync", payload={"a": 1}, response_timeout_in_seconds=5)
    assert _status(registry.invoke_device_method, "method-1", method) == 404
    hasty = CloudToDeviceMethod(method_name="sync", response_timeout_in_seconds=1)
    assert _status(registry.invoke_device_method, "method-1", hasty) == 400

    async def answer(name: str, payload: Any) -> CommandReply:
        return CommandReply(200, {name: payload})

    async def story() -> None:
        credential = hub.authority.issue("method-1")
        device = IotHubDevice(
            hostname=_ADDRESS,
            device_id=DeviceId("method-1"),
            certificate_file=credential.certificate_file,
            key_file=credential.key_file,
            ca_pem=hub.authority.ca_pem,
        )
        device.on_command(answer)
        # A caller may wait for the device to come.
        patient = CloudToDeviceMethod(method_name="sync", payload={"a": 1}, connect_timeout_in_seconds=20)
        calling = asyncio.ensure_future(asyncio.to_thread(registry.invoke_device_method, "method-1", patient))
        await device.connect()
        result = await asyncio.wait_for(calling, 20)
        assert (result.status, result.payload) == (200, {"sync": {"a": 1}})
        await device.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        ("iothubowner", {"identity", "write", "twin"}),
        ("registryRead", {"identity"}),
        ("registryReadWrite", {"identity", "write"}),
        ("service", {"twin"}),
        ("device", set()),
    ],
)
def test_a_policy_allows_its_rights_and_no_more(hub: HubProcess, registry: Any, policy: str, allowed: set[str]) -> None:
    from azure.iot.hub import IoTHubRegistryManager
    from msrest.exceptions import HttpOperationError

    registry.create_device_with_certificate_authority(f"rights-{policy.lower()}", "enabled")
    caller = IoTHubRegistryManager.from_connection_string(hub.connection_string(policy))
    calls: dict[str, Callable[[], object]] = {
        "identity": lambda: caller.get_device(f"rights-{policy.lower()}"),
        "write": lambda: caller.create_device_with_certificate_authority(f"made-by-{policy.lower()}", "enabled"),
        "twin": lambda: caller.get_twin(f"rights-{policy.lower()}"),
    }
    for name in allowed:
        calls[name]()
    for name in calls.keys() - allowed:
        with pytest.raises(HttpOperationError) as failure:
            calls[name]()
        assert failure.value.response.status_code == 401
        assert "ErrorCode:IotHubUnauthorizedAccess" in failure.value.response.json()["Message"]
