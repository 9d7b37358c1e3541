"""A private PostgreSQL server for the tests that need one: its own cluster in a temporary folder, on a Unix socket.

Skipped, with the reason, where no server is installed; fails instead where `CI=true`.
"""

import getpass
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest

_numbers = count(1)
_OPTIONS = "-c listen_addresses='' -c fsync=off -c max_connections=40"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Path]:
    """The folder of the server's socket; the server lives as long as the tests."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        reason = "no PostgreSQL server in /usr/lib/postgresql; on Debian: apt-get install postgresql"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with _cluster(programs[-1]) as folder:
        yield folder


@pytest.fixture
def postgresql_url(postgresql_server: Path) -> Iterator[str]:
    """A URL where there are no tables."""
    with empty_schema(postgresql_server) as url:
        yield url


@contextmanager
def empty_schema(server: Path) -> Iterator[str]:
    """A URL where there are no tables: of a schema of its own, which is made faster than a database."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(host=str(server), user=_owner(), dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}".encode())
        yield f"postgresql+psycopg://{_owner()}@/postgres?host={server}&options=-csearch_path%3D{name}"
        connection.execute(f"DROP SCHEMA {name} CASCADE".encode())


def schema_of(url: str) -> str:
    """The schema that a URL of `postgresql_url` is about."""
    return url.rpartition("%3D")[2]


@contextmanager
def _cluster(programs: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fleetlearn-pg-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, _owner(), _owner())
        data = folder / "data"
        _run(programs / "initdb", "-D", data, "-U", _owner(), "-A", "trust", "--no-sync", "--locale=C", "-E", "UTF8")
        options = f"{_OPTIONS} -c unix_socket_directories='{folder}'"
        _run(programs / "pg_ctl", "-D", data, "-w", "-t", "30", "-l", folder / "log", "-o", options, "start")
        try:
            yield folder
        finally:
            _run(programs / "pg_ctl", "-D", data, "-w", "-t", "30", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _owner() -> str:
    """PostgreSQL refuses to run as root; Debian's package makes a user for it."""
    return "postgres" if os.geteuid() == 0 else getpass.getuser()


def _run(*command: str | Path) -> None:
    as_owner = ["runuser", "-u", _owner(), "--"] if os.geteuid() == 0 else []
    subprocess.run([*as_owner, *map(str, command)], check=True, timeout=60, stdout=subprocess.DEVNULL, cwd="/")
