"""What `fleetlearn hub` does at a running hub: register a device, enrol devices, send a message, ask a query."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cloud.localhub.calling import RunningHub
from cloud.localhub.devices import check_device_id
from cloud.localhub.enrollments import Kind, check_id
from cloud.localhub.errors import invalid_argument


def add_device(hub: RunningHub, device_id: str) -> str:
    """Registers a device with fresh keys and returns its connection string. Raises LocalHubError."""
    identity = hub.call("PUT", f"/devices/{check_device_id(device_id)}", b"{}")
    key = identity["authentication"]["symmetricKey"]["primaryKey"]
    return f"HostName={hub.host};DeviceId={device_id};SharedAccessKey={key}"


def enroll(hub: RunningHub, enrollment_id: str, kind: Kind) -> str:
    """Enrols one device, or a group of them, with fresh keys; what they register with. Raises LocalHubError."""
    path = f"/{'enrollments' if kind is Kind.INDIVIDUAL else 'enrollmentGroups'}/{check_id(enrollment_id)}"
    hub.call("PUT", path, json.dumps({"attestation": {"type": "symmetricKey"}}).encode())
    mechanism = hub.call("POST", f"{path}/attestationmechanism", b"")
    scope = hub.call("GET", "/provisioning", b"")["idScope"]
    return f"ProvisioningHost={hub.host};IdScope={scope};SymmetricKey={mechanism['symmetricKey']['primaryKey']}"


def query(hub: RunningHub, text: str) -> Iterator[dict[str, Any]]:
    """The rows of a query, page by page. Raises LocalHubError, also while iterating."""
    body, headers = json.dumps({"query": text}).encode(), {"x-ms-max-item-count": "1000"}
    while True:
        rows, answered = hub.request("POST", "/devices/query", body, headers)
        yield from rows
        token = answered.get("x-ms-continuation")
        if token is None:
            return
        headers["x-ms-continuation"] = token


def send(hub: RunningHub, device_id: str, text: str, *, properties: Sequence[str], system: Mapping[str, str]) -> None:
    """Sends a message to a device. Raises LocalHubError.

    Args:
        hub: Where.
        device_id: To whom.
        text: What.
        properties: The sender's own, each as `key=value`.
        system: Headers of the service API, such as `iothub-ack`.
    """
    headers: dict[str, str] = {"Content-Type": "application/octet-stream", **system}
    for each in properties:
        key, equals, value = each.partition("=")
        if not key or not equals:
            raise invalid_argument(f"Expected a property as KEY=VALUE, got {each[:80]!r}")
        headers[f"iothub-app-{key}"] = value
    encoded: dict[str, Any] = {key: value.encode().decode("latin-1") for key, value in headers.items()}
    hub.call("POST", f"/devices/{check_device_id(device_id)}/messages/deviceBound", text.encode(), encoded)
