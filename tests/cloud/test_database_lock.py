"""One coordinator for one PostgreSQL database, also after the database was restarted under it."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest

from cloud.database_lock import DatabaseLock
from cloud.locks import AlreadyRunningError
from shared.exit_codes import ExitCode
from tests.support.postgresql import schema_of

pytestmark = pytest.mark.postgresql
CHECK_S = 0.02


def lock(url: str) -> DatabaseLock:
    return DatabaseLock(url, wait_s=0)


def end_connections_that_hold_the_lock(url: str) -> None:
    """What a restart of the server does to them."""
    query = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks "
        "WHERE locktype = 'advisory' AND objsubid = 2 AND objid = hashtext(%s)::bigint & 4294967295"
    )
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql"), autocommit=True) as connection:
        assert connection.execute(query, (schema_of(url),)).fetchall() == [(True,)]


def test_a_second_is_refused_until_the_first_has_ended(postgresql_url: str) -> None:
    with lock(postgresql_url), pytest.raises(AlreadyRunningError, match="no other coordinator"), lock(postgresql_url):
        pytest.fail("two hold it")
    with DatabaseLock(postgresql_url):
        pass


def test_a_lost_connection_is_replaced(postgresql_url: str) -> None:
    with lock(postgresql_url) as first:
        end_connections_that_hold_the_lock(postgresql_url)
        first.look()
        first.look()
        with pytest.raises(AlreadyRunningError), lock(postgresql_url):
            pytest.fail("two hold it")


def test_who_finds_another_in_its_place_stops(postgresql_url: str) -> None:
    stopped = threading.Event()
    with lock(postgresql_url) as first:
        end_connections_that_hold_the_lock(postgresql_url)
        with (
            lock(postgresql_url),
            pytest.raises(AlreadyRunningError),
            first.watched(stop=stopped.set, check_s=CHECK_S),
        ):
            assert stopped.wait(10)


@pytest.mark.processes
def test_the_coordinator_of_another_folder_says_why_it_does_not_start(postgresql_url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "shared", "coordinator", "serve", "--data", str(tmp_path / "other")]
    environment = os.environ | {"FLEETLEARN_DATABASE_URL": postgresql_url}
    with lock(postgresql_url):
        second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == ExitCode.ALREADY_RUNNING
    assert "Expected no other coordinator on database 'postgres', one is running" in second.stderr
    assert "Traceback" not in second.stderr


def test_sqlite_is_left_to_the_lock_of_its_folder(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'coordinator.sqlite'}"
    with lock(url) as first, lock(url):
        first.look()
    assert list(tmp_path.iterdir()) == []
