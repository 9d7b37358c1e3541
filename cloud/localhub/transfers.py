"""Import and export jobs as values: all identities as lines of JSON in a blob, and what a request asks for. Pure.

https://learn.microsoft.com/azure/iot-hub/iot-hub-bulk-identity-mgmt
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from cloud.localhub.devices import Presence, etag_of
from cloud.localhub.devices import service_form as identity_form
from cloud.localhub.errors import invalid_argument
from cloud.localhub.tables import Device
from cloud.localhub.times import iso

LINES_NAME = "devices.txt"
ERRORS_NAME = "importErrors.log"
_NAME_CHARACTERS_MAX = 256
_URI_CHARACTERS_MAX = 4096


class TransferType(StrEnum):
    EXPORT = "export"
    IMPORT = "import"


class TransferStatus(StrEnum):
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Transfer:
    """One stored job. A container's URI carries a signature: it is answered as it was told, and never logged."""

    id: str
    type: TransferType
    started_at: float
    output_uri: str
    output_name: str
    input_uri: str = ""
    input_name: str = LINES_NAME
    excludes_keys: bool = False
    status: TransferStatus = TransferStatus.RUNNING
    ended_at: float | None = None
    failure_reason: str | None = None

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> "Transfer":
        stored = json.loads(text)
        types = {"type": TransferType(stored["type"]), "status": TransferStatus(stored["status"])}
        return cls(**(stored | types))


def parse_transfer(transfer_id: str, body: Mapping[str, Any], *, now: float) -> Transfer:
    """The job that a request asks for. Raises ServiceError."""
    type_ = body.get("type")
    if type_ not in set(TransferType):
        raise invalid_argument(f"Expected type of {', '.join(TransferType)}, got {str(type_)[:40]!r}")
    is_import = type_ == TransferType.IMPORT
    return Transfer(
        id=transfer_id,
        type=TransferType(type_),
        started_at=now,
        output_uri=_uri(body, "outputBlobContainerUri"),
        output_name=_name(body, "outputBlobName", default=ERRORS_NAME if is_import else LINES_NAME),
        input_uri=_uri(body, "inputBlobContainerUri") if is_import else "",
        input_name=_name(body, "inputBlobName", default=LINES_NAME),
        excludes_keys=bool(body.get("excludeKeysInExport")),
    )


def service_form(transfer: Transfer) -> dict[str, Any]:
    """The job as the service API answers it."""
    form = {
        "jobId": transfer.id,
        "type": transfer.type,
        "status": transfer.status,
        "progress": 100 if transfer.status is TransferStatus.COMPLETED else 0,
        "startTimeUtc": iso(transfer.started_at),
        "endTimeUtc": None if transfer.ended_at is None else iso(transfer.ended_at),
        "inputBlobContainerUri": transfer.input_uri or None,
        "outputBlobContainerUri": transfer.output_uri,
        "outputBlobName": transfer.output_name,
        "excludeKeysInExport": transfer.excludes_keys,
        "failureReason": transfer.failure_reason,
    }
    return {name: value for name, value in form.items() if value is not None}


def line_of(device: Device, *, excludes_keys: bool) -> str:
    """A device or module as a line of an export, which an import takes."""
    identity, twin = device.identity, device.twin
    form = identity_form(identity, Presence(), messages=device.messages)
    if excludes_keys:
        form["authentication"]["symmetricKey"] = {"primaryKey": None, "secondaryKey": None}
    line = {
        "id": identity.device_id,
        "moduleId": identity.module_id or None,
        "eTag": identity.etag,
        "status": identity.status,
        "statusReason": identity.status_reason,
        "authentication": form["authentication"],
        "twinETag": etag_of(twin.version),
        "tags": twin.tags,
        "properties": {"desired": twin.desired.document, "reported": twin.reported.document},
    }
    return json.dumps({name: value for name, value in line.items() if value is not None}, ensure_ascii=False)


def _uri(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    is_short = isinstance(value, str) and len(value) <= _URI_CHARACTERS_MAX
    if not is_short or urlsplit(str(value)).scheme not in ("http", "https"):
        raise invalid_argument(f"Expected {key} as the http or https address of a container, with its signature")
    return str(value)


def _name(body: Mapping[str, Any], key: str, *, default: str) -> str:
    value = body.get(key) or default
    if not isinstance(value, str) or len(value) > _NAME_CHARACTERS_MAX:
        raise invalid_argument(f"Expected {key} as a blob's name")
    return value
