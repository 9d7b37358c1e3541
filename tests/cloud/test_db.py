"""Transactions follow each other, whoever asks, on both databases."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlmodel import Session, func, select

from cloud.auth.operators import Principal
from cloud.db import SessionFactory, reading
from cloud.devices.models import DeviceRecord
from cloud.jobs.models import JobRecord
from cloud.jobs.service import create_job, next_queued, start_job
from cloud.rollouts.models import RolloutGenerationRow
from shared.lifecycles import JobState
from tests.support.coordinator import TestCoordinator, machine, make_token

THREADS = 8


def test_everybody_who_reads_the_newest_and_adds_one_gets_a_number_of_their_own(coordinator: TestCoordinator) -> None:
    def take(_: int) -> int:
        with coordinator.services.sessions() as session, session.begin():
            newest = session.exec(select(func.max(RolloutGenerationRow.generation))).one() or 0
            session.add(RolloutGenerationRow(generation=newest + 1, rollout_id="r"))
            return newest + 1

    with ThreadPoolExecutor(THREADS) as pool:
        assert sorted(pool.map(take, range(40))) == list(range(1, 41))


def test_a_queued_job_is_started_once(coordinator: TestCoordinator) -> None:
    with coordinator.services.sessions() as session, session.begin():
        for number in range(12):
            principal = Principal("operator", "admin")
            create_job(session, kind="count", spec={}, job_id=f"j{number}", now=number, principal=principal)

    def claim(_: int) -> str | None:
        with coordinator.services.sessions() as session, session.begin():
            job = next_queued(session, kinds_busy=frozenset(), now=1e12)
            if job is not None:
                start_job(session, job, now=1)
            return job.job_id if job else None

    with ThreadPoolExecutor(THREADS) as pool:
        claimed = [job_id for job_id in pool.map(claim, range(16)) if job_id]
    assert sorted(claimed) == sorted(f"j{number}" for number in range(12))
    with coordinator.services.sessions() as session, session.begin():
        assert set(session.exec(select(JobRecord.state))) == {JobState.RUNNING}


def test_a_token_enrols_one_device_however_many_try_at_once(coordinator: TestCoordinator) -> None:
    with coordinator.client() as client:
        secret = make_token(client, coordinator)
        machines = [machine(f"press-{number}") for number in range(THREADS)]

        def enrol(number: int) -> int:
            device = machines[number]
            body = {"secret": secret, "device_id": device.device_id, "csr_pem": device.csr()}
            return client.post("/v1/enrol", json=body).status_code

        with ThreadPoolExecutor(THREADS) as pool:
            answers = list(pool.map(enrol, range(THREADS)))
    assert answers.count(200) == 1
    assert set(answers) <= {200, 409}
    with coordinator.services.sessions() as session, session.begin():
        assert len(session.exec(select(DeviceRecord)).all()) == 1


def test_large_numbers_of_devices_are_kept(coordinator: TestCoordinator) -> None:
    with coordinator.services.sessions() as session, session.begin():
        session.add(_device(memory_rss_bytes=16 * 2**30, sequence=2**53))
    with coordinator.services.sessions() as session, session.begin():
        found = session.get_one(DeviceRecord, "press-07")
        assert (found.memory_rss_bytes, found.sequence) == (16 * 2**30, 2**53)


def test_a_transaction_that_fails_leaves_its_turn_to_the_next(coordinator: TestCoordinator) -> None:
    def fail(session: Session) -> None:
        session.add(_device())
        session.flush()
        raise RuntimeError("here")

    for _ in range(2):
        with pytest.raises(RuntimeError), coordinator.services.sessions() as session, session.begin():
            fail(session)
    with coordinator.services.sessions() as session, session.begin():
        assert session.exec(select(DeviceRecord)).all() == []


def _device(**known: Any) -> DeviceRecord:  # Any: whatever columns a test is about
    return DeviceRecord(
        device_id="press-07",
        enrolled_at=0,
        created_by_principal="operator",
        created_by_role="admin",
        public_key_pem="",
        certificate_pem="",
        certificate_expires_at=0,
        **known,
    )


def test_who_only_reads_waits_for_nobody_and_sees_what_was_committed(coordinator: TestCoordinator) -> None:
    sessions = coordinator.services.sessions
    with sessions() as session, session.begin():
        session.add(RolloutGenerationRow(generation=1, rollout_id="r"))
        session.flush()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(_generations, sessions).result(timeout=20) == []
    assert _generations(sessions) == [1]


def test_a_transaction_that_only_reads_refuses_to_write(coordinator: TestCoordinator) -> None:
    sessions = coordinator.services.sessions
    with pytest.raises(AssertionError, match="only reads"), reading(sessions) as session:
        session.add(RolloutGenerationRow(generation=1, rollout_id="r"))
    assert _generations(sessions) == []


def _generations(sessions: SessionFactory) -> list[int]:
    with reading(sessions) as session:
        return list(session.exec(select(RolloutGenerationRow.generation)))


def test_a_transaction_that_fails_gives_its_turn_to_the_next(coordinator: TestCoordinator) -> None:
    sessions = coordinator.services.sessions

    def fail() -> None:
        with sessions() as session, session.begin():
            session.add(RolloutGenerationRow(generation=1, rollout_id="r"))
            session.flush()
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fail()
    with sessions() as session, session.begin():
        session.add(RolloutGenerationRow(generation=1, rollout_id="r"))
    assert _generations(sessions) == [1]
