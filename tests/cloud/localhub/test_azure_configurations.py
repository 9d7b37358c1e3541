"""The unmodified IoTHubConfigurationManager against the local hub: configurations, and the twins they change."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cloud.localhub.azure import MARKS, Azure, failure
from tests.cloud.localhub.support import HubProcess, hub_process
from tests.support.waiting import wait_until

pytestmark = MARKS
_PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with hub_process(tmp_path_factory.mktemp("hub"), "127.0.0.102") as running:
        yield running


@pytest.fixture
def azure(hub: HubProcess, monkeypatch: pytest.MonkeyPatch) -> Azure:
    return Azure(hub, monkeypatch)


def _configuration(name: str, target: str, content: dict[str, Any], **more: Any) -> Any:
    from azure.iot.hub.models import Configuration, ConfigurationContent

    return Configuration(id=name, target_condition=target, content=ConfigurationContent(device_content=content), **more)


def _add(azure: Azure, device_id: str, **tags: Any) -> None:
    from azure.iot.hub.models import Twin

    azure.registry.create_device_with_certificate_authority(device_id, "enabled")
    azure.registry.update_twin(device_id, Twin(tags=tags))


def _wait_for_desired(azure: Azure, device_id: str, expected: dict[str, Any]) -> None:
    def desired() -> dict[str, Any]:
        found = azure.registry.get_twin(device_id).properties.desired
        return {name: value for name, value in found.items() if not name.startswith("$")}

    wait_until(lambda: desired() == expected, timeout_s=_PATIENCE_S, otherwise=lambda: f"{desired()} != {expected}")


def test_a_configuration_follows_the_devices_that_its_condition_targets(hub: HubProcess, azure: Azure) -> None:
    from azure.iot.hub.models import ConfigurationMetrics, Twin

    _add(azure, "press-1", site="lyon")
    _add(azure, "press-2", site="turin")
    metrics = ConfigurationMetrics(queries={"slow": "SELECT deviceId FROM devices WHERE properties.desired.rate > 3"})
    made = azure.configurations.create_configuration(
        _configuration("rate", "tags.site='lyon'", {"properties.desired.rate": 5}, priority=10, metrics=metrics)
    )
    _wait_for_desired(azure, "press-1", {"rate": 5})
    # A device that appears later, and one that moves there.
    _add(azure, "press-3", site="lyon")
    _wait_for_desired(azure, "press-3", {"rate": 5})
    azure.registry.update_twin("press-2", Twin(tags={"site": "lyon"}))
    _wait_for_desired(azure, "press-2", {"rate": 5})
    # One that moves away; then a second configuration of higher priority, then none.
    azure.registry.update_twin("press-1", Twin(tags={"site": "turin"}))
    _wait_for_desired(azure, "press-1", {})
    found = azure.configurations.get_configuration("rate")
    assert (found.id, found.etag, found.priority) == ("rate", made.etag, 10)
    assert found.system_metrics.results == {"targetedCount": 2, "appliedCount": 2}
    assert found.metrics.results == {"slow": 2}
    rows = azure.query("SELECT deviceId FROM devices WHERE configurations.[[rate]].status = 'Applied'")
    assert rows == [{"deviceId": "press-2"}, {"deviceId": "press-3"}]
    azure.configurations.create_configuration(
        _configuration("faster", "deviceId='press-3'", {"properties.desired.rate": 1}, priority=20)
    )
    _wait_for_desired(azure, "press-3", {"rate": 1})
    assert [each.id for each in azure.configurations.get_configurations()] == ["faster", "rate"]
    assert azure.configurations.get_configuration("rate").system_metrics.results == {
        "targetedCount": 2,
        "appliedCount": 1,
    }
    # A kill forgets none of it.
    hub.kill()
    hub.start()
    azure.configurations.delete_configuration("faster")
    _wait_for_desired(azure, "press-3", {"rate": 5})
    azure.configurations.delete_configuration("rate", found.etag)
    _wait_for_desired(azure, "press-3", {})
    _wait_for_desired(azure, "press-2", {})


def test_a_configuration_is_guarded_by_its_etag_and_refused_where_it_is_wrong(azure: Azure) -> None:
    calls = azure.configurations
    made = calls.create_configuration(_configuration("guarded", "", {"properties.desired.a": 1}, labels={"team": "x"}))
    assert (made.labels, made.priority) == ({"team": "x"}, 0)
    changed = _configuration("guarded", "tags.a=1", {"properties.desired.a": 1}, priority=3)
    assert failure(calls.create_configuration, changed) == (409, "ConfigurationAlreadyExists")
    second = calls.update_configuration(changed, f'"{made.etag}"')
    assert (second.priority, second.target_condition) == (3, "tags.a=1")
    assert second.etag != made.etag
    assert failure(calls.update_configuration, changed, f'"{made.etag}"') == (412, "PreconditionFailed")
    assert failure(calls.delete_configuration, "guarded", f'"{made.etag}"') == (412, "PreconditionFailed")
    other = _configuration("guarded", "", {"properties.desired.a": 2})
    assert failure(calls.update_configuration, other, "*") == (400, "ArgumentInvalid")
    assert failure(calls.get_configuration, "nothing") == (404, "ConfigurationNotFound")
    calls.delete_configuration("guarded")
    assert failure(calls.delete_configuration, "guarded") == (404, "ConfigurationNotFound")


def test_content_is_applied_once_to_a_device_and_its_modules_or_to_none(azure: Azure) -> None:
    from azure.iot.hub.models import ConfigurationContent

    _add(azure, "gateway")
    azure.registry.create_module_with_certificate_authority("gateway", "camera", "")
    apply = azure.configurations.apply_configuration_on_edge_device
    camera = {"properties.desired": {"fps": 30}, "properties.desired.lens.kind": "wide"}
    apply(
        "gateway", ConfigurationContent(modules_content={"camera": camera}, device_content={"properties.desired.a": 1})
    )
    desired = azure.registry.get_module_twin("gateway", "camera").properties.desired
    assert (desired["fps"], desired["lens"]) == (30, {"kind": "wide"})
    _wait_for_desired(azure, "gateway", {"a": 1})
    wrong = {"camera": {"properties.desired.fps": 60}, "nothing": {"properties.desired.fps": 60}}
    assert failure(apply, "gateway", ConfigurationContent(modules_content=wrong)) == (404, "ModuleNotFound")
    assert azure.registry.get_module_twin("gateway", "camera").properties.desired["fps"] == 30
    assert failure(apply, "gateway", ConfigurationContent()) == (400, "ArgumentInvalid")


def test_queries_are_tested_without_a_configuration(azure: Azure) -> None:
    from azure.iot.hub.models import ConfigurationQueriesTestInput

    good, bad = "SELECT deviceId FROM devices WHERE tags.a = 1", "SELECT FROM"
    told = ConfigurationQueriesTestInput(
        target_condition="tags.a = 1", custom_metric_queries={"good": good, "bad": bad}
    )
    answer = azure.configurations.test_configuration_queries(told)
    assert answer.target_condition_error is None
    assert list(answer.custom_metric_query_errors) == ["bad"]
    answer = azure.configurations.test_configuration_queries(ConfigurationQueriesTestInput(target_condition="tags.a ="))
    assert "did not parse" in answer.target_condition_error
