"""`fleetlearn bench hub`: the local hub beside a real Mosquitto, in turn, with the same client, over TLS on loopback.

- Events: 50 devices send 256-byte events of QoS 1, 20 unacknowledged each, and then one at a time. The hub acknowledges
  what is on disk. Mosquitto has no persistence: it acknowledges what it then drops, as nobody subscribes, and in a case
  of its own what it forwards to one subscriber.
- Idle: 2,000 devices connect, subscribe to their methods and stay; the server's memory before and after.
- Latency of direct methods and twin patches of one device more, while those 2,000 are connected.

Every event that was acknowledged is counted in the hub's log afterwards.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from simulations.bench.errors import BenchError
from simulations.bench.frame import BenchOptions, BenchResult, Measure, Say, interleaved
from simulations.bench.hub_programs import Broker, make_credentials, mosquitto, our_hub
from simulations.bench.hub_service import ServiceConnection, latencies
from simulations.bench.mqtt_load import device_name
from simulations.bench.programs import HOST

SENDERS = 50
WINDOW = 20
IDLE = 2_000
_SETTLE_S = 2.0
"""Until a server that has let devices in has given back what it only needed for their handshakes."""


def run(options: BenchOptions, say: Say) -> BenchResult:
    """Measures everything; ends what it started. Raises BenchError."""
    quick = options.is_quick
    seconds, repetitions, idle, calls = (0.5, 1, 100, 50) if quick else (4.0, 5, IDLE, 1_000)
    # Not in /tmp, which may be memory: the events are to reach a disk.
    with tempfile.TemporaryDirectory(prefix=".bench-hub-", dir=Path.cwd()) as name:
        folder = Path(name)
        say(f"making {idle + 2} certificates")
        names = [device_name(number) for number in range(idle + 2)]
        make_credentials(folder, names)
        rows = _events(folder, names[: SENDERS + 1], seconds=seconds, repetitions=repetitions, say=say)
        rows |= _idle(folder, names, calls=calls, repetitions=1 if quick else 3, say=say)
        disk = {"commit_ms": _sync_ms(folder)}
    return _result(rows, disk)


def _result(rows: dict[str, dict[str, float]], disk: Mapping[str, float]) -> BenchResult:
    hub, idle = rows["hub, 20 at once"], rows["hub, idle"]
    ratios = {
        "durable_rate_vs_mosquitto": hub["per_s"] / rows["mosquitto, 20 at once"]["per_s"],
        "durable_rate_vs_mosquitto_forwarding": hub["per_s"] / rows["mosquitto forwarding, 20 at once"]["per_s"],
        "durable_rate_vs_mosquitto_one_at_a_time": (
            rows["hub, one at a time"]["per_s"] / rows["mosquitto, one at a time"]["per_s"]
        ),
        "connect_rate_vs_mosquitto": idle["connects_per_s"] / rows["mosquitto, idle"]["connects_per_s"],
    }
    figures = {
        "durable_events_per_s": hub["per_s"],
        "event_cpu_us": hub["server_cpu_us"],
        "idle_2000_mb": idle["added_mb"],
        "connects_per_s": idle["connects_per_s"],
        **{name: idle[name] for name in ("method_p50_ms", "method_p99_ms", "patch_p50_ms", "patch_p99_ms")},
        **disk,
    }
    notes = (
        "Targets: durable_events_per_s >= 10,000, durable_rate_vs_mosquitto >= 0.5, idle_2000_mb < 60.",
        "What bounds the hub, and what this does not show: docs/explanation/hub_performance.md.",
    )
    return BenchResult("hub", rows, ratios, figures, notes)


# Events


def _events(
    folder: Path, names: list[str], *, seconds: float, repetitions: int, say: Say
) -> dict[str, dict[str, float]]:
    """Both servers run all the time, and are loaded in turn."""
    with our_hub(folder, folder / "hub", names) as hub, mosquitto(folder) as broker:
        log, cases = _CheckedLog(hub, folder), dict[str, Measure]()
        for case, window in ((f"{WINDOW} at once", WINDOW), ("one at a time", 1)):
            cases[f"hub, {case}"] = log.checked(_load(folder, hub, seconds=seconds, window=window))
            cases[f"mosquitto, {case}"] = _load(folder, broker, seconds=seconds, window=window)
        forwarding = _forwarding(folder, broker, _load(folder, broker, seconds=seconds, window=WINDOW))
        cases[f"mosquitto forwarding, {WINDOW} at once"] = forwarding
        return interleaved(cases, repetitions=repetitions, say=say)


def _load(folder: Path, broker: Broker, *, seconds: float, window: int) -> Measure:
    options = ["--connections", str(SENDERS), "--window", str(window), "--seconds", str(seconds)]

    def measure() -> Mapping[str, float]:
        before = broker.cpu_s()
        done = subprocess.run(
            _client("events", folder, broker, options),
            capture_output=True,
            text=True,
            timeout=seconds + 120,
            check=False,
        )
        if done.returncode:
            raise BenchError(f"Expected figures from the load client, got: {done.stderr.strip()[-300:]}")
        figures: dict[str, float] = json.loads(done.stdout)
        return {**figures, "server_cpu_us": 1e6 * (broker.cpu_s() - before) / figures["acknowledged"]}

    return measure


class _CheckedLog:
    """Counts the events of the hub's log beside those that it acknowledged."""

    def __init__(self, hub: Broker, folder: Path) -> None:
        self._service, self._acknowledged = ServiceConnection(hub.rest, folder / "ca.pem"), 0

    def checked(self, measure: Measure) -> Measure:
        def measure_and_count() -> Mapping[str, float]:
            figures = measure()
            self._acknowledged += round(figures["acknowledged"])
            logged = self._service.count_events()
            if logged != self._acknowledged:
                raise BenchError(f"Expected {self._acknowledged} acknowledged events in the hub's log, got {logged}")
            return figures

        return measure_and_count


