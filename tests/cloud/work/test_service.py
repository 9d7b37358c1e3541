"""Work: made once, fetched as often as asked, finished by the first result of its own device."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlmodel import Session

from cloud.work.errors import UnknownWorkError, WorkExistsError
from cloud.work.models import WorkState
from cloud.work.service import create_work, expire, may_read, pending_for, record_result, results_of
from shared.ids import DeviceId, Digest
from shared.messages.base import ObjectRef
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import Work, WorkKind
from tests.support.coordinator import open_coordinator

MINE, OTHER = DeviceId("press-07"), DeviceId("press-08")
MODEL = ObjectRef(digest=Digest("a" * 64), size_bytes=4)
WORK = Work(
    work_id="w1",
    kind=WorkKind.TRAIN,
    campaign_id="c1",
    round=1,
    task="digits",
    task_version="1",
    model=MODEL,
    deadline_s=60,
)
DONE = WorkResult(work_id="w1", status=WorkStatus.DONE, metrics={"num-examples": 3})


@pytest.fixture
def session(tmp_path: Path, database_url: str) -> Iterator[Session]:
    coordinator = open_coordinator(tmp_path, database_url=database_url)
    with coordinator.services.sessions() as session, session.begin():
        create_work(session, WORK, device_id=MINE, now=1)
        yield session
    coordinator.engine.dispose()


def state(session: Session) -> WorkState:
    (outcome,) = results_of(session, campaign_id="c1", round=1)
    return outcome.state


def test_work_may_be_fetched_twice_and_by_its_device_only(session: Session) -> None:
    assert [pending_for(session, MINE, now=now) for now in (2, 3)] == [[WORK], [WORK]]
    assert pending_for(session, OTHER, now=2) == []
    assert (may_read(session, MINE, MODEL.digest), may_read(session, OTHER, MODEL.digest)) == (True, False)


def test_storing_the_same_work_twice_does_no_harm_and_other_work_is_refused(session: Session) -> None:
    create_work(session, WORK, device_id=MINE, now=5)
    with pytest.raises(WorkExistsError):
        create_work(session, WORK.model_copy(update={"round": 2}), device_id=MINE, now=5)


def test_the_first_result_counts(session: Session) -> None:
    record_result(session, MINE, DONE, now=2)
    record_result(session, MINE, DONE.model_copy(update={"status": WorkStatus.FAILED}), now=3)
    (outcome,) = results_of(session, campaign_id="c1", round=1)
    assert (outcome.state, outcome.result, outcome.finished_at) == (WorkState.DONE, DONE, 2)
    assert pending_for(session, MINE, now=4) == []


def test_a_result_of_another_devices_work_is_refused(session: Session) -> None:
    with pytest.raises(UnknownWorkError):
        record_result(session, OTHER, DONE, now=2)
    assert state(session) == WorkState.PENDING


def test_a_late_result_is_kept_and_the_work_stays_expired(session: Session) -> None:
    expire(session, work_ids=["w1", "none"], now=2)
    record_result(session, MINE, DONE, now=3)
    (outcome,) = results_of(session, campaign_id="c1", round=1)
    assert (outcome.state, outcome.result) == (WorkState.EXPIRED, DONE)
