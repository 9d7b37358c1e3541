"""A plain caller of the service API for tests, with any policy's key."""

import json
import ssl
import time
import urllib.error
import urllib.request
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

    def call(self, method: str, path: str, body: object = None, *, etag: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": self.token, "Content-Type": "application/json"}
        if etag is not None:
            headers["If-Match"] = etag
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"https://{self._hub.service}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30, context=self._tls) as response:  # noqa: S310  # it is https
                text = response.read()
                return response.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())
