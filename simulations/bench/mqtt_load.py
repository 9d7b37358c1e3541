"""Loads a hub or a broker: `python -m simulations.bench.mqtt_load WHAT ...`, a process of its own beside the server's.

    events      devices send events of QoS 1, each with a window of unacknowledged ones; prints rate and latencies
    idle        devices connect, subscribe, and hold until standard input ends; prints the connect rate when all are in
    subscribe   one client takes everything that the devices send, until it is ended

What is acknowledged together is replaced together, in one TLS record, as a device does that has more to send. Prints
one JSON object.
"""

import argparse
import contextlib
import json
import resource
import select
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np

from simulations.bench.errors import BenchError
from simulations.bench.mqtt_wire import (
    PUBACK_BYTES,
    Wire,
    check_greeting,
    client_tls,
    connect_packet,
    greet,
    publish_packet,
    subscribe_packet,
)

WARM_UP_S = 1.0
_IDS = 1_000
_DRAIN_S = 60.0
_METHODS = "$iothub/methods/POST/#"


def device_name(number: int) -> str:
    """All names are of one length, and so are all packets."""
    return f"bench-{number:05}"


class Publisher:
    """One device with a window of unacknowledged events."""

    def __init__(self, wire: Wire, device_id: str, payload: bytes, window: int) -> None:
        self.wire = wire
        self.unacknowledged = 0
        topic = f"devices/{device_id}/messages/events/"
        packets = [publish_packet(topic, payload, packet_id=1 + number % _IDS) for number in range(_IDS + window)]
        self._packet_bytes = len(packets[0])
        self._packets = memoryview(b"".join(packets))
        self._next = 0
        self._rest = b""
        self._sent: deque[tuple[float, int]] = deque()

    def send(self, count: int) -> None:
        start = self._next * self._packet_bytes
        self.wire.write(self._packets[start : start + count * self._packet_bytes])
        self._next = (self._next + count) % _IDS
        self.unacknowledged += count
        self._sent.append((time.perf_counter(), count))

    def receive(self, latencies: list[tuple[float, int]]) -> int:
        """How many were acknowledged; adds (seconds, events) to the latencies."""
        data = self._rest + self.wire.read()
        acknowledged = len(data) // PUBACK_BYTES
        whole, self._rest = data[: acknowledged * PUBACK_BYTES], data[acknowledged * PUBACK_BYTES :]
        if whole[::PUBACK_BYTES].strip(b"\x40"):
            raise BenchError(f"Expected acknowledgements, got {whole[:16].hex()}")
        self.unacknowledged -= acknowledged
        now, left = time.perf_counter(), acknowledged
        while left:
            sent_at, count = self._sent.popleft()
            if count > left:
                self._sent.appendleft((sent_at, count - left))
            latencies.append((now - sent_at, min(count, left)))
            left -= min(count, left)
        return acknowledged


def load_events(publishers: list[Publisher], *, seconds: float, window: int) -> dict[str, float]:
    """Figures of one run. Every event is acknowledged before it returns."""
    by_descriptor = {publisher.wire.socket.fileno(): publisher for publisher in publishers}
    poll = select.epoll()
    for descriptor, publisher in by_descriptor.items():
        poll.register(descriptor, select.EPOLLIN)
        publisher.send(window)
    warm_at = time.perf_counter() + WARM_UP_S
    counted, total, latencies = 0, 0, list[tuple[float, int]]()
    cpu_s = 0.0
    while (now := time.perf_counter()) < warm_at + seconds:
        if not counted:
            latencies, cpu_s = [], time.process_time()
        for descriptor, _ in poll.poll(1.0):
            publisher = by_descriptor[descriptor]
            acknowledged = publisher.receive(latencies)
            if acknowledged:
                publisher.send(acknowledged)
            total += acknowledged
            counted += acknowledged if now >= warm_at else 0
    cpu_s = time.process_time() - cpu_s
    total += _drain(poll, by_descriptor)
    milliseconds = np.repeat([1e3 * seconds for seconds, _ in latencies], [count for _, count in latencies])
    p50, p99 = np.percentile(milliseconds, (50, 99))
    return {
        "per_s": counted / seconds,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "acknowledged": float(total),
        "client_cpu_us": 1e6 * cpu_s / counted,
    }


