"""Release statuses from devices: repeated, reordered, malformed, and what alerts they make."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import Session

from cloud.devices import service as devices
from cloud.monitoring import alerts
from cloud.rollouts.events import on_release_status
from cloud.rollouts.models import DeviceReleaseRow
from cloud.rollouts.statuses import HISTORY_MAX, history
from shared.ids import DeviceId
from shared.lifecycles import ReleaseState
from shared.messages.base import MalformedMessageError
from shared.messages.events import Envelope, EventKind
from tests.cloud.rollouts.world import WAY, enrol, envelope, open_database

DEVICE = DeviceId("press-07")
ORDERS = st.builds(
    lambda first, again: [*first, *again], st.permutations(range(5)), st.lists(st.integers(0, 4), max_size=8)
)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with open_database(tmp_path)() as session, session.begin():
        enrol(session, DEVICE)
        session.flush()
        devices.set_desired_release(session, DEVICE, release_id="r-2", generation=3)
        yield session


def said(says: ReleaseState | str, sequence: int, *, boot: str = "boot-1", **changed: object) -> Envelope:
    body: dict[str, object] = {"release_id": "r-2", "generation": 3, "state": says, "active_release_id": "r-1"}
    return envelope(DEVICE, EventKind.RELEASE_STATUS, {**body, **changed}, sequence=sequence, boot=boot)


def newest(session: Session) -> DeviceReleaseRow:
    return session.get_one(DeviceReleaseRow, DEVICE)


def open_messages(session: Session) -> list[str]:
    return [row.message for row in alerts.open_alerts(session)]


def test_the_newest_status_is_the_devices_state(session: Session) -> None:
    for sequence, state in enumerate(WAY):
        on_release_status(session, DEVICE, said(state, sequence, active_release_id="r-2"), 10.0 + sequence)
    assert devices.get_device(session, DEVICE).release_state == ReleaseState.ACTIVE
    assert (newest(session).state, newest(session).state_since) == ("active", 14.0)
    assert len(history(session, DEVICE, limit=10)) == 5


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=ORDERS)
def test_repeated_and_reordered_statuses_end_in_the_same_state(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("order")
    with open_database(folder)() as session, session.begin():
        enrol(session, DEVICE)
        session.flush()
        devices.set_desired_release(session, DEVICE, release_id="r-2", generation=3)
        for position in order:
            on_release_status(session, DEVICE, said(WAY[position], position), 10.0)
        assert newest(session).state == "active"
        assert devices.get_device(session, DEVICE).release_state == ReleaseState.ACTIVE
        assert len(history(session, DEVICE, limit=100)) == 5


def test_a_straggler_of_an_earlier_boot_changes_nothing(session: Session) -> None:
    on_release_status(session, DEVICE, said("testing", 90), 1.0)
    on_release_status(session, DEVICE, said("downloading", 0, boot="boot-2"), 2.0)
    on_release_status(session, DEVICE, said("activating", 91), 3.0)
    assert newest(session).state == "downloading"


def test_saying_active_again_after_a_restart_does_not_start_the_soak_anew(session: Session) -> None:
    on_release_status(session, DEVICE, said("active", 1), 10.0)
    on_release_status(session, DEVICE, said("active", 0, boot="boot-2"), 20.0)
    assert newest(session).state_since == 10.0


def test_an_older_generation_never_replaces_a_newer_one(session: Session) -> None:
    on_release_status(session, DEVICE, said("active", 1), 10.0)
    on_release_status(session, DEVICE, said("failed", 2, generation=2), 11.0)
    assert newest(session).state == "active"
    assert open_messages(session) == []


def test_a_failure_opens_one_alert_with_the_devices_own_sentence_and_success_clears_it(session: Session) -> None:
    failed = said("failed", 1, error="Expected SHA-256 ab, got cd")
    on_release_status(session, DEVICE, failed, 10.0)
    on_release_status(session, DEVICE, failed, 10.5)
    assert open_messages(session) == ["press-07 refused release r-2: Expected SHA-256 ab, got cd"]
    assert alerts.open_alerts(session)[0].count == 1
    devices.set_desired_release(session, DEVICE, release_id="r-2", generation=4)
    on_release_status(session, DEVICE, said("active", 2, generation=4, active_release_id="r-2"), 20.0)
    assert open_messages(session) == []


def test_a_device_that_serves_nothing_after_a_failure_is_critical(session: Session) -> None:
    on_release_status(session, DEVICE, said("failed", 1, active_release_id=None), 10.0)
    assert [row.severity for row in alerts.open_alerts(session)] == ["critical"]


@pytest.mark.parametrize(
    "changed",
    [
        {"generation": 4},
        {"generation": -1},
        {"generation": 2**70},
        {"state": "happy"},
        {"release_id": None},
        {"release_id": "r\x00"},
        {"release_id": "r" * 65},
        {"self_test_ms": float("inf")},
        {"error": 7},
    ],
)
def test_rejects_a_status_that_no_device_of_ours_sends(session: Session, changed: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessageError):
        on_release_status(session, DEVICE, said("active", 1, **changed), 1.0)
    assert session.get(DeviceReleaseRow, DEVICE) is None


def test_a_devices_sentence_is_bounded_and_printable(session: Session) -> None:
    on_release_status(session, DEVICE, said("failed", 1, error="a\x00b\x1b[31m" + "x" * 10_000), 1.0)
    error = devices.get_device(session, DEVICE).release_error
    assert len(error) <= 500
    assert error.isprintable()


def test_history_is_bounded(session: Session) -> None:
    for sequence in range(HISTORY_MAX + 20):
        on_release_status(session, DEVICE, said("downloading", sequence), float(sequence))
    kept = history(session, DEVICE, limit=1000)
    assert len(kept) == HISTORY_MAX
    assert kept[0].sequence == HISTORY_MAX + 19
