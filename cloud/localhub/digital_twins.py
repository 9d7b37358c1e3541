"""A twin in the form of IoT Plug and Play: properties and components, with what was asked and what was answered. Pure.

A component is an object marked `"__t": "c"`. A device acknowledges a property by reporting
`{"value": v, "ac": code, "av": version, "ad": text}`. https://learn.microsoft.com/azure/iot/concepts-digital-twin and
https://learn.microsoft.com/azure/iot/concepts-convention. The hub reads no model: any property goes.
"""

from collections.abc import Mapping
from typing import Any

from cloud.localhub.errors import invalid_argument
from cloud.localhub.twins import Json, Twin, merge

OPERATIONS_MAX = 100
_MARK = "__t"
_ACKNOWLEDGEMENT = {"ac": "ackCode", "av": "ackVersion", "ad": "ackDescription"}


def digital_twin(twin: Twin, *, device_id: str, model_id: str) -> Json:
    """The digital twin of a device's twin."""
    desired, reported = twin.desired, twin.reported
    root = _component(desired.document, desired.metadata, reported.document, reported.metadata)
    return {"$dtId": device_id, **root, "$metadata": {"$model": model_id, **root["$metadata"]}}


def desired_patch(operations: object) -> Json:
    """The patch of desired properties that a JSON Patch on a digital twin asks for. Raises ServiceError.

    `add` and `replace` set a property, `remove` takes it away; other operations and deeper paths are refused.
    """
    if not isinstance(operations, list) or not 0 < len(operations) <= OPERATIONS_MAX:
        raise invalid_argument(f"Expected a JSON Patch of 1 to {OPERATIONS_MAX} operations")
    patch: Json = {}
    for operation in operations:
        patch = _merged(patch, _patch_of(operation))
    return patch


def _merged(first: Json, second: Json) -> Json:
    """One patch that does what both do, in their order."""
    merged = dict(first)
    for name, value in second.items():
        before = _object(merged.get(name))
        merged[name] = {**before, **value} if _is_component(before) and _is_component(value) else value
    return merged


def _component(
    desired: Mapping[str, Any], asked: Mapping[str, Any], reported: Mapping[str, Any], told: Mapping[str, Any]
) -> Json:
    values: Json = {}
    metadata: Json = {}
    for name in dict.fromkeys((*reported, *desired)):
        if name == _MARK:
            continue
        wanted: Any = desired.get(name)
        has: Any = reported.get(name)
        below = (asked.get(name, {}), told.get(name, {}))
        if _is_component(wanted) or _is_component(has):
            values[name] = _component(_object(wanted), below[0], _object(has), below[1])
            continue
        about: Json = {}
        if name in desired:
            about |= {"desiredValue": wanted, "desiredVersion": below[0].get("$lastUpdatedVersion")}
        if name in reported:
            values[name] = has["value"] if _is_acknowledged(has) else has
            about |= _acknowledgement(has) | {"lastUpdateTime": below[1].get("$lastUpdated")}
        metadata[name] = about
    return {**values, "$metadata": metadata}


def _patch_of(operation: object) -> Json:
    if not isinstance(operation, dict) or operation.get("op") not in ("add", "replace", "remove"):
        raise invalid_argument("Expected operations of a JSON Patch: add, replace or remove")
    path = operation.get("path")
    steps = path.split("/")[1:] if isinstance(path, str) and path.startswith("/") else []
    if not 1 <= len(steps) <= 2 or not all(steps):
        raise invalid_argument(f"Expected a path like /property or /component/property, got {str(path)[:80]!r}")
    if operation["op"] != "remove" and operation.get("value") is None:
        raise invalid_argument(f"Expected a value for {str(path)[:80]!r}")
    value = None if operation["op"] == "remove" else operation["value"]
    names = [step.replace("~1", "/").replace("~0", "~") for step in steps]
    if len(names) == 1:
        return {names[0]: merge(value, {}) if isinstance(value, dict) else value}
    return {names[0]: {_MARK: "c", names[1]: value}}


def _is_component(value: object) -> bool:
    return isinstance(value, dict) and value.get(_MARK) == "c"


def _is_acknowledged(value: object) -> bool:
    return isinstance(value, dict) and "value" in value and "ac" in value and "av" in value


def _acknowledgement(value: Any) -> Json:
    if not _is_acknowledged(value):
        return {}
    return {name: value[key] for key, name in _ACKNOWLEDGEMENT.items() if key in value}


def _object(value: object) -> Json:
    return value if isinstance(value, dict) else {}
