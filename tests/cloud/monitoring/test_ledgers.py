"""A device whose privacy ledger went back or forked is an alert, and is not asked to train until that is mended."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlmodel import Session

from cloud.campaigns.selection import Wanted, select
from cloud.devices import service as devices
from cloud.devices.events import on_heartbeat as on_inventory
from cloud.devices.ledgers import accept_ledger
from cloud.monitoring import alerts
from cloud.monitoring.ledgers import on_heartbeat, on_work_result
from shared.ids import DeviceId
from shared.messages.events import EventKind, Heartbeat, LedgerHead, WorkResult, WorkStatus
from tests.cloud.rollouts.world import enrol, envelope, open_database

PRESS = DeviceId("press-07")


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with open_database(tmp_path)() as session, session.begin():
        enrol(session, PRESS)
        yield session


def digest(entry: int, *, branch: str = "") -> str:
    return hashlib.sha256(f"{entry}{branch if entry > 3 else ''}".encode()).hexdigest()


def head(entries: int, *, branch: str = "", shown: int = 0) -> LedgerHead:
    before = [digest(entry, branch=branch) for entry in range(entries - 1, entries - 1 - shown, -1)]
    return LedgerHead(entries=entries, digest=digest(entries, branch=branch), before=before)


def beats(session: Session, sequence: int, ledger: LedgerHead | None, *, boot: str = "boot-1") -> None:
    body = Heartbeat(agent_version="1", tasks={"digits": "1"}, ledger=ledger).model_dump(mode="json")
    event = envelope(PRESS, EventKind.HEARTBEAT, body, sequence=sequence, boot=boot)
    on_inventory(session, PRESS, event, 100.0)
    on_heartbeat(session, PRESS, event, 100.0)


def answers(session: Session, sequence: int, ledger: LedgerHead, *, boot: str = "boot-1") -> None:
    body = WorkResult(work_id="w", status=WorkStatus.DONE, ledger=ledger).model_dump(mode="json")
    on_work_result(session, PRESS, envelope(PRESS, EventKind.WORK_RESULT, body, sequence=sequence, boot=boot), 100.0)


def problem(session: Session) -> str:
    """Why a campaign would not ask the device; empty where it would."""
    session.flush()
    (device,) = devices.candidates(session, only=[PRESS], now=100, heartbeat_s=1e9)
    selection = select([device.model_copy(update={"is_online": True})], Wanted("digits", "1"))
    is_open = [row.kind for row in alerts.open_alerts(session)] == ["ledger"]
    assert is_open == bool(selection.excluded)
    return selection.excluded.get(PRESS, "")


def test_a_ledger_that_was_put_back_is_an_alert_and_not_asked_until_the_newest_copy_is_back(session: Session) -> None:
    beats(session, 1, head(4))
    answers(session, 2, head(6, shown=5))
    beats(session, 3, head(6))
    assert problem(session) == ""
    beats(session, 1, head(4), boot="boot-2")
    assert "went back or forked. Expected a ledger of at least 6 entries, as it had, got one of 4" in problem(session)
    beats(session, 2, head(4), boot="boot-2")
    assert [row.count for row in alerts.open_alerts(session)] == [1]  # one restoring is one alert
    beats(session, 3, head(6), boot="boot-2")
    assert problem(session) == ""


def test_a_fork_is_found_by_the_result_that_made_it_and_no_heartbeat_clears_it(session: Session) -> None:
    beats(session, 1, head(4))
    answers(session, 2, head(6, branch="other", shown=5))
    assert "got another entry there" in problem(session)
    beats(session, 3, head(6, branch="other"))
    assert problem(session)


def test_an_operator_may_take_the_ledger_as_it_is(session: Session) -> None:
    beats(session, 1, head(6))
    beats(session, 1, head(0), boot="boot-2")
    assert problem(session)
    accept_ledger(session, PRESS)
    beats(session, 2, head(0), boot="boot-2")
    assert problem(session) == ""
    beats(session, 3, head(2), boot="boot-2")
    assert problem(session) == ""


def test_stragglers_and_agents_that_tell_nothing_prove_nothing(session: Session) -> None:
    beats(session, 1, head(4))
    answers(session, 9, head(6, shown=5))
    beats(session, 8, head(4))  # sent before the result
    assert problem(session) == ""
    beats(session, 1, head(6), boot="boot-2")
    beats(session, 10, head(4))  # of the boot before
    answers(session, 2, head(4, shown=3), boot="boot-2")  # of old work, kept while it was offline
    beats(session, 3, None, boot="boot-2")
    assert problem(session) == ""
