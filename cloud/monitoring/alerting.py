"""When an alert opens, repeats and clears: pure, decided from the open alerts and the newest reports.

Drift of one feature on one device opens an alert when it is above the profile's threshold in `reports_to_open` reports
in a row, and clears by itself when it is below `clear_share` of the threshold in `reports_to_clear` in a row. Between
the two lines nothing changes, so that a value that dances around the threshold does not flap. Reports without enough
examples carry no figures and decide nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from shared.ids import DeviceId


class AlertKind(StrEnum):
    DRIFT = "drift"
    RELEASE_FAILED = "release_failed"
    DEVICE_SILENT = "device_silent"
    MALFORMED_EVENTS = "malformed_events"
    LEDGER = "ledger"


class Severity(StrEnum):
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True)
class Finding:
    """Something an operator should look at: opens an alert, or raises the count of the open one."""

    kind: AlertKind
    severity: Severity
    device_id: DeviceId
    message: str
    subject: str = ""
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class DriftPolicy:
    """How hard it is to open and to clear a drift alert."""

    reports_to_open: int = 2
    reports_to_clear: int = 2
    clear_share: float = 0.8
    """Of the threshold; below it a feature is calm again."""
    critical_factor: float = 3.0
    """Times the threshold; from there on the alert is critical."""


@dataclass(frozen=True)
class Reading:
    """One feature's figure in a report."""

    psi: float
    threshold: float


@dataclass(frozen=True)
class DriftReport:
    """The drift part of one serving report, by feature; all features of the release's profile, or none."""

    received_at: float
    readings: Mapping[str, Reading]


@dataclass(frozen=True)
class DriftChanges:
    findings: tuple[Finding, ...] = ()
    cleared: tuple[str, ...] = ()
    """Features whose alert closes by itself."""


def decide_drift(
    policy: DriftPolicy,
    device_id: DeviceId,
    reports: Sequence[DriftReport],
    *,
    open_features: frozenset[str],
    closed_at: Mapping[str, float],
) -> DriftChanges:
    """What the newest report changes.

    Args:
        policy: The lines and counts.
        device_id: Whose reports these are.
        reports: Of one release, with figures, oldest first; the last one is new.
        open_features: Features with an open alert.
        closed_at: When the last alert of a feature closed; older reports do not count towards a new one, so that
            an operator's closing holds until the drift is seen again.
    """
    if not reports:
        return DriftChanges()
    newest = reports[-1].readings
    findings = []
    cleared = [feature for feature in sorted(open_features) if feature not in newest]
    for feature in sorted(newest):
        is_open = feature in open_features
        since = closed_at.get(feature, float("-inf"))
        history = [each.readings[feature] for each in reports if feature in each.readings and each.received_at > since]
        if _are_above(history, 1 if is_open else policy.reports_to_open):
            findings.append(_drift_finding(policy, device_id, feature, newest[feature]))
        elif is_open and _are_calm(history, policy):
            cleared.append(feature)
    return DriftChanges(tuple(findings), tuple(cleared))


def silence_finding(device_id: DeviceId, *, silent_s: float, limit_s: float) -> Finding:
    """A device that nothing was heard from for longer than the limit."""
    return Finding(
        kind=AlertKind.DEVICE_SILENT,
        severity=Severity.WARNING,
        device_id=device_id,
        message=f"{device_id} was not heard from for {silent_s:.0f} s; expected a sign of life every {limit_s:g} s.",
        value=silent_s,
        threshold=limit_s,
    )


def malformed_finding(device_id: DeviceId, *, reason: str) -> Finding:
    """A device that sends what no device of ours should send."""
    return Finding(
        kind=AlertKind.MALFORMED_EVENTS,
        severity=Severity.WARNING,
        device_id=device_id,
        message=f"{device_id} sent an event that was rejected: {reason}",
    )


def ledger_finding(device_id: DeviceId, *, problem: str) -> Finding:
    """A device whose privacy ledger is not the one that it told of before."""
    return Finding(
        kind=AlertKind.LEDGER,
        severity=Severity.CRITICAL,
        device_id=device_id,
        message=f"The privacy ledger of {device_id} went back or forked, and it is not asked to train: {problem}. "
        "Restore its newest copy, or retire its data and take the ledger as it is.",
    )


def release_failed_finding(device_id: DeviceId, *, release_id: str, sentence: str, serves: str | None) -> Finding:
    """A release that a device could not take on, in the device's own sentence."""
    return Finding(
        kind=AlertKind.RELEASE_FAILED,
        severity=Severity.WARNING if serves else Severity.CRITICAL,
        device_id=device_id,
        subject=release_id,
        message=f"{device_id} refused release {release_id}: {sentence or 'no reason given.'}",
    )


def _drift_finding(policy: DriftPolicy, device_id: DeviceId, feature: str, reading: Reading) -> Finding:
    is_critical = reading.psi >= policy.critical_factor * reading.threshold
    return Finding(
        kind=AlertKind.DRIFT,
        severity=Severity.CRITICAL if is_critical else Severity.WARNING,
        device_id=device_id,
        subject=feature,
        message=f"{feature} on {device_id} drifts: PSI {reading.psi:.2f}, threshold {reading.threshold:.2f}.",
        value=reading.psi,
        threshold=reading.threshold,
    )


def _are_above(history: Sequence[Reading], count: int) -> bool:
    return len(history) >= count and all(each.psi > each.threshold for each in history[-count:])


def _are_calm(history: Sequence[Reading], policy: DriftPolicy) -> bool:
    newest = history[-policy.reports_to_clear :]
    return len(newest) == policy.reports_to_clear and all(
        each.psi < policy.clear_share * each.threshold for each in newest
    )
