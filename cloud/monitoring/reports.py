"""Which serving reports are believed: pure checks beyond the message's own, with a bound on everything."""

import math
from collections.abc import Mapping, Sequence

from shared.messages.base import MalformedMessageError
from shared.messages.events import FeatureDrift, ServingReport

COUNT_MAX = 2**53
"""Greatest count in a report: what JSON carries exactly and a database column holds."""
FEATURES_MAX = 1000


def check_report(report: ServingReport, *, features: Sequence[str]) -> None:
    """Raises MalformedMessageError unless the report fits the release it names.

    Args:
        report: Parsed, so that types and signs are right already.
        features: Names of the features in the release's drift profile.
    """
    _check_figures(report)
    names = [each.feature for each in report.drift]
    if len(names) > min(len(features), FEATURES_MAX) or len(set(names)) != len(names):
        raise MalformedMessageError(
            f"Expected a ServingReport: drift: each of {len(features)} features at most once, got {len(names)} figures"
        )
    unknown = sorted(set(names) - set(features))
    if unknown:
        raise MalformedMessageError(
            f"Expected a ServingReport: drift: features of release {report.release_id[:64]!r}, got {unknown[0][:80]!r}"
        )


def with_thresholds(report: ServingReport, thresholds: Mapping[str, float], *, examples_min: int) -> ServingReport:
    """The report with the profile's own thresholds; without drift if too few examples are behind it."""
    if report.drift_examples < examples_min:
        return report.model_copy(update={"drift": []})
    drift = [each.model_copy(update={"threshold": thresholds[each.feature]}) for each in report.drift]
    return report.model_copy(update={"drift": drift})


def _check_figures(report: ServingReport) -> None:
    for name in ("requests", "examples", "errors", "drift_examples"):
        if getattr(report, name) > COUNT_MAX:
            raise MalformedMessageError(f"Expected a ServingReport: {name}: at most {COUNT_MAX}, got more")
    for name, value in _measures(report):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise MalformedMessageError(f"Expected a ServingReport: {name}: a finite number from 0 on, got {value}")


def _measures(report: ServingReport) -> list[tuple[str, float | None]]:
    return [
        ("window_s", report.window_s),
        ("latency_p50_ms", report.latency_p50_ms),
        ("latency_p99_ms", report.latency_p99_ms),
        *(pair for index, each in enumerate(report.drift[: FEATURES_MAX + 1]) for pair in _drift_measures(index, each)),
    ]


def _drift_measures(index: int, drift: FeatureDrift) -> list[tuple[str, float | None]]:
    return [(f"drift.{index}.psi", drift.psi), (f"drift.{index}.threshold", drift.threshold)]
