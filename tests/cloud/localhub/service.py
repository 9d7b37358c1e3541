"""A plain caller of the service API for tests, with any policy's key."""

import copy
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message
from typing import Any

from cloud.localhub.policies import load_or_create_policies
from tests.cloud.localhub.support import HubProcess
from tests.cloud.localhub.tokens import make_sas


class Service:
    """Calls as a policy; answers (status, JSON)."""

    def __init__(self, hub: HubProcess, policy: str = "iothubowner", *, lives_s: int = 600) -> None:
        self._hub = hub
        key = load_or_create_policies(hub.data_dir)[policy].secondary_key
        self.token = make_sas(resource=hub.service, key=key, expiry=int(time.time()) + lives_s, policy=policy)
        self._tls = ssl.create_default_context(cafile=str(hub.authority.ca_file))

    def as_caller(self, token: str) -> "Service":
        """The same hub, called with another token."""
        other = copy.copy(self)
        other.token = token
        return other

    def call(self, method: str, path: str, body: object = None, *, etag: str | None = None) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json"}
        if etag is not None:
            headers["If-Match"] = etag
        data = None if body is None else json.dumps(body).encode()
        status, _, text = self.request(method, path, data, headers)
        return status, json.loads(text) if text else None

    def send(self, device_id: str, body: bytes, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """Sends a message to a device."""
        status, _, text = self.request("POST", f"/devices/{device_id}/messages/deviceBound", body, headers)
        return status, json.loads(text) if text else None

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, "Message[str, str]", bytes]:
        """Status, headers (of any case) and body of the answer."""
        encoded = {key: value.encode().decode("latin-1") for key, value in (headers or {}).items()}
        request = urllib.request.Request(
            f"https://{self._hub.service}{path}", body, {"Authorization": self.token, **encoded}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=30, context=self._tls) as response:  # noqa: S310  # it is https
                return response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()
