"""Serving reports from devices: windows, the device's drift, alerts, and what is rejected."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import Session

from cloud.devices import service as devices
from cloud.monitoring import alerts
from cloud.monitoring.events import on_serving_report
from cloud.monitoring.service import Served, critical_since, keep_reference, note_malformed_event, served_since
from cloud.monitoring.windows import newest_windows
from shared.ids import DeviceId
from shared.messages.base import MalformedMessageError
from shared.messages.events import Envelope, EventKind
from tests.cloud.rollouts.world import PROFILE, enrol, envelope, open_database

PRESS, LATHE = DeviceId("press-07"), DeviceId("lathe-01")
CALM = {"gyro-x": 0.05, "gyro-y": 0.05, "gyro-z": 0.05}
DISTURBED = {**CALM, "gyro-y": 0.5}


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with open_database(tmp_path)() as session, session.begin():
        for name in (PRESS, LATHE):
            enrol(session, name)
        keep_reference(session, "r-1", PROFILE)
        yield session


def report(device: DeviceId, sequence: int, psi: dict[str, float], *, boot: str = "boot-1", **changed: Any) -> Envelope:
    """`Any`: JSON."""
    body = {
        "release_id": "r-1",
        "window_s": 10.0,
        "requests": 20,
        "examples": 40,
        "errors": 0,
        "latency_p50_ms": 0.4,
        "latency_p99_ms": 1.5,
        "drift": [{"feature": name, "psi": value, "threshold": 99.0} for name, value in psi.items()],
        "drift_examples": 400,
    }
    return envelope(device, EventKind.SERVING_REPORT, {**body, **changed}, sequence=sequence, boot=boot)


def take(session: Session, *said: Envelope) -> None:
    for each in said:
        on_serving_report(session, DeviceId(each.device_id), each, 100.0 + each.sequence)


def open_subjects(session: Session) -> list[tuple[str, str]]:
    return sorted((row.device_id, row.subject) for row in alerts.open_alerts(session))


def test_a_disturbed_sensor_opens_the_alert_of_that_device_and_feature_alone(session: Session) -> None:
    for sequence in range(4):
        take(session, report(PRESS, sequence, DISTURBED), report(LATHE, sequence, CALM))
    assert open_subjects(session) == [(PRESS, "gyro-y")]
    alert = alerts.shape(alerts.open_alerts(session)[0])
    assert (alert.kind, alert.severity, alert.count, alert.threshold) == ("drift", "warning", 3, 0.2)
    assert (alert.opened_at, alert.last_seen_at) == (101.0, 103.0)


def test_the_alert_clears_by_itself_and_opens_anew_as_another_one(session: Session) -> None:
    take(session, *(report(PRESS, sequence, DISTURBED) for sequence in range(2)))
    take(session, *(report(PRESS, sequence, CALM) for sequence in range(2, 4)))
    assert open_subjects(session) == []
    take(session, *(report(PRESS, sequence, DISTURBED) for sequence in range(4, 6)))
    shown = [alerts.shape(row) for row in alerts.newest_alerts(session, is_open=None, limit=10)]
    assert [(alert.opened_at, alert.closed_at) for alert in shown] == [(105.0, None), (101.0, 103.0)]


def test_the_devices_own_drift_has_the_profiles_thresholds_not_its_word_for_them(session: Session) -> None:
    take(session, report(PRESS, 0, DISTURBED))
    drift = devices.view(devices.get_device(session, PRESS), now=100, heartbeat_s=10).drift
    assert {each.feature: (each.psi, each.threshold) for each in drift}["gyro-y"] == (0.5, 0.2)


def test_too_few_examples_say_nothing(session: Session) -> None:
    take(session, *(report(PRESS, sequence, DISTURBED, drift_examples=49) for sequence in range(5)))
    assert open_subjects(session) == []
    assert newest_windows(session, device_id=PRESS, limit=1)[0].psi == {}


def test_a_repeated_report_counts_once(session: Session) -> None:
    once = report(PRESS, 0, DISTURBED)
    take(session, once, once, once)
    assert open_subjects(session) == []
    assert len(newest_windows(session, device_id=PRESS, limit=10)) == 1


def test_a_late_report_is_kept_as_a_window_and_decides_nothing(session: Session) -> None:
    take(session, *(report(PRESS, sequence, DISTURBED) for sequence in (5, 6)))
    take(session, *(report(PRESS, sequence, CALM) for sequence in (1, 2, 3)))
    assert open_subjects(session) == [(PRESS, "gyro-y")]
    assert len(newest_windows(session, device_id=PRESS, limit=10)) == 5


def test_a_restarted_device_goes_on_where_it_was(session: Session) -> None:
    take(session, report(PRESS, 500, DISTURBED), report(PRESS, 0, DISTURBED, boot="boot-2"))
    assert open_subjects(session) == [(PRESS, "gyro-y")]


def test_an_alert_that_an_operator_closed_opens_again_only_by_new_reports(session: Session) -> None:
    take(session, *(report(PRESS, sequence, DISTURBED) for sequence in range(2)))
    closed = alerts.close_alert(
        session, alerts.open_alerts(session)[0].alert_id, principal="ada", role="admin", now=101.5
    )
    assert (closed.closed_by_principal, closed.closed_at) == ("ada", 101.5)
    take(session, report(PRESS, 2, DISTURBED))
    assert open_subjects(session) == []
    take(session, report(PRESS, 3, DISTURBED))
    assert open_subjects(session) == [(PRESS, "gyro-y")]


@pytest.mark.parametrize(
    "changed",
    [
        {"release_id": "r-unknown"},
        {"drift": [{"feature": "gyro-w", "psi": 0.1, "threshold": 0.2}]},
        {"drift": [{"feature": "gyro-x", "psi": 0.1, "threshold": 0.2}] * 2},
        {"drift": [{"feature": f"f-{number}", "psi": 0.1, "threshold": 0.2} for number in range(5000)]},
        {"drift": [{"feature": "gyro-x", "psi": -1, "threshold": 0.2}]},
        {"drift": [{"feature": "gyro-x", "psi": float("nan"), "threshold": 0.2}]},
        {"drift": [{"feature": "gyro-x", "psi": float("inf"), "threshold": 0.2}]},
        {"drift": [{"feature": "gyro-x", "psi": 0.1, "threshold": float("inf")}]},
        {"requests": -1},
        {"requests": 2**60},
        {"errors": "many"},
        {"window_s": 0},
        {"window_s": float("inf")},
        {"latency_p99_ms": float("nan")},
        {"latency_p50_ms": -1.0},
    ],
)
def test_rejects_a_report_that_no_device_of_ours_sends(session: Session, changed: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessageError, match="Expected a ServingReport"):
        take(session, report(PRESS, 0, CALM, **changed))
    assert newest_windows(session, device_id=None, limit=10) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(sorted(report(PRESS, 0, CALM).body))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changed=st.dictionaries(FIELDS, JSON, max_size=4), sequence=st.integers(0, 2**53))
def test_whatever_a_device_sends_is_taken_or_rejected(session: Session, changed: dict[str, Any], sequence: int) -> None:
    with suppress(MalformedMessageError):
        on_serving_report(session, PRESS, report(PRESS, sequence, CALM, **changed), 100.0)
    session.flush()


def test_what_was_served_is_counted_from_each_devices_own_moment(session: Session) -> None:
    take(session, *(report(PRESS, sequence, CALM, errors=1) for sequence in range(4)))
    take(session, report(LATHE, 0, CALM))
    assert served_since(session, {PRESS: 101.0, LATHE: 100.0}, release_id="r-1") == {PRESS: Served(40, 2)}
    assert served_since(session, {PRESS: 0.0}, release_id="r-2") == {}
    assert served_since(session, {}, release_id="r-1") == {}


def test_what_is_critical_counts_only_if_it_opened_since(session: Session) -> None:
    take(session, *(report(PRESS, sequence, {**CALM, "gyro-z": 5.0}) for sequence in range(2)))
    assert critical_since(session, {PRESS: 100.5, LATHE: 0.0}) == {
        PRESS: "gyro-z on press-07 drifts: PSI 5.00, threshold 0.20."
    }
    assert critical_since(session, {PRESS: 101.0}) == {}


def test_malformed_events_of_a_device_are_one_alert_that_counts(session: Session) -> None:
    for offset in range(3):
        note_malformed_event(session, PRESS, reason="no kind", cause_id=f"offset-{offset}", now=float(offset))
    row = alerts.open_alerts(session)[0]
    assert (row.kind, row.count, row.last_seen_at) == ("malformed_events", 3, 2.0)
