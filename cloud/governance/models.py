"""The audit log: who did what, when. The database itself refuses to change or delete an entry."""

from typing import Any

from sqlalchemy import DDL, JSON, Column, event
from sqlmodel import Field, SQLModel

from cloud.db import ROW_NUMBER

APPEND_ONLY = {
    "sqlite": (
        "CREATE TRIGGER audit_entry_no_update BEFORE UPDATE ON audit_entry "
        "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
        "CREATE TRIGGER audit_entry_no_delete BEFORE DELETE ON audit_entry "
        "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION audit_entry_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$",
        "CREATE TRIGGER audit_entry_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entry "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_entry_is_append_only()",
    ),
}
"""Statements by dialect that make the table append-only; the migration runs the same ones."""


class AuditEntry(SQLModel, table=True):
    """One act of one principal."""

    __tablename__ = "audit_entry"

    entry_id: int | None = Field(default=None, primary_key=True, sa_type=ROW_NUMBER)
    """None until the database gave it a number."""
    at: float = Field(index=True)
    principal: str
    role: str
    action: str
    """`subject.verb`: `token.create`, `device.revoke`, `rollout.start`."""
    subject: str
    details: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    """`Any`: JSON; never a secret."""


def _make_append_only() -> None:
    table = SQLModel.metadata.tables["audit_entry"]
    for dialect, statements in APPEND_ONLY.items():
        for statement in statements:
            event.listen(table, "after_create", _ddl(statement).execute_if(dialect=dialect))


def _ddl(statement: str) -> DDL:
    return DDL(statement.replace("%", "%%"))  # type: ignore[no-untyped-call]  # SQLAlchemy left it untyped


_make_append_only()  # Part of the table's definition, which SQLAlchemy has no declaration for.
