"""Brings a database to the present: runs the migrations it has not seen, in one transaction, one process at a time.

Transactions follow each other (see `cloud.db`), so two processes that start together do not disturb each other.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from cloud.db import open_engine


def upgrade_database(url: str) -> None:
    """Returns when the database at this URL is the present one."""
    engine = open_engine(url)
    try:
        with engine.begin() as connection:
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
