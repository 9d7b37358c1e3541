"""Configurations kept, and made true: as twins appear and change, and as configurations do.

What changed is remembered as a key, and a worker looks at it soon: it asks of each configuration whether it targets the
twin, and writes what `configurations.configure` makes of it, many twins in one transaction. After a start, and after a
change of a configuration, it looks at all twins, so nothing is missed by a kill in between. IoT Hub looks every few
minutes; this is as soon as the disk allows.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import structlog

from cloud.localhub import tables, twins
from cloud.localhub.bell import Bell
from cloud.localhub.configurations import (
    Configuration,
    Configured,
    configure,
    parse_target,
    service_form,
    updated,
    with_content,
)
from cloud.localhub.errors import (
    ServiceError,
    check_etag,
    configuration_exists,
    configuration_not_found,
)
from cloud.localhub.query import sql
from cloud.localhub.query.language import parse
from cloud.localhub.query.run import Presence, count, matching, prepare
from cloud.localhub.query.tree import Source
from cloud.localhub.store import Store

_log = structlog.get_logger("localhub")

BATCH_MAX = 500
"""Twins in one transaction; what others want to write comes between two."""
_RETRY_S = 5.0
_SOURCES = (Source.DEVICES, Source.MODULES)

Notify = Callable[[tables.Device, twins.Json], None]
"""Told of a twin and the patch of its desired properties, after the commit."""


@dataclass(frozen=True)
class Change:
    """A twin as it is now, and the patch of its desired properties."""

    device: tables.Device
    patch: twins.Json


@dataclass(frozen=True)
class Looked:
    """What one look did: the twins it changed, and the last key it saw of a sweep."""

    changes: list[Change]
    has_configurations: bool
    last: str = ""


class Configurator:
    """The configurations of a hub. `run` is its worker; `changed` tells it of a twin."""

    def __init__(self, store: Store, *, now: Callable[[], str], presence: Presence, configurations_max: int) -> None:
        self._store = store
        self._now = now
        self._presence = presence
        self._configurations_max = configurations_max
        self._waiting: dict[str, None] = {}
        self._sweeps = dict.fromkeys(_SOURCES, "")
        """How far the look at all twins has come, by source; a source that is done is not here."""
        self._has_configurations = True
        self._bell = Bell()

    # What the service API asks

    async def put(self, configuration_id: str, body: Mapping[str, Any], *, etag: str | None) -> twins.Json:
        """Creates without an ETag, updates with one. Raises ServiceError."""
        now = self._now()

        def operation(database: sqlite3.Connection) -> None:
            existing = _find(database, configuration_id)
            self._check_put(database, existing, configuration_id, etag)
            configuration = updated(existing, configuration_id, body, now=now)
            row = (configuration.id, configuration.dumps())
            database.execute("INSERT OR REPLACE INTO configurations VALUES (?, ?)", row)

        await self._store.submit(operation)
        self._sweep()
        return await self.get(configuration_id)

    def _check_put(
        self, database: sqlite3.Connection, existing: Configuration | None, configuration_id: str, etag: str | None
    ) -> None:
        if etag is not None:
            check_etag(etag, _get(database, configuration_id).etag)
        elif existing is not None:
            raise configuration_exists(configuration_id)
        elif len(_all(database)) >= self._configurations_max:
            message = f"Expected at most {self._configurations_max} configurations, got one more"
            raise ServiceError(403, 403007, "ConfigurationCountLimitExceeded", message)

    async def delete(self, configuration_id: str, *, etag: str) -> None:
        """Removes it; its settings leave the twins soon. Raises ServiceError."""

        def operation(database: sqlite3.Connection) -> None:
            check_etag(etag, _get(database, configuration_id).etag)
            database.execute("DELETE FROM configurations WHERE configuration_id = ?", (configuration_id,))

        await self._store.submit(operation)
        self._sweep()

    async def get(self, configuration_id: str) -> twins.Json:
        """Its JSON form with the metrics of now. Raises ServiceError."""
        return await self._store.read(lambda database: self._forms(database, [_get(database, configuration_id)])[0])

    async def all(self, *, limit: int) -> list[twins.Json]:
        """Up to `limit`, the highest priority first."""

        def operation(database: sqlite3.Connection) -> list[twins.Json]:
            found = sorted(_all(database), key=lambda each: (-each.priority, each.id))
            return self._forms(database, found[:limit])

        return await self._store.read(operation)

    async def apply_content(self, device_id: str, contents: dict[str, twins.Json]) -> list[Change]:
        """Sets desired properties of a device and its modules once, all or none; what changed. Raises ServiceError."""
        now = self._now()

        def operation(database: sqlite3.Connection) -> list[Change]:
            changes = []
            for module_id, content in contents.items():
                key = f"{device_id}/{module_id}" if module_id else device_id
                device = tables.get_device(database, key)
                desired = with_content(device.twin.desired.document, content)
                if change := _put_desired(database, device, desired, now=now):
                    changes.append(change)
            return changes

        return await self._store.submit(operation)

    def _forms(self, database: sqlite3.Connection, configurations: Iterable[Configuration]) -> list[twins.Json]:
        prepare(database, self._presence)
        counts = _state_counts(database)
        return [
            service_form(
                each,
                counts=counts.get(each.id, {}),
                metrics={name: count(database, parse(text)) for name, text in each.metrics.items()},
            )
            for each in configurations
        ]

    # Making it true

    def changed(self, key: str) -> None:
        """A twin of that key appeared, or its tags or properties changed."""
        if self._has_configurations:
            self._waiting[key] = None
            self._bell.ring()

    def _sweep(self) -> None:
        self._has_configurations = True
        self._sweeps = dict.fromkeys(_SOURCES, "")
        self._bell.ring()

    async def run(self, notify: Notify) -> None:
        """Looks at twins for as long as the hub runs."""
        while True:
            ring = self._bell.next_ring()
            try:
                while self._waiting or self._sweeps:
                    await self._look(notify)
            except ServiceError as error:
                _log.warning("configuring_failed", reason=str(error))
                self._sweep()
                await asyncio.sleep(_RETRY_S)
            else:
                await ring.wait()

    async def _look(self, notify: Notify) -> None:
        """One transaction: twins that changed first, else the next ones of the look at all."""
        now = self._now()
        if self._waiting:
            keys = list(islice(self._waiting, BATCH_MAX))
            for key in keys:
                del self._waiting[key]
            looked = await self._store.submit(lambda database: self._apply(database, keys, now))
        else:
            source, after = next(iter(self._sweeps.items()))
            sweeps = self._sweeps
            looked = await self._store.submit(lambda database: self._apply_after(database, source, after, now))
            if looked.last:
                sweeps[source] = looked.last
            else:
                del sweeps[source]
        # Of a change that came meanwhile the sweep is yet to come.
        self._has_configurations = looked.has_configurations or bool(self._sweeps)
        for change in looked.changes:
            notify(change.device, change.patch)

    def _apply_after(self, database: sqlite3.Connection, source: Source, after: str, now: str) -> Looked:
        table = sql.TABLES[source]
        # Without configurations only the twins that one left its mark on are of interest.
        test = "1" if _all(database) else "configured <> '{}'"
        some = f"SELECT {table.key} FROM {table.name} WHERE {table.key} > ? AND {test}"  # noqa: S608  # constants
        query = f"{some} ORDER BY {table.key} LIMIT ?"
        keys = [key for (key,) in database.execute(query, (after, BATCH_MAX))]
        return replace(self._apply(database, keys, now), last=keys[-1] if len(keys) == BATCH_MAX else "")

    def _apply(self, database: sqlite3.Connection, keys: list[str], now: str) -> Looked:
        prepare(database, self._presence)
        configurations = _all(database)
        targeting: dict[str, list[Configuration]] = {}
        for configuration in configurations:
            for key in _targets(database, configuration, keys):
                targeting.setdefault(key, []).append(configuration)
        changes = [
            change
            for key in keys
            if (change := _configure_one(database, key, targeting.get(key, []), now=now)) is not None
        ]
        return Looked(changes, bool(configurations))


def _configure_one(
    database: sqlite3.Connection, key: str, targeting: list[Configuration], *, now: str
) -> Change | None:
    """Writes what the configurations make of the twin; returns it with the patch where its properties change."""
    text = tables.find_configured(database, key)
    if not targeting and text == "{}":
        return None
    device, before = tables.find_device(database, key), Configured.loads(text)
    if device is None:
        return None
    desired, after = configure(device.twin.desired.document, before, targeting)
    if after != before:
        tables.put_configured(database, key, after.dumps() if after != Configured() else "{}")
    return _put_desired(database, device, desired, now=now)


def _put_desired(
    database: sqlite3.Connection, device: tables.Device, desired: twins.Json, *, now: str
) -> Change | None:
    """Makes these the desired properties; returns the twin with its patch, or None where nothing changes."""
    patch = twins.difference(device.twin.desired.document, desired)
    if not patch:
        return None
    section = twins.patch_section(device.twin.desired, patch, now=now, name="desired")
    twin = replace(device.twin, desired=section, version=device.twin.version + 1)
    return Change(tables.put_device(database, replace(device, twin=twin)), patch)


def _targets(database: sqlite3.Connection, configuration: Configuration, keys: list[str]) -> list[str]:
    """The keys among these that the configuration is for."""
    target = parse_target(configuration.target_condition)
    if target.source is None:
        return []
    wanted = tuple(key for key in keys if ("/" in key) == (target.source is Source.MODULES))
    return matching(database, target.source, target.condition, among=wanted) if wanted else []


def _find(database: sqlite3.Connection, configuration_id: str) -> Configuration | None:
    query = "SELECT document FROM configurations WHERE configuration_id = ?"
    row = database.execute(query, (configuration_id,)).fetchone()
    return None if row is None else Configuration.loads(row[0])


def _get(database: sqlite3.Connection, configuration_id: str) -> Configuration:
    found = _find(database, configuration_id)
    if found is None:
        raise configuration_not_found(configuration_id)
    return found


def _all(database: sqlite3.Connection) -> list[Configuration]:
    return [Configuration.loads(text) for (text,) in database.execute("SELECT document FROM configurations")]


def _state_counts(database: sqlite3.Connection) -> dict[str, dict[str, int]]:
    """How many twins are in each state, by configuration."""
    counts: dict[str, dict[str, int]] = {}
    for source in _SOURCES:
        table = f"{sql.TABLES[source].name}, json_each(configured, '$.states') AS state"
        query = f"SELECT state.key, state.value ->> '$.status', count(*) FROM {table} GROUP BY 1, 2"  # noqa: S608
        for configuration_id, status, number in database.execute(query):
            counts.setdefault(configuration_id, {})[status] = number
    return counts
