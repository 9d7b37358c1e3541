"""Enrolments and registrations as services see them: made, read, replaced and removed through the REST API."""

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from cloud.localhub import enrollment_tables, twins
from cloud.localhub.devices import check_device_id
from cloud.localhub.enrollments import Enrollment, Kind, check_id, not_found, parse_enrollment, registration_not_found
from cloud.localhub.errors import ServiceError, precondition_failed
from cloud.localhub.limits import Limits
from cloud.localhub.policies import new_key
from cloud.localhub.store import Store


class Enrolling:
    """The services' side of the provisioning service. `hostname` is this hub's, as devices dial it."""

    def __init__(self, store: Store, *, hostname: str, limits: Limits, now: Callable[[], str]) -> None:
        self.hostname = hostname
        self._store = store
        self._limits = limits
        self._now = now

    async def id_scope(self) -> str:
        return await self._store.submit(enrollment_tables.id_scope)

    async def put(self, kind: Kind, enrollment_id: str, body: Mapping[str, Any], *, etag: str | None) -> Enrollment:
        """Creates without an ETag, replaces with one (`*` matches any). Raises ServiceError."""
        given = parse_enrollment(
            kind, enrollment_id, body, now=self._now(), fresh_keys=(new_key(), new_key()), hostname=self.hostname
        )
        if given.device_id:
            check_device_id(given.device_id)
        twins.check_section(given.tags or {}, bytes_max=twins.TAGS_BYTES_MAX, name="tags")
        twins.check_section(given.desired or {}, bytes_max=twins.SECTION_BYTES_MAX, name="desired properties")

        def operation(database: sqlite3.Connection) -> Enrollment:
            before = enrollment_tables.find(database, kind, given.enrollment_id)
            if before is None:
                if etag is not None:
                    raise not_found(kind, enrollment_id)
                self._check_room_for_enrollment(database, kind)
                return enrollment_tables.put(database, replace(given, etag=1))
            if etag is None:
                raise ServiceError(
                    409, 409201, "EnrollmentConflict", f"Enrollment {given.enrollment_id} exists already"
                )
            if etag not in ("*", str(before.etag)):
                raise precondition_failed(etag[:80], str(before.etag))
            keys = given.keys if _has_keys(body) or not before.keys else before.keys
            kept = replace(given, etag=before.etag + 1, created=before.created, keys=keys)
            return enrollment_tables.put(database, kept)

        return await self._store.submit(operation)

    def _check_room_for_enrollment(self, database: sqlite3.Connection, kind: Kind) -> None:
        limit = self._limits.enrollment_groups_max if kind is Kind.GROUP else self._limits.devices_max
        if enrollment_tables.count(database, kind) >= limit:
            raise ServiceError(403, 403201, "TooManyEnrollments", f"Expected at most {limit} of them, got one more")

    async def get(self, kind: Kind, enrollment_id: str) -> Enrollment:
        """Raises ServiceError where there is none."""
        wanted = check_id(enrollment_id)
        found = await self._store.submit(lambda database: enrollment_tables.find(database, kind, wanted))
        if found is None:
            raise not_found(kind, enrollment_id)
        return found

    async def delete(self, kind: Kind, enrollment_id: str, *, etag: str) -> None:
        """Lets nobody in by it any more; devices that it let in stay. Raises ServiceError."""
        wanted = check_id(enrollment_id)

        def operation(database: sqlite3.Connection) -> None:
            before = enrollment_tables.find(database, kind, wanted)
            if before is None:
                raise not_found(kind, enrollment_id)
            if etag not in ("*", str(before.etag)):
                raise precondition_failed(etag[:80], str(before.etag))
            enrollment_tables.delete(database, kind, wanted)

        await self._store.submit(operation)

    async def page(self, kind: Kind, *, after: str, limit: int) -> list[Enrollment]:
        return await self._store.submit(
            lambda database: enrollment_tables.page(database, kind, after=after, limit=limit)
        )

    async def get_registration(self, registration_id: str) -> dict[str, Any]:
        """Raises ServiceError where the device never registered."""
        wanted = check_id(registration_id)
        state = await self._store.submit(lambda database: enrollment_tables.find_registration(database, wanted))
        if state is None:
            raise registration_not_found(registration_id)
        return state

    async def delete_registration(self, registration_id: str) -> None:
        """Forgets that the device registered; its identity stays. Raises ServiceError."""
        wanted = check_id(registration_id)
        if not await self._store.submit(lambda database: enrollment_tables.delete_registration(database, wanted)):
            raise registration_not_found(registration_id)

    async def registrations_of(self, group_id: str, *, after: str, limit: int) -> list[dict[str, Any]]:
        wanted = check_id(group_id)
        return await self._store.submit(
            lambda database: enrollment_tables.registrations_of(database, wanted, after=after, limit=limit)
        )


def _has_keys(body: Mapping[str, Any]) -> bool:
    return bool(((body.get("attestation") or {}).get("symmetricKey") or {}).get("primaryKey"))
