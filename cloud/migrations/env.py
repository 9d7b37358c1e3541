"""What Alembic runs: on the connection it was given, against the tables of all domains."""

from typing import Literal

from alembic import context
from sqlmodel.sql.sqltypes import AutoString

from cloud.migrations.metadata import metadata


def run() -> None:
    """Within the caller's transaction."""
    connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=metadata(),
        compare_type=True,
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=_render_item,
    )
    context.run_migrations()


def _render_item(kind: str, item: object, _context: object) -> str | Literal[False]:
    """SQLModel's own text type is SQLAlchemy's `String`; migrations know only the latter."""
    return "sa.String()" if kind == "type" and isinstance(item, AutoString) else False


run()  # Alembic imports this file to run it.
