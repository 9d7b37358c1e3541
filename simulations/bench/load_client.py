"""A closed-loop HTTP load: `python -m simulations.bench.load_client`, a process of its own beside the server's.

Each connection sends the next request when the last one is answered; raw sockets, because a client library costs more
than the server. Prints one JSON object: requests per second, latencies in milliseconds, failures.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import cast

import numpy as np
import uvloop

WARM_UP_S = 0.3


class Connection(asyncio.Protocol):
    """One connection's loop of requests."""

    def __init__(self, request: bytes, deadline: float, warm_at: float) -> None:
        self._request = request
        self._deadline = deadline
        self._warm_at = warm_at
        self._buffer = b""
        self._needed = 0
        self._sent_at = 0.0
        self.latencies_s: list[float] = []
        self.failures = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's do not derive from it
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._needed:
            self._needed = _answer_bytes(self._buffer)
        if self._needed and len(self._buffer) >= self._needed:
            self._finish_answer()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.failures += 1
            self.done.set_result(None)

    def _send(self) -> None:
        self._buffer, self._needed = b"", 0
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)

    def _finish_answer(self) -> None:
        now = time.perf_counter()
        if not self._buffer.startswith(b"HTTP/1.1 200"):
            self.failures += 1
        elif self._sent_at >= self._warm_at:
            self.latencies_s.append(now - self._sent_at)
        if now < self._deadline:
            self._send()
            return
        self.done.set_result(None)
        self._transport.close()


def _answer_bytes(buffer: bytes) -> int:
    """Length of the whole answer, once its headers are there; 0 before."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return 0
    head = buffer[:end].lower()
    start = head.index(b"content-length:") + len(b"content-length:")
    return end + 4 + int(head[start:].split(b"\r\n", 1)[0])


async def load(host: str, port: int, request: bytes, *, connections: int, seconds: float) -> dict[str, float]:
    """Figures of one run."""
    loop = asyncio.get_running_loop()
    warm_at = time.perf_counter() + WARM_UP_S
    deadline = warm_at + seconds
    opened = [
        (await loop.create_connection(lambda: Connection(request, deadline, warm_at), host, port))[1]
        for _ in range(connections)
    ]
    await asyncio.wait_for(asyncio.gather(*(connection.done for connection in opened)), seconds + 60)
    latencies = np.array([latency for connection in opened for latency in connection.latencies_s])
    failures = sum(connection.failures for connection in opened)
    if not len(latencies):
        return {"rps": 0.0, "p50_ms": float("inf"), "p99_ms": float("inf"), "failures": float(failures)}
    p50, p99 = np.percentile(latencies, (50, 99)) * 1000
    return {"rps": len(latencies) / seconds, "p50_ms": float(p50), "p99_ms": float(p99), "failures": float(failures)}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--request", type=Path, required=True, help="the whole request as it goes over the wire")
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args(argv)
    run = load(given.host, given.port, given.request.read_bytes(), connections=given.connections, seconds=given.seconds)
    print(json.dumps(uvloop.run(run)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
