"""When drift alerts open, repeat and clear."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.monitoring.alerting import DriftChanges, DriftPolicy, DriftReport, Reading, Severity, decide_drift
from shared.ids import DeviceId

DEVICE = DeviceId("press-07")
POLICY = DriftPolicy()
THRESHOLD = 0.2


def report(at: float, **psi: float) -> DriftReport:
    return DriftReport(at, {feature: Reading(value, THRESHOLD) for feature, value in psi.items()})


def decide(
    reports: Sequence[DriftReport], *, open_features: Sequence[str] = (), closed_at: Mapping[str, float] | None = None
) -> DriftChanges:
    return decide_drift(POLICY, DEVICE, reports, open_features=frozenset(open_features), closed_at=closed_at or {})


def found(changes: DriftChanges) -> list[str]:
    return [finding.subject for finding in changes.findings]


def test_one_report_above_the_threshold_is_not_yet_drift() -> None:
    assert decide([report(1, x=0.9)]) == DriftChanges()


def test_two_in_a_row_are_for_exactly_that_feature() -> None:
    changes = decide([report(1, x=0.9, y=0.1), report(2, x=0.8, y=0.9)])
    assert found(changes) == ["x"]
    finding = changes.findings[0]
    assert (finding.device_id, finding.value, finding.threshold) == (DEVICE, 0.8, THRESHOLD)
    assert finding.message == "x on press-07 drifts: PSI 0.80, threshold 0.20."


def test_exactly_the_threshold_is_not_drift() -> None:
    assert decide([report(1, x=THRESHOLD), report(2, x=THRESHOLD)]) == DriftChanges()


@pytest.mark.parametrize(("psi", "severity"), [(0.59, Severity.WARNING), (0.61, Severity.CRITICAL)])
def test_far_above_the_threshold_is_critical(psi: float, severity: Severity) -> None:
    assert decide([report(1, x=psi), report(2, x=psi)]).findings[0].severity is severity


def test_an_open_alert_repeats_with_every_report_above() -> None:
    assert found(decide([report(1, x=0.1), report(2, x=0.3)], open_features=["x"])) == ["x"]


def test_an_open_alert_clears_after_two_calm_reports() -> None:
    assert decide([report(1, x=0.3), report(2, x=0.1)], open_features=["x"]).cleared == ()
    assert decide([report(2, x=0.1), report(3, x=0.1)], open_features=["x"]).cleared == ("x",)


def test_between_the_lines_nothing_changes() -> None:
    between = [report(1, x=0.18), report(2, x=0.18)]
    assert decide(between) == DriftChanges()
    assert decide(between, open_features=["x"]) == DriftChanges()


def test_an_alert_of_a_feature_that_the_release_no_longer_has_clears() -> None:
    assert decide([report(1, y=0.1)], open_features=["x"]).cleared == ("x",)


def test_after_an_operator_closed_it_old_reports_do_not_open_it_again() -> None:
    reports = [report(1, x=0.9), report(3, x=0.9)]
    assert decide(reports, closed_at={"x": 2.0}) == DriftChanges()
    assert found(decide([report(3, x=0.9), report(4, x=0.9)], closed_at={"x": 2.0})) == ["x"]


def test_without_figures_nothing_is_decided() -> None:
    assert decide([], open_features=["x"]) == DriftChanges()


@given(st.lists(st.floats(0, 2), min_size=1, max_size=60))
def test_an_alert_never_opens_and_clears_on_neighbouring_reports(values: list[float]) -> None:
    is_open, changed_at = False, list[int]()
    for number in range(len(values)):
        start = max(0, number - 1)
        reports = [report(at, x=values[at]) for at in range(start, number + 1)]
        changes = decide(reports, open_features=["x"] if is_open else [])
        opens, clears = bool(changes.findings) and not is_open, bool(changes.cleared)
        if opens or clears:
            changed_at.append(number)
        is_open = (is_open or opens) and not clears
    assert all(later - earlier >= 2 for earlier, later in pairwise(changed_at))


@given(st.floats(0.01, 0.15), st.integers(2, 30))
def test_a_value_that_dances_around_the_threshold_does_not_flap(swing: float, count: int) -> None:
    changes, is_open = 0, False
    for number in range(1, count):
        reports = [report(at, x=THRESHOLD + swing * (0.2 if at % 2 else -0.2)) for at in (number - 1, number)]
        decided = decide(reports, open_features=["x"] if is_open else [])
        changes += bool(decided.findings and not is_open) + bool(decided.cleared)
        is_open = (is_open or bool(decided.findings)) and not decided.cleared
    assert changes == 0
