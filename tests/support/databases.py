"""Tests on both databases: a test that asks for `database_url` runs twice, on SQLite and on PostgreSQL."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import pytest

from tests.support.postgresql import empty_schema, postgresql_server, postgresql_url

__all__ = ["EmptyDatabase", "database_url", "empty_database", "postgresql_server", "postgresql_url"]

EmptyDatabase = Callable[[], AbstractContextManager[str]]
"""For a test that begins anew several times: each time the URL of a database without tables, or empty for SQLite."""
_BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]


@pytest.fixture(params=_BOTH)
def empty_database(request: pytest.FixtureRequest) -> EmptyDatabase:
    """Of both databases in turn."""
    if request.param == "sqlite":
        return lambda: nullcontext("")
    return partial(empty_schema, request.getfixturevalue("postgresql_server"))


@pytest.fixture(params=_BOTH)
def database_url(request: pytest.FixtureRequest) -> str:
    """For the setting of this name: empty for SQLite in the data folder, or a new database of the private server."""
    if request.param == "sqlite":
        return ""
    found: str = request.getfixturevalue("postgresql_url")
    return found