def _forwarding(folder: Path, broker: Broker, measure: Measure) -> Measure:
    def measure_beside_a_subscriber() -> Mapping[str, float]:
        with _running(_client("subscribe", folder, broker, ["--connections", str(SENDERS)])):
            return measure()

    return measure_beside_a_subscriber


# Idle connections


def _idle(folder: Path, names: list[str], *, calls: int, repetitions: int, say: Say) -> dict[str, dict[str, float]]:
    """Each repetition has fresh servers, because memory that was once taken is not given back."""
    repetition = iter(range(repetitions))

    def ours() -> Mapping[str, float]:
        data = folder / f"idle-{next(repetition)}"
        with our_hub(folder, data, names) as hub, _connected(folder, hub, len(names) - 2) as figures:
            return {**figures, **latencies(hub.rest, folder, hub.port, names[-1], calls=calls)}

    def theirs() -> Mapping[str, float]:
        with mosquitto(folder) as broker, _connected(folder, broker, len(names) - 2) as figures:
            return figures

    return interleaved({"hub, idle": ours, "mosquitto, idle": theirs}, repetitions=repetitions, say=say)


@contextmanager
def _connected(folder: Path, broker: Broker, connections: int) -> Iterator[dict[str, float]]:
    """As long as the context lasts, the devices are connected; gives the connect rate and the memory that they took."""
    before = broker.rss_mb()
    with _running(_client("idle", folder, broker, ["--connections", str(connections)])) as figures:
        time.sleep(_SETTLE_S)
        yield {**figures, "added_mb": broker.rss_mb() - before}


@contextmanager
def _running(command: list[str]) -> Iterator[dict[str, float]]:
    """A client that prints its figures and goes on until its standard input ends."""
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdin is not None
    assert client.stdout is not None
    try:
        line = client.stdout.readline()
        if not line:
            raise BenchError("Expected figures from the load client, but it ended")
        yield json.loads(line)
    finally:
        client.stdin.close()
        client.terminate()
        client.wait(30)
        client.stdout.close()


def _client(what: str, folder: Path, broker: Broker, options: list[str]) -> list[str]:
    place = ["--host", HOST, "--port", str(broker.port), "--folder", str(folder)]
    return [sys.executable, "-m", "simulations.bench.mqtt_load", what, *place, *options]


def _sync_ms(folder: Path) -> float:
    """What one small durable write takes on this disk: no commit is faster."""
    times = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(100):
            started = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)
