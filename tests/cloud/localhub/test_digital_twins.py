"""The form of IoT Plug and Play: properties, components, acknowledgements, and patches."""

from typing import Any

import pytest

from cloud.localhub.digital_twins import desired_patch, digital_twin
from cloud.localhub.errors import ServiceError
from cloud.localhub.twins import Twin, new_twin, patch_section


def _twin(desired: dict[str, Any], reported: dict[str, Any]) -> Twin:
    base = new_twin("t0")
    return Twin(
        desired=patch_section(base.desired, desired, now="t1", name="desired"),
        reported=patch_section(base.reported, reported, now="t2", name="reported"),
    )


def test_a_digital_twin_shows_values_and_what_was_asked_and_acknowledged() -> None:
    acknowledged = {"value": 20.4, "ac": 200, "av": 2, "ad": "done"}
    twin = _twin(
        {"thermostat": {"__t": "c", "target": 20.4}, "waiting": 7},
        {"serial": "x-1", "thermostat": {"__t": "c", "target": acknowledged, "most": 25.3}},
    )
    assert digital_twin(twin, device_id="press-07", model_id="dtmi:com:example:press;1") == {
        "$dtId": "press-07",
        "serial": "x-1",
        "thermostat": {
            "target": 20.4,
            "most": 25.3,
            "$metadata": {
                "target": {
                    "desiredValue": 20.4,
                    "desiredVersion": 2,
                    "ackCode": 200,
                    "ackVersion": 2,
                    "ackDescription": "done",
                    "lastUpdateTime": "t2",
                },
                "most": {"lastUpdateTime": "t2"},
            },
        },
        "$metadata": {
            "$model": "dtmi:com:example:press;1",
            "serial": {"lastUpdateTime": "t2"},
            "waiting": {"desiredValue": 7, "desiredVersion": 2},
        },
    }


def test_a_patch_becomes_one_of_desired_properties() -> None:
    operations = [
        {"op": "add", "path": "/rate", "value": 5},
        {"op": "replace", "path": "/thermostat/target", "value": 21},
        {"op": "remove", "path": "/thermostat/old"},
        {"op": "remove", "path": "/unit"},
    ]
    thermostat = {"__t": "c", "target": 21, "old": None}
    assert desired_patch(operations) == {"rate": 5, "thermostat": thermostat, "unit": None}


@pytest.mark.parametrize(
    "operations",
    [
        {},
        [],
        [3],
        [{"op": "move", "path": "/a", "from": "/b"}],
        [{"op": "add", "path": "a", "value": 1}],
        [{"op": "add", "path": "/", "value": 1}],
        [{"op": "add", "path": "/a/b/c", "value": 1}],
        [{"op": "add", "path": "/a"}],
        [{"op": "remove", "path": "/a"}] * 101,
    ],
)
def test_what_is_no_patch_of_a_digital_twin_is_refused(operations: Any) -> None:
    with pytest.raises(ServiceError, match="Expected"):
        desired_patch(operations)
