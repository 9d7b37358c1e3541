"""The migrations make exactly the tables that the code uses, on both databases."""

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from cloud.db import open_engine
from cloud.migrations.metadata import metadata
from cloud.migrations.upgrade import alembic_config, upgrade_database


@pytest.fixture
def url(database_url: str, tmp_path: Path) -> str:
    """Of a new, empty database."""
    return database_url or f"sqlite:///{tmp_path / 'test.sqlite'}"


def differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata()))


def test_migrations_make_exactly_the_tables_of_the_code(url: str) -> None:
    upgrade_database(url)
    engine = open_engine(url)
    with engine.begin() as connection:
        assert differences(connection) == []
    engine.dispose()


def test_upgrading_twice_changes_nothing(url: str) -> None:
    upgrade_database(url)
    upgrade_database(url)
    engine = open_engine(url)
    with engine.begin() as connection:
        assert differences(connection) == []
    engine.dispose()


def test_every_migration_can_be_taken_back(url: str) -> None:
    upgrade_database(url)
    engine = open_engine(url)
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "base")
    with engine.begin() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    engine.dispose()


def test_the_database_itself_refuses_to_change_the_audit_log(url: str) -> None:
    upgrade_database(url)
    engine = open_engine(url)
    entry = (
        "INSERT INTO audit_entry (at, principal, role, action, subject, details) VALUES (1, 'a', 'b', 'c', 'd', '{}')"
    )
    with engine.begin() as connection:
        connection.execute(text(entry))
    for change in ("UPDATE audit_entry SET principal = 'x'", "DELETE FROM audit_entry"):
        with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
            connection.execute(text(change))
    engine.dispose()
