"""Many changes of the registry in one request: each succeeds or fails by itself, all share a few commits.

https://learn.microsoft.com/rest/api/iothub/service/bulk-registry/update-registry
"""

import asyncio
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol

from cloud.localhub.errors import ServiceError, invalid_argument
from cloud.localhub.tables import Device

ENTRIES_MAX = 100


class Registry(Protocol):
    """What a change needs of the hub."""

    async def has_identity(self, key: str) -> bool: ...
    async def put_identity(self, key: str, body: Mapping[str, Any], *, etag: str | None) -> Device: ...
    async def delete_identity(self, key: str, *, etag: str) -> None: ...
    async def patch_twin(self, key: str, body: Mapping[str, Any], *, etag: str) -> Device: ...


class Mode(StrEnum):
    """What an entry asks for, in IoT Hub's words."""

    CREATE = "create"
    CREATE_OR_UPDATE = "createOrUpdate"
    CREATE_OR_UPDATE_IF_MATCH = "createOrUpdateIfMatchETag"
    UPDATE = "update"
    UPDATE_IF_MATCH = "updateIfMatchETag"
    DELETE = "delete"
    DELETE_IF_MATCH = "deleteIfMatchETag"
    UPDATE_TWIN = "updateTwin"
    UPDATE_TWIN_IF_MATCH = "updateTwinIfMatchETag"


async def change_identities(hub: Registry, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Makes the changes in their order and returns IoT Hub's error of each that failed."""
    outcomes = await asyncio.gather(*(_change(hub, entry) for entry in entries))
    return [error for error in outcomes if error is not None]


async def _change(hub: Registry, entry: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        await _apply(hub, entry)
    except ServiceError as error:
        ids = {"deviceId": str(entry.get("id"))[:128], "moduleId": entry.get("moduleId")}
        named = {name: value for name, value in ids.items() if value is not None}
        return {**named, "errorCode": error.name, "errorStatus": str(error), "operation": entry.get("importMode")}
    return None


async def _apply(hub: Registry, entry: Mapping[str, Any]) -> None:
    key, identity = _key(entry), {name: entry.get(name) for name in ("status", "statusReason", "authentication")}
    mode = entry.get("importMode") or Mode.CREATE
    if mode not in set(Mode):
        raise invalid_argument(f"Expected importMode of {', '.join(Mode)}, got {str(mode)[:40]!r}")
    match Mode(mode):
        case Mode.CREATE:
            await hub.put_identity(key, identity, etag=None)
            await _patch_twin(hub, key, entry, etag="*")
        case Mode.CREATE_OR_UPDATE | Mode.CREATE_OR_UPDATE_IF_MATCH as told:
            update_etag = "*" if told is Mode.CREATE_OR_UPDATE else _etag(entry, "eTag")
            await hub.put_identity(key, identity, etag=update_etag if await hub.has_identity(key) else None)
            await _patch_twin(hub, key, entry, etag="*")
        case Mode.UPDATE:
            await hub.put_identity(key, identity, etag="*")
        case Mode.UPDATE_IF_MATCH:
            await hub.put_identity(key, identity, etag=_etag(entry, "eTag"))
        case Mode.DELETE:
            await hub.delete_identity(key, etag="*")
        case Mode.DELETE_IF_MATCH:
            await hub.delete_identity(key, etag=_etag(entry, "eTag"))
        case Mode.UPDATE_TWIN:
            await _patch_twin(hub, key, entry, etag="*")
        case Mode.UPDATE_TWIN_IF_MATCH:
            await _patch_twin(hub, key, entry, etag=_etag(entry, "twinETag"))


async def _patch_twin(hub: Registry, key: str, entry: Mapping[str, Any], *, etag: str) -> None:
    patch = {name: entry[name] for name in ("tags", "properties") if entry.get(name) is not None}
    if patch:
        await hub.patch_twin(key, patch, etag=etag)


def _key(entry: Mapping[str, Any]) -> str:
    device_id, module_id = entry.get("id"), entry.get("moduleId")
    if not isinstance(device_id, str) or not isinstance(module_id, str | None):
        raise invalid_argument("Expected an id, and a moduleId if any, as texts")
    return f"{device_id}/{module_id}" if module_id else device_id


def _etag(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str):
        raise invalid_argument(f"Expected {name} as a text")
    return value.strip('"')