def _drain(poll: select.epoll, by_descriptor: dict[int, Publisher]) -> int:
    total, deadline = 0, time.perf_counter() + _DRAIN_S
    while any(publisher.unacknowledged for publisher in by_descriptor.values()):
        if time.perf_counter() > deadline:
            raise BenchError(f"Expected every event to be acknowledged within {_DRAIN_S:g} s")
        for descriptor, _ in poll.poll(1.0):
            total += by_descriptor[descriptor].receive([])
    return total


def connect_all(
    folder: Path, host: str, port: int, names: list[str], *, at_once: int
) -> tuple[list[Wire], dict[str, float]]:
    """Connects and subscribes all, some at once; the rate counts from the first hello to the last answer."""
    contexts = {name: client_tls(folder, name) for name in names}
    expected = len(b"\x20\x02\x00\x00") + len(b"\x90\x03\x00\x01\x00")
    poll, waiting, answers = select.epoll(), deque(names), dict[int, bytes]()
    wires: dict[int, tuple[Wire, str]] = {}
    opening, started, cpu_s = 0, time.perf_counter(), time.process_time()
    while waiting or opening:
        while waiting and opening < at_once:
            name = waiting.popleft()
            wire = Wire(host, port, contexts.pop(name))
            wires[wire.socket.fileno()] = (wire, name)
            poll.register(wire.socket.fileno(), select.EPOLLIN)
            wire.begin()
            opening += 1
        for descriptor, _ in poll.poll(10.0):
            wire, name = wires[descriptor]
            was_open, data = wire.is_open, wire.read()
            if wire.is_open and not was_open:
                wire.write(connect_packet(name, host) + subscribe_packet(_METHODS))
            answer = answers[descriptor] = answers.get(descriptor, b"") + data
            if len(answer) == expected:
                check_greeting(answer)
                opening -= 1
    elapsed = time.perf_counter() - started
    client = 1e6 * (time.process_time() - cpu_s) / len(names)
    return [wire for wire, _ in wires.values()], {"connects_per_s": len(names) / elapsed, "client_cpu_us": client}


def _events(given: argparse.Namespace) -> None:
    payload = bytes(given.payload_bytes)
    publishers = []
    for number in range(given.connections):
        name = device_name(number)
        wire = Wire(given.host, given.port, client_tls(given.folder, name))
        wire.open()
        greet(wire, name, given.host)
        publishers.append(Publisher(wire, name, payload, given.window))
    print(json.dumps(load_events(publishers, seconds=given.seconds, window=given.window)))


def _idle(given: argparse.Namespace) -> None:
    names = [device_name(number) for number in range(given.connections)]
    wires, figures = connect_all(given.folder, given.host, given.port, names, at_once=given.at_once)
    print(json.dumps(figures), flush=True)
    sys.stdin.read()
    for wire in wires:
        wire.close()


def _subscribe(given: argparse.Namespace) -> None:
    name = device_name(given.connections)
    wire = Wire(given.host, given.port, client_tls(given.folder, name))
    wire.open()
    greet(wire, name, given.host, "devices/+/messages/events/#")
    print(json.dumps({}), flush=True)
    with contextlib.suppress(BenchError, OSError):
        while True:
            wire.read()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("events", "idle", "subscribe"))
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="ca.pem, and NAME.pem and NAME.key of each device")
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--window", type=int, default=20)
    parser.add_argument("--payload-bytes", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--at-once", type=int, default=50, help="connections that shake hands at one time")
    given = parser.parse_args(argv)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    {"events": _events, "idle": _idle, "subscribe": _subscribe}[given.what](given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
