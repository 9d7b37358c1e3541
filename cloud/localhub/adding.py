"""`fleetlearn hub add-device`: registers a device through the service API of a running hub, as any service would."""

import json
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from cloud.localhub.devices import check_device_id
from cloud.localhub.errors import LocalHubError
from cloud.localhub.policies import load_or_create_policies
from cloud.localhub.sas import make_sas

_POLICY = "registryReadWrite"
_TOKEN_S = 300
_REQUEST_S = 30.0


class AddError(LocalHubError):
    """The hub did not register the device."""

    code = "add_device_error"


def add_device(data_dir: Path, device_id: str, *, hostname: str, ca: Path) -> str:
    """Registers a device with fresh keys and returns its connection string. Raises LocalHubError.

    Args:
        data_dir: The running hub's data folder, for a policy's key.
        device_id: 1 to 128 characters.
        hostname: Where the service API answers, with its port: `localhost:8443`.
        ca: PEM file of the CA that signed the hub's certificate.
    """
    check_device_id(device_id)
    key = load_or_create_policies(data_dir)[_POLICY].primary_key
    token = make_sas(hostname, key=key, expiry=int(time.time()) + _TOKEN_S, policy=_POLICY)
    identity = _put(f"https://{hostname}/devices/{device_id}?api-version=2021-04-12", token=token, ca=ca)
    device_key = identity["authentication"]["symmetricKey"]["primaryKey"]
    # Azure's SDKs dial port 8883 whatever the host name says, and take no port in it.
    return f"HostName={hostname.partition(':')[0]};DeviceId={device_id};SharedAccessKey={device_key}"


def _put(url: str, *, token: str, ca: Path) -> dict[str, Any]:
    headers = {"Authorization": token, "Content-Type": "application/json"}
    request = urllib.request.Request(url, b"{}", headers, method="PUT")  # noqa: S310  # it is https
    try:
        tls = ssl.create_default_context(cafile=str(ca))
        with urllib.request.urlopen(request, timeout=_REQUEST_S, context=tls) as response:  # noqa: S310  # it is https
            return dict(json.loads(response.read()))
    except urllib.error.HTTPError as error:
        with error:
            raise AddError(_message(error.read())) from error
    except OSError as error:
        raise AddError(f"Expected a hub at {url.split('/')[2]} that {ca} vouches for, got: {error}") from error


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["Message"])
    except (ValueError, KeyError, TypeError):
        return f"Expected IoT Hub's error, got {body[:200]!r}"
