"""Brings a database to the present: runs the migrations it has not seen, in one transaction, one process at a time."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from cloud.db import open_engine

_LOCK_KEY = 0x666C6565746C  # "fleetl"


def upgrade_database(url: str) -> None:
    """Returns when the database at this URL is the present one."""
    engine = open_engine(url)
    try:
        with engine.begin() as connection:
            _lock(connection)
            command.upgrade(alembic_config(connection), "head")
    finally:
        engine.dispose()


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration for this connection; there is no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _lock(connection: Connection) -> None:
    """SQLite took its write lock with the transaction; PostgreSQL gets one that ends with it."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
