"""One window of the endpoint's observations as a ServingReport: pure, apart from the numbers it is given."""

from collections.abc import Iterable, Sequence

import numpy as np

from edge_agent.serving.observer import Observations
from shared.messages.events import FeatureDrift, ServingReport


def serving_report(
    observed: Observations,
    *,
    release_id: str,
    classes: Sequence[str],
    window_s: float,
    drift: list[FeatureDrift],
    drift_examples: int,
) -> ServingReport:
    """The report of one window.

    Args:
        observed: What the endpoint noted in it.
        release_id: What was served.
        classes: Names of the classes, by index.
        window_s: Length of the window, in seconds.
        drift: The features' drift, empty until there were enough examples.
        drift_examples: How many recent examples the drift rests on.
    """
    p50, p99 = percentiles_ms(observed.latencies_s)
    return ServingReport(
        release_id=release_id,
        window_s=window_s,
        requests=observed.requests,
        examples=observed.examples,
        errors=observed.errors,
        latency_p50_ms=p50,
        latency_p99_ms=p99,
        predictions=named(observed.predictions.items(), classes),
        drift=drift,
        drift_examples=drift_examples,
    )


def percentiles_ms(latencies_s: Iterable[float]) -> tuple[float | None, float | None]:
    """Median and 99th percentile in milliseconds; None where nothing was answered."""
    values = np.fromiter(latencies_s, np.float64)
    if not len(values):
        return None, None
    p50, p99 = np.percentile(values, (50, 99), method="higher") * 1000
    return round(float(p50), 4), round(float(p99), 4)


def named(counts: Iterable[tuple[int, int]], classes: Sequence[str]) -> dict[str, int]:
    """Counts by class name instead of class index."""
    return {classes[index] if index < len(classes) else str(index): count for index, count in sorted(counts)}
