"""How the commands of `fleetlearn hub` call a running hub: through its service API, as any service would."""

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cloud.localhub.errors import LocalHubError
from cloud.localhub.policies import load_or_create_policies
from cloud.localhub.sas import make_sas

_POLICY = "iothubowner"
_TOKEN_S = 300
_REQUEST_S = 30.0
_API_VERSION = "2021-04-12"


class CallError(LocalHubError):
    """The hub did not do what a command asked it for, or was not there."""

    code = "hub_call_error"


@dataclass(frozen=True)
class RunningHub:
    """A hub on this machine.

    Args:
        data_dir: Its data folder, for a policy's key.
        hostname: Where the service API answers, with its port: `localhost:8443`.
        ca: PEM file of the CA that signed its certificate.
    """

    data_dir: Path
    hostname: str
    ca: Path

    def call(self, method: str, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The JSON object of the answer, empty where there is none. Raises CallError."""
        answer, _ = self.request(method, path, body, headers)
        return dict(answer or {})

    def request(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> tuple[Any, Mapping[str, str]]:
        """The JSON of the answer, None where there is none, and its headers, of any case. Raises CallError."""
        key = load_or_create_policies(self.data_dir)[_POLICY].primary_key
        token = make_sas(self.hostname, key=key, expiry=int(time.time()) + _TOKEN_S, policy=_POLICY)
        url = f"https://{self.hostname}{quote(path)}?api-version={_API_VERSION}"
        every = {"Authorization": token, "Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(url, body, every, method=method)  # it is https
        try:
            tls = ssl.create_default_context(cafile=str(self.ca))
            with urllib.request.urlopen(request, timeout=_REQUEST_S, context=tls) as response:  # noqa: S310  # it is https
                text = response.read()
                return (json.loads(text) if text else None), response.headers
        except urllib.error.HTTPError as error:
            with error:
                raise CallError(_message(error.read())) from error
        except OSError as error:
            raise CallError(f"Expected a hub at {self.hostname} that {self.ca} vouches for, got: {error}") from error

    @property
    def host(self) -> str:
        """What devices dial: Azure's SDKs take no port in it, and know their own."""
        return self.hostname.partition(":")[0]


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["Message"])
    except (ValueError, KeyError, TypeError):
        return f"Expected IoT Hub's error, got {body[:200]!r}"
