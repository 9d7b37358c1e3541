"""One window of observations as a report."""

from collections import Counter, deque

from edge_agent.serving.observer import Observations
from edge_agent.telemetry.windows import percentiles_ms, serving_report


def test_a_window_becomes_a_report() -> None:
    observed = Observations(
        requests=5,
        examples=7,
        errors=1,
        latencies_s=deque([0.001, 0.002, 0.003, 0.1]),
        predictions=Counter({1: 4, 0: 3}),
    )
    report = serving_report(observed, release_id="r", classes=["a", "b"], window_s=10, drift=[], drift_examples=0)
    assert (report.requests, report.examples, report.errors) == (5, 7, 1)
    assert (report.latency_p50_ms, report.latency_p99_ms) == (3.0, 100.0)
    assert report.predictions == {"a": 3, "b": 4}


def test_nothing_answered_has_no_latency() -> None:
    assert percentiles_ms([]) == (None, None)
