"""Worker processes: killed ones resume, cancelled ones end, and none outlives the coordinator."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloud.auth.operators import Principal
from cloud.jobs.models import JobRecord
from cloud.jobs.runner import JobRunner
from cloud.jobs.service import cancel_job, create_job, get_job, pause_job, resume_job
from shared.lifecycles import JobState
from tests.support.coordinator import TestCoordinator, open_coordinator

pytestmark = pytest.mark.processes
WORKER = (sys.executable, "-m", "tests.cloud.jobs.worker_with_test_jobs")
DEADLINE_S = 30.0


@pytest.fixture
def coordinator(tmp_path: Path, database_url: str) -> Iterator[TestCoordinator]:
    coordinator = open_coordinator(tmp_path, database_url=database_url, job_restarts_max=1, campaigns_max=2)
    yield coordinator
    coordinator.engine.dispose()


def add(coordinator: TestCoordinator, job_id: str, kind: str, **spec: object) -> None:
    with coordinator.services.sessions() as session, session.begin():
        principal = Principal("operator", "admin")
        create_job(session, kind=kind, spec=spec, job_id=job_id, now=time.time(), principal=principal)


def job(coordinator: TestCoordinator, job_id: str) -> JobRecord:
    with coordinator.services.sessions() as session, session.begin():
        return get_job(session, job_id)


def run_until(coordinator: TestCoordinator, *goals: Callable[[], bool]) -> None:
    """Runs the runner until each goal was reached, one after the other."""

    async def story() -> None:
        task = asyncio.create_task(JobRunner(coordinator.services, worker=WORKER).run_forever(interval_s=0.02))
        deadline = time.monotonic() + DEADLINE_S
        for goal in goals:
            while not goal():
                assert time.monotonic() < deadline, "expected the goal in time"
                assert not task.done()
                await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(story())


def is_in(coordinator: TestCoordinator, job_id: str, state: JobState) -> Callable[[], bool]:
    return lambda: job(coordinator, job_id).state == state


def is_waiting(coordinator: TestCoordinator, job_id: str) -> bool:
    row = job(coordinator, job_id)
    return row.state == JobState.RUNNING and row.progress.get("step") == "waiting"


def kill(coordinator: TestCoordinator, job_id: str) -> Callable[[], bool]:
    def act() -> bool:
        os.kill(int(job(coordinator, job_id).progress["pid"]), signal.SIGKILL)
        (coordinator.services.settings.jobs_dir / job_id / "gate").touch()
        return True

    return act


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_jobs_end_with_a_result_a_refusal_or_a_mistake(coordinator: TestCoordinator) -> None:
    add(coordinator, "good", "count", to=2)
    add(coordinator, "bad", "refuse")
    add(coordinator, "broken", "break_down")
    add(coordinator, "unknown", "nobody_does_this")
    ends = {"good": JobState.DONE, "bad": JobState.FAILED, "broken": JobState.FAILED, "unknown": JobState.FAILED}
    run_until(coordinator, *(is_in(coordinator, job_id, state) for job_id, state in ends.items()))
    assert job(coordinator, "good").result == {"counted": 2}
    assert (job(coordinator, "bad").error, job(coordinator, "bad").hint) == ("Expected something else", "Do it better.")
    assert job(coordinator, "broken").error == "ZeroDivisionError: a mistake"
    assert "worker.log" in job(coordinator, "broken").hint
    assert "nobody_does_this" in job(coordinator, "unknown").error


def test_a_ring_wakes_a_job_that_waits(coordinator: TestCoordinator) -> None:
    add(coordinator, "a", "listen")

    def ring() -> bool:
        coordinator.services.bell.ring()
        return True

    run_until(coordinator, lambda: is_waiting(coordinator, "a"), ring, is_in(coordinator, "a", JobState.DONE))


def test_a_killed_job_resumes_from_what_it_stored(coordinator: TestCoordinator) -> None:
    add(coordinator, "a", "count", to=4, wait_at=2)
    run_until(
        coordinator,
        lambda: is_waiting(coordinator, "a"),
        kill(coordinator, "a"),
        is_in(coordinator, "a", JobState.DONE),
    )
    assert job(coordinator, "a").restarts == 1


def test_a_job_whose_process_always_dies_fails_in_the_end(coordinator: TestCoordinator) -> None:
    add(coordinator, "a", "die")
    run_until(coordinator, is_in(coordinator, "a", JobState.FAILED))
    assert "died 2 times, last with signal 9" in job(coordinator, "a").error


def test_a_cancelled_job_ends_and_the_next_of_its_kind_starts(coordinator: TestCoordinator) -> None:
    add(coordinator, "a", "count", to=4, wait_at=0)
    add(coordinator, "b", "count", to=1)

    def cancel() -> bool:
        assert job(coordinator, "b").state == JobState.QUEUED
        with coordinator.services.sessions() as session, session.begin():
            cancel_job(session, "a", now=time.time())
        return True

    run_until(coordinator, lambda: is_waiting(coordinator, "a"), cancel, is_in(coordinator, "b", JobState.DONE))
    assert job(coordinator, "a").state == JobState.CANCELLED


def test_a_paused_job_ends_its_process_and_goes_on_when_resumed(coordinator: TestCoordinator) -> None:
    add(coordinator, "a", "count", to=4, wait_at=2)
    pids: list[int] = []

    def pause() -> bool:
        pids.append(int(job(coordinator, "a").progress["pid"]))
        with coordinator.services.sessions() as session, session.begin():
            pause_job(session, "a")
        return True

    def resume() -> bool:
        (coordinator.services.settings.jobs_dir / "a" / "gate").touch()
        with coordinator.services.sessions() as session, session.begin():
            resume_job(session, "a")
        return True

    run_until(
        coordinator,
        lambda: is_waiting(coordinator, "a"),
        pause,
        lambda: not is_alive(pids[0]),
        resume,
        is_in(coordinator, "a", JobState.DONE),
    )
    assert job(coordinator, "a").restarts == 0


def test_several_campaigns_run_at_a_time_and_one_job_of_any_other_kind(coordinator: TestCoordinator) -> None:
    for job_id in ("c1", "c2", "c3"):
        add(coordinator, job_id, "campaign", to=4, wait_at=0)
    for job_id in ("a1", "a2"):
        add(coordinator, job_id, "count", to=4, wait_at=0)

    def settled() -> bool:
        return all(is_waiting(coordinator, job_id) for job_id in ("c1", "c2", "a1"))

    run_until(coordinator, settled)
    assert [job(coordinator, job_id).state for job_id in ("c3", "a2")] == [JobState.QUEUED] * 2


def test_a_running_job_resumes_after_the_coordinator_went_away(coordinator: TestCoordinator) -> None:
    add(coordinator, "a", "count", to=4, wait_at=2)
    run_until(coordinator, lambda: is_waiting(coordinator, "a"))
    assert job(coordinator, "a").state == JobState.RUNNING
    assert not is_alive(int(job(coordinator, "a").progress["pid"]))
    (coordinator.services.settings.jobs_dir / "a" / "gate").touch()
    run_until(coordinator, is_in(coordinator, "a", JobState.DONE))
    assert job(coordinator, "a").restarts == 0


def test_a_worker_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, os, time\n"
        "child = 'import os, sys, time; from cloud.jobs.lifeline import die_with; die_with(int(sys.argv[1]));'"
        "'print(os.getpid(), flush=True); time.sleep(60)'\n"
        "subprocess.run([sys.executable, '-c', child, str(os.getpid())])\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
    parent.kill()
    parent.wait(10)
    deadline = time.monotonic() + 10
    while is_alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)
