"""Files that devices upload: who may write which one, and where they are kept.

A device asks for a place, gets a signed address that is good for an hour, writes there as to a blob of Azure Storage,
and says how it went; a service then gets a notice. Files lie under `files/` in the hub's data folder, by device.
https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-file-upload
"""

import base64
import hmac
import secrets
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from cloud.localhub import message_tables, tables
from cloud.localhub.errors import RefusedError, ServiceError, invalid_argument
from cloud.localhub.limits import Limits
from cloud.localhub.notices import Kind, Notices
from cloud.localhub.store import Store

CONTAINER = "uploads"

_LIFE_S = 3600
_NAME_CHARACTERS_MAX = 1024
_SEGMENT_BYTES_MAX = 255
_VERSION = "2018-03-28"


@dataclass(frozen=True)
class Blob:
    """A blob's name, which begins with its device's id, and the file that holds it."""

    name: str
    path: Path

    @classmethod
    def named(cls, folder: Path, name: str) -> "Blob":
        """Raises ServiceError where no file can have the name."""
        segments = [quote(segment, safe=" ") for segment in name.split("/")]
        is_valid = all(segment.strip(".") and len(segment) <= _SEGMENT_BYTES_MAX for segment in segments)
        if len(name) > _NAME_CHARACTERS_MAX or len(segments) < 2 or not is_valid:
            raise invalid_argument(f"Expected a blob's name of segments that a file can have, got {name[:80]!r}")
        return cls(name, folder.joinpath(*segments))


class Files:
    """The devices' uploads. `key` signs addresses; `clock` gives seconds since the epoch, `now` that in ISO 8601."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        *,
        key: str,
        limits: Limits,
        clock: Callable[[], float],
        now: Callable[[], str],
    ) -> None:
        self.folder = folder
        self.notices = Notices(store, Kind.FILES, batch_max=1, wait_s=0.0, limits=limits, clock=clock)
        self._store = store
        self._key = hmac.digest(base64.b64decode(key), b"localhub files", "sha256")
        self._limits = limits
        self._clock = clock
        self._now = now

    async def start(self, device_id: str, body: Mapping[str, Any], *, host: str) -> dict[str, str]:
        """A place for a file, as IoT Hub answers it. Raises ServiceError.

        Args:
            device_id: Whose file it is.
            body: The request's JSON object, with `blobName`.
            host: Where the device reached the hub, with its port.
        """
        name = body.get("blobName")
        if not isinstance(name, str) or not name:
            raise invalid_argument("Expected blobName as a text")
        blob = Blob.named(self.folder, f"{device_id}/{name}")
        now, correlation_id = self._clock(), secrets.token_hex(16)

        def operation(database: sqlite3.Connection) -> None:
            tables.get_device(database, device_id)
            if message_tables.count_uploads(database, device_id, now=now) >= self._limits.uploads_max:
                message = f"Expected at most {self._limits.uploads_max} uploads of a device at once, got one more"
                raise ServiceError(429, 429001, "ThrottlingException", message)
            message_tables.add_upload(database, correlation_id, device_id, blob.name, expires_at=now + _LIFE_S)

        await self._store.submit(operation)
        return {
            "correlationId": correlation_id,
            "hostName": host,
            "containerName": CONTAINER,
            "blobName": blob.name,
            "sasToken": self.sign(blob.name, expiry=int(now) + _LIFE_S),
        }

    async def finish(self, device_id: str, body: Mapping[str, Any], *, host: str) -> None:
        """Ends an upload, and tells services about one that succeeded. Raises ServiceError."""
        correlation_id, is_success = body.get("correlationId"), body.get("isSuccess")
        if not isinstance(correlation_id, str) or not isinstance(is_success, bool):
            raise invalid_argument("Expected correlationId as a text and isSuccess as true or false")
        now, stamp = self._clock(), self._now()

        def operation(database: sqlite3.Connection) -> None:
            name = message_tables.take_upload(database, correlation_id, device_id)
            if name is None:
                raise invalid_argument(f"Expected the correlationId of an upload of {device_id}, got another")
            if is_success:
                notice = self._notice(device_id, name, host=host, stamp=stamp)
                message_tables.add_notice(database, Kind.FILES, notice, now=now)

        await self._store.submit(operation)

    def _notice(self, device_id: str, name: str, *, host: str, stamp: str) -> dict[str, object]:
        try:
            found = Blob.named(self.folder, name).path.stat()
        except OSError as error:
            raise invalid_argument(f"Expected the file {name[:80]!r} to be there, but it was not uploaded") from error
        return {
            "deviceId": device_id,
            "blobUri": f"https://{host}/{CONTAINER}/{quote(name)}",
            "blobName": name,
            "lastUpdatedTime": stamp,
            "blobSizeInBytes": found.st_size,
            "enqueuedTimeUtc": stamp,
        }

    def sign(self, name: str, *, expiry: int) -> str:
        """The query of an address at which the blob may be read and written until then."""
        fields = {"sv": _VERSION, "sr": "b", "sig": self._signature(name, str(expiry)), "se": str(expiry), "sp": "rw"}
        return f"?{urlencode(fields)}"

    def check(self, name: str, query: Mapping[str, str]) -> None:
        """Returns when the query is a signature for this blob that is still good. Raises RefusedError."""
        expiry, signature = query.get("se", ""), query.get("sig", "")
        if not hmac.compare_digest(self._signature(name, expiry).encode(), signature.encode()):
            raise RefusedError("Expected a signature of this hub for this blob, got another")
        if int(expiry) <= self._clock():
            raise RefusedError("Expected a signature that is still good, got one that expired")

    def _signature(self, name: str, expiry: str) -> str:
        text = f"rw\n{expiry}\n/{CONTAINER}/{name}\n{_VERSION}"
        return base64.b64encode(hmac.digest(self._key, text.encode(), "sha256")).decode()
