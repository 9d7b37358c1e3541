"""What the hub does to its devices' tables: each function is one operation for `Store.submit`, in one transaction.

The event log's are in `event_tables`.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cloud.localhub.devices import Identity, etag_of
from cloud.localhub.errors import check_etag, device_not_found, module_not_found
from cloud.localhub.twins import Json, Twin, patch_section, patch_tags

Filters = Mapping[str, int]
"""A session's topic filters with the granted QoS of each."""

MESSAGES = "(SELECT count(*) FROM messages WHERE messages.device_id = devices.device_id)"
"""An expression over `devices`: the messages that wait for the device."""

_COLUMNS = {"devices": f"identity, twin, filters, {MESSAGES}", "modules": "identity, twin, filters, 0"}


@dataclass(frozen=True)
class Device:
    """One row of a device or a module: who it is, its twin, and the topic filters of its last session.

    `messages` counts those that wait for it; writing the row does not change it.
    """

    identity: Identity
    twin: Twin
    filters: Filters = field(default_factory=dict)
    messages: int = 0


def find_device(database: sqlite3.Connection, key: str) -> Device | None:
    """The device or module of that key, or None."""
    table, column = _home(key)
    row = database.execute(f"SELECT {_COLUMNS[table]} FROM {table} WHERE {column} = ?", (key,)).fetchone()
    return None if row is None else _device(row)


def find_with_parent(database: sqlite3.Connection, key: str) -> tuple[Device | None, Device | None]:
    """The device or module, and the device it belongs to, which is itself for a device."""
    device, (device_id, slash, _) = find_device(database, key), key.partition("/")
    return device, find_device(database, device_id) if slash else device


def get_device(database: sqlite3.Connection, key: str) -> Device:
    """Raises ServiceError where there is none."""
    device = find_device(database, key)
    if device is None:
        raise module_not_found(key) if "/" in key else device_not_found(key)
    return device


def put_device(database: sqlite3.Connection, device: Device) -> Device:
    """Writes the row, new or not, and returns it."""
    table, column = _home(device.identity.key)
    row = (device.identity.key, device.identity.dumps(), device.twin.dumps(), json.dumps(dict(device.filters)))
    statement = f"""
        INSERT INTO {table} ({column}, identity, twin, filters) VALUES (?, ?, ?, ?) ON CONFLICT ({column})
        DO UPDATE SET identity = excluded.identity, twin = excluded.twin, filters = excluded.filters
    """
    database.execute(statement, row)
    return device


def patch_twin(database: sqlite3.Connection, key: str, parts: Json, *, etag: str, now: str) -> Device:
    """Merges tags and desired properties, as `twins.parts_of` reads them. Raises ServiceError."""
    device = get_device(database, key)
    check_etag(etag, etag_of(device.twin.version))
    twin = device.twin
    if "tags" in parts:
        twin = patch_tags(twin, parts["tags"])
    if "desired" in parts:
        twin = replace(twin, desired=patch_section(twin.desired, parts["desired"], now=now, name="desired"))
    return put_device(database, replace(device, twin=replace(twin, version=twin.version + 1)))


def find_configured(database: sqlite3.Connection, key: str) -> str:
    """What configurations did to the twin of that key, as `Configured` writes it."""
    table, column = _home(key)
    row = database.execute(f"SELECT configured FROM {table} WHERE {column} = ?", (key,)).fetchone()  # constants
    return "{}" if row is None else str(row[0])


def put_configured(database: sqlite3.Connection, key: str, configured: str) -> None:
    table, column = _home(key)
    database.execute(f"UPDATE {table} SET configured = ? WHERE {column} = ?", (configured, key))  # constants


def put_filters(database: sqlite3.Connection, key: str, filters: Filters) -> None:
    """Keeps the filters of a session; of one that is gone, nothing."""
    table, column = _home(key)
    database.execute(f"UPDATE {table} SET filters = ? WHERE {column} = ?", (json.dumps(dict(filters)), key))


def delete_device(database: sqlite3.Connection, key: str) -> None:
    """Removes the device with its modules and its messages, or the module."""
    table, column = _home(key)
    database.execute(f"DELETE FROM {table} WHERE {column} = ?", (key,))
    if table == "devices":
        database.execute("DELETE FROM modules WHERE module_key BETWEEN ? AND ?", _modules_of(key))
        database.execute("DELETE FROM messages WHERE device_id = ?", (key,))


def list_modules(database: sqlite3.Connection, device_id: str) -> list[Device]:
    """The device's modules, in order of their ids."""
    query = f"SELECT {_COLUMNS['modules']} FROM modules WHERE module_key BETWEEN ? AND ? ORDER BY module_key"
    return [_device(row) for row in database.execute(query, _modules_of(device_id))]


def count_modules(database: sqlite3.Connection, device_id: str) -> int:
    query = "SELECT count(*) FROM modules WHERE module_key BETWEEN ? AND ?"
    return int(database.execute(query, _modules_of(device_id)).fetchone()[0])


def page_of_modules(database: sqlite3.Connection, *, after: str, limit: int) -> list[Device]:
    """Up to `limit` modules of any device with a greater key, in order of their keys."""
    query = f"SELECT {_COLUMNS['modules']} FROM modules WHERE module_key > ? ORDER BY module_key LIMIT ?"
    return [_device(row) for row in database.execute(query, (after, limit))]


def count_devices(database: sqlite3.Connection) -> int:
    """How many devices there are, from a running total."""
    (count,) = database.execute("SELECT value FROM totals WHERE name = 'devices'").fetchone()
    return int(count)


def count_by_status(database: sqlite3.Connection) -> tuple[int, int]:
    """Enabled and disabled devices; reads them all."""
    query = "SELECT count(*), coalesce(sum(identity ->> 'status' = 'enabled'), 0) FROM devices"
    total, enabled = database.execute(query).fetchone()
    return (enabled, total - enabled)


def list_devices(database: sqlite3.Connection, *, after: str, limit: int) -> list[Device]:
    """Up to `limit` devices with a greater id, in order of their ids."""
    query = f"SELECT {_COLUMNS['devices']} FROM devices WHERE device_id > ? ORDER BY device_id LIMIT ?"
    return [_device(row) for row in database.execute(query, (after, limit))]


def _device(row: tuple[str, str, str, int]) -> Device:
    identity, twin, filters, messages = row
    return Device(Identity.loads(identity), Twin.loads(twin), json.loads(filters), messages)


def _home(key: str) -> tuple[str, str]:
    """The table that keeps an identity, and its column for the key."""
    return ("modules", "module_key") if "/" in key else ("devices", "device_id")


def _modules_of(device_id: str) -> tuple[str, str]:
    """The bounds of the keys of a device's modules: `0` is the character after the slash, and no key ends with it."""
    return (f"{device_id}/", f"{device_id}0")
