"""The hub's service side for its bench: how long a service waits for a device, one call after another.

Plain sockets and one kept connection on both sides, because client libraries take longer than the hub.
"""

import http.client
import json
import queue
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cloud.hubs.access import ConnectionString
from simulations.bench.errors import BenchError
from simulations.bench.mqtt_wire import Wire, client_tls, greet, publish_packet

_METHODS, _DESIRED = "$iothub/methods/POST/#", "$iothub/twin/PATCH/properties/desired/#"
_PATIENCE_S = 30.0


def latencies(connection: str, folder: Path, port: int, device_id: str, *, calls: int) -> dict[str, float]:
    """p50 and p99 in milliseconds. A patch is measured until the device has it, and the service its answer."""
    service, patched = ServiceConnection(connection, folder / "ca.pem"), queue.SimpleQueue[float]()
    wire = Wire(service.host, port, client_tls(folder, device_id))
    wire.open()
    greet(wire, device_id, service.host, _METHODS, _DESIRED)
    threading.Thread(target=_answer, args=(wire, patched), daemon=True).start()

    def call_method() -> float:
        started = time.perf_counter()
        service.call("POST", f"/twins/{device_id}/methods", {"methodName": "ping", "payload": None})
        return time.perf_counter() - started

    def patch_twin() -> float:
        started = time.perf_counter()
        service.call("PATCH", f"/twins/{device_id}", {"properties": {"desired": {"at": started}}})
        return max(time.perf_counter(), patched.get(timeout=_PATIENCE_S)) - started

    try:
        return {**_percentiles("method", call_method, calls), **_percentiles("patch", patch_twin, calls)}
    finally:
        wire.close()
        service.close()


class ServiceConnection:
    """One kept HTTPS connection with one token."""

    def __init__(self, connection: str, ca_file: Path) -> None:
        parsed = ConnectionString.parse(connection)
        self.host, _, port = parsed.hostname.partition(":")
        self._token = parsed.token(now=time.time())
        context = ssl.create_default_context(cafile=str(ca_file))
        self._connection = http.client.HTTPSConnection(self.host, int(port), timeout=_PATIENCE_S, context=context)

    def count_events(self) -> int:
        """How many events the hub has ever logged."""
        try:
            return int(self.call("GET", "/events?limit=1")["lastOffset"])
        finally:
            self.close()  # The hub does not keep a connection open from one count to the next; a call opens it again.

    def call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        """The answer's JSON. Raises BenchError for anything but 200."""
        headers = {"Authorization": self._token, "Content-Type": "application/json"}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = self._connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise BenchError(f"Expected 200 of {method} {path}, got {response.status}: {text[:200]!r}")
        return json.loads(text)

    def close(self) -> None:
        self._connection.close()


def _answer(wire: Wire, patched: "queue.SimpleQueue[float]") -> None:
    """The device: answers every method at once, and notes when a patch came. Ends with the connection."""
    while True:
        try:
            data = wire.read()
        except (OSError, BenchError):
            return
        if b"/methods/POST/" in data:
            rid = data.partition(b"$rid=")[2].partition(b"null")[0].decode()
            wire.write(publish_packet(f"$iothub/methods/res/200/?$rid={rid}", b"null"))
        elif b"/properties/desired/" in data:
            patched.put(time.perf_counter())


def _percentiles(name: str, measure: Callable[[], float], calls: int) -> dict[str, float]:
    for _ in range(max(10, calls // 20)):
        measure()
    p50, p99 = np.percentile([1000 * measure() for _ in range(calls)], (50, 99))
    return {f"{name}_p50_ms": float(p50), f"{name}_p99_ms": float(p99)}
