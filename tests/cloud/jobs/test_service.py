"""Jobs as rows, over HTTP and from inside a job."""

import pytest

from cloud.auth.operators import Principal
from cloud.jobs.context import JobCancelledError, JobPausedError
from cloud.jobs.errors import JobNotPausedError
from cloud.jobs.reporting import CancelCheck, ProgressReporter
from cloud.jobs.service import (
    create_job,
    fail_job,
    finish_job,
    get_job,
    next_queued,
    pause_job,
    resume_job,
    start_job,
)
from shared.lifecycles import IllegalTransitionError, JobState
from tests.support.coordinator import TestCoordinator
from tests.support.http import AppClient

OPERATOR = Principal("operator", "admin")


def add(coordinator: TestCoordinator, job_id: str, *, kind: str = "train_base") -> None:
    coordinator.clock.now += 1
    with coordinator.services.sessions() as session, session.begin():
        create_job(session, kind=kind, spec={}, job_id=job_id, now=coordinator.clock(), principal=OPERATOR)


def start(coordinator: TestCoordinator, job_id: str) -> None:
    with coordinator.services.sessions() as session, session.begin():
        start_job(session, get_job(session, job_id), now=coordinator.clock())


def test_the_oldest_queued_job_of_an_idle_kind_is_next(coordinator: TestCoordinator) -> None:
    for job_id, kind in [("a", "train_base"), ("b", "train_base"), ("c", "package")]:
        add(coordinator, job_id, kind=kind)
    with coordinator.services.sessions() as session, session.begin():
        now = coordinator.clock()
        first = next_queued(session, kinds_busy=frozenset(), now=now)
        other = next_queued(session, kinds_busy=frozenset({"train_base"}), now=now)
        none = next_queued(session, kinds_busy=frozenset({"train_base", "package"}), now=now)
        second = next_queued(session, kinds_busy=frozenset(), now=now, except_for=["a"])
    assert [job and job.job_id for job in (first, other, none, second)] == ["a", "c", None, "b"]


def test_a_scheduled_job_waits_for_its_time(coordinator: TestCoordinator) -> None:
    with coordinator.services.sessions() as session, session.begin():
        create_job(session, kind="k", spec={}, job_id="a", now=1.0, principal=OPERATOR, not_before=50.0)
    with coordinator.services.sessions() as session, session.begin():
        early = next_queued(session, kinds_busy=frozenset(), now=49.9)
        on_time = next_queued(session, kinds_busy=frozenset(), now=50.0)
    assert early is None
    assert on_time is not None


def test_a_paused_job_is_not_started_until_it_is_resumed(coordinator: TestCoordinator) -> None:
    add(coordinator, "a")
    with coordinator.services.sessions() as session, session.begin():
        assert [pause_job(session, "a").state for _ in range(2)] == [JobState.PAUSED] * 2
        assert next_queued(session, kinds_busy=frozenset(), now=1e9) is None
        assert resume_job(session, "a").state is JobState.QUEUED
        with pytest.raises(JobNotPausedError):
            resume_job(session, "a")


def test_a_job_hears_that_it_was_paused_also_when_it_was_resumed_since(coordinator: TestCoordinator) -> None:
    add(coordinator, "a")
    start(coordinator, "a")
    for act in (pause_job, resume_job):
        with coordinator.services.sessions() as session, session.begin():
            act(session, "a")
        with pytest.raises(JobPausedError):
            CancelCheck(coordinator.services.sessions, "a", monotonic=lambda: 0.0)()


def test_a_job_that_is_over_does_not_change(coordinator: TestCoordinator) -> None:
    add(coordinator, "a")
    start(coordinator, "a")
    with coordinator.services.sessions() as session, session.begin():
        finish_job(session, get_job(session, "a"), result={"x": 1}, now=1.0)
        with pytest.raises(IllegalTransitionError):
            fail_job(session, get_job(session, "a"), error="late", hint="", now=2.0)


def test_jobs_are_listed_newest_first_and_cancelled_once_over_http(
    client: AppClient, coordinator: TestCoordinator
) -> None:
    add(coordinator, "a")
    add(coordinator, "b")
    listed = client.get("/v1/jobs", headers=coordinator.operator).json()
    assert [job["job_id"] for job in listed] == ["b", "a"]
    for _ in range(2):
        cancelled = client.post("/v1/jobs/a/cancel", headers=coordinator.operator)
        assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    audit = client.get("/v1/audit", headers=coordinator.operator).json()
    assert audit[0] | {"at": 0, "entry_id": 0} == {
        "entry_id": 0,
        "at": 0,
        "principal": "operator",
        "role": "admin",
        "action": "job.cancel",
        "subject": "a",
        "details": {},
    }


def test_a_finished_job_cannot_be_cancelled(client: AppClient, coordinator: TestCoordinator) -> None:
    add(coordinator, "a")
    start(coordinator, "a")
    with coordinator.services.sessions() as session, session.begin():
        finish_job(session, get_job(session, "a"), result={}, now=1.0)
    answer = client.post("/v1/jobs/a/cancel", headers=coordinator.operator)
    assert (answer.status_code, answer.json()["code"]) == (409, "job_finished")
    assert client.get("/v1/jobs/none", headers=coordinator.operator).status_code == 404


def test_progress_is_stored_at_most_five_times_a_second_and_the_newest_in_the_end(coordinator: TestCoordinator) -> None:
    add(coordinator, "a")
    start(coordinator, "a")
    now = 0.0
    report = ProgressReporter(coordinator.services.sessions, "a", monotonic=lambda: now)
    report(fraction=0.1, step="train", epoch=1)
    report(fraction=0.2, step="train", epoch=2)
    report(fraction=0.3, step="evaluate")
    report.catch_up()
    assert progress(coordinator) == {"fraction": 0.1, "step": "train", "epoch": 1}
    now = 0.2
    report.catch_up()
    assert progress(coordinator) == {"fraction": 0.3, "step": "evaluate"}
    report(fraction=1.0, step="done")
    assert progress(coordinator) == {"fraction": 1.0, "step": "done"}


def progress(coordinator: TestCoordinator) -> dict[str, object]:
    with coordinator.services.sessions() as session, session.begin():
        return get_job(session, "a").progress


def test_a_job_hears_that_it_was_cancelled(client: AppClient, coordinator: TestCoordinator) -> None:
    add(coordinator, "a")
    start(coordinator, "a")
    CancelCheck(coordinator.services.sessions, "a", monotonic=lambda: 0.0)()
    client.post("/v1/jobs/a/cancel", headers=coordinator.operator)
    with pytest.raises(JobCancelledError):
        CancelCheck(coordinator.services.sessions, "a", monotonic=lambda: 0.0)()
