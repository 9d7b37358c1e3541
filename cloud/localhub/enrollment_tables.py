"""What the hub does to its enrolments and registrations: operations for `Store.submit`."""

import json
import sqlite3
from typing import Any

from cloud.localhub.enrollments import Attestation, Enrollment, Kind
from cloud.localhub.twins import compact


def id_scope(database: sqlite3.Connection) -> str:
    """What devices name the provisioning service by; made once with the store."""
    return str(database.execute("SELECT id_scope FROM provisioning").fetchone()[0])


def find(database: sqlite3.Connection, kind: Kind, enrollment_id: str) -> Enrollment | None:
    query = "SELECT document FROM enrollments WHERE kind = ? AND enrollment_id = ?"
    row = database.execute(query, (kind, enrollment_id)).fetchone()
    return None if row is None else Enrollment.loads(row[0])


def put(database: sqlite3.Connection, enrollment: Enrollment) -> Enrollment:
    """Writes the enrolment, new or not, and returns it."""
    statement = """
        INSERT INTO enrollments (kind, enrollment_id, attestation, document) VALUES (?, ?, ?, ?)
        ON CONFLICT (kind, enrollment_id)
        DO UPDATE SET attestation = excluded.attestation, document = excluded.document
    """
    row = (enrollment.kind, enrollment.enrollment_id, enrollment.attestation, enrollment.dumps())
    database.execute(statement, row)
    return enrollment


def delete(database: sqlite3.Connection, kind: Kind, enrollment_id: str) -> None:
    database.execute("DELETE FROM enrollments WHERE kind = ? AND enrollment_id = ?", (kind, enrollment_id))


def page(database: sqlite3.Connection, kind: Kind, *, after: str, limit: int) -> list[Enrollment]:
    """Up to `limit` enrolments with a greater id, in order of their ids."""
    query = "SELECT document FROM enrollments WHERE kind = ? AND enrollment_id > ? ORDER BY enrollment_id LIMIT ?"
    return [Enrollment.loads(document) for (document,) in database.execute(query, (kind, after, limit))]


def groups(database: sqlite3.Connection, attestation: Attestation) -> list[Enrollment]:
    """All groups of that attestation; there are few."""
    query = "SELECT document FROM enrollments WHERE kind = ? AND attestation = ? ORDER BY enrollment_id"
    return [Enrollment.loads(document) for (document,) in database.execute(query, (Kind.GROUP, attestation))]


def count(database: sqlite3.Connection, kind: Kind) -> int:
    return int(database.execute("SELECT count(*) FROM enrollments WHERE kind = ?", (kind,)).fetchone()[0])


def find_registration(database: sqlite3.Connection, registration_id: str) -> dict[str, Any] | None:
    """The state of a device's registration, or None where it never registered."""
    query = "SELECT state FROM registrations WHERE registration_id = ?"
    row = database.execute(query, (registration_id,)).fetchone()
    return None if row is None else dict(json.loads(row[0]))


def put_registration(
    database: sqlite3.Connection, registration_id: str, *, group_id: str | None, state: dict[str, Any]
) -> None:
    statement = """
        INSERT INTO registrations VALUES (?, ?, ?) ON CONFLICT (registration_id)
        DO UPDATE SET group_id = excluded.group_id, state = excluded.state
    """
    database.execute(statement, (registration_id, group_id, compact(state)))


def delete_registration(database: sqlite3.Connection, registration_id: str) -> bool:
    """Forgets it; False where there was none."""
    return database.execute("DELETE FROM registrations WHERE registration_id = ?", (registration_id,)).rowcount > 0


def registrations_of(database: sqlite3.Connection, group_id: str, *, after: str, limit: int) -> list[dict[str, Any]]:
    """Up to `limit` registrations of a group with a greater id, in order of their ids."""
    query = """
        SELECT state FROM registrations WHERE group_id = ? AND registration_id > ? ORDER BY registration_id LIMIT ?
    """
    return [dict(json.loads(state)) for (state,) in database.execute(query, (group_id, after, limit))]
