"""Tests on both databases: a test that asks for `database_url` runs twice, on SQLite and on PostgreSQL."""

import pytest

from tests.support.postgresql import postgresql_server, postgresql_url

__all__ = ["database_url", "postgresql_server", "postgresql_url"]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database_url(request: pytest.FixtureRequest) -> str:
    """For the setting of this name: empty for SQLite in the data folder, or a new database of the private server."""
    if request.param == "sqlite":
        return ""
    found: str = request.getfixturevalue("postgresql_url")
    return found
