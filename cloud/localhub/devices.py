"""Identities of devices and their modules as values, with the JSON forms of IoT Hub's registry. Pure.

An identity's key is `{device}` or `{device}/{module}`: ids have no slash, so one text says whom a connection, a twin or
an event belongs to, and most of the hub does not care which of both it is.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from cloud.localhub.errors import RefusedError, invalid_argument
from cloud.localhub.sas import is_key

_E = TypeVar("_E", bound=StrEnum)
_Pair = tuple[str | None, str | None]

DEVICE_ID_CHARACTERS_MAX = 128
_DEVICE_ID_SPECIALS = "-.+%_#*?!(),=@$'"
NEVER = "0001-01-01T00:00:00Z"


class AuthType(StrEnum):
    """How a device proves who it is."""

    SAS = "sas"
    THUMBPRINT = "selfSigned"
    CERTIFICATE_AUTHORITY = "certificateAuthority"
    NONE = "none"


class Status(StrEnum):
    ENABLED = "enabled"
    DISABLED = "disabled"


@dataclass(frozen=True)
class Identity:
    """A registered device or module. Thumbprints are upper-case hexadecimal SHA-1 or SHA-256 of the certificate."""

    device_id: str
    generation_id: str
    etag: str
    status: Status = Status.ENABLED
    status_reason: str | None = None
    status_updated: str = NEVER
    auth_type: AuthType = AuthType.SAS
    primary_key: str | None = None
    secondary_key: str | None = None
    primary_thumbprint: str | None = None
    secondary_thumbprint: str | None = None
    module_id: str = ""
    managed_by: str | None = None
    model_id: str = ""
    """What the device last said it implements, in the words of IoT Plug and Play."""

    @property
    def key(self) -> str:
        return f"{self.device_id}/{self.module_id}" if self.module_id else self.device_id

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for key in (self.primary_key, self.secondary_key) if key)

    @property
    def thumbprints(self) -> tuple[str, ...]:
        return tuple(thumb for thumb in (self.primary_thumbprint, self.secondary_thumbprint) if thumb)

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> "Identity":
        stored = json.loads(text)
        types = {"status": Status(stored["status"]), "auth_type": AuthType(stored["auth_type"])}
        return cls(**(stored | types))


@dataclass(frozen=True)
class Presence:
    """Whether a device is connected, as far as the running hub knows; forgotten when it restarts."""

    connected: bool = False
    changed: str = NEVER
    last_activity: str = NEVER

    @property
    def state(self) -> str:
        return "Connected" if self.connected else "Disconnected"


def check_device_id(device_id: str) -> str:
    """Returns the id of a device or a module if IoT Hub would take it. Raises ServiceError."""
    is_valid = all(c.isascii() and (c.isalnum() or c in _DEVICE_ID_SPECIALS) for c in device_id)
    if not is_valid or not 0 < len(device_id) <= DEVICE_ID_CHARACTERS_MAX:
        raise invalid_argument(f"Expected an id of 1 to 128 allowed characters, got {device_id[:80]!r}")
    return device_id


def split_key(key: str) -> tuple[str, str]:
    """The ids of the device and of its module; the latter is empty for a device. Raises ServiceError."""
    device_id, slash, module_id = key.partition("/")
    return check_device_id(device_id), check_device_id(module_id) if slash else ""


def updated(identity: Identity, body: Mapping[str, Any], *, now: str, fresh_keys: tuple[str, str]) -> Identity:
    """The identity after the registry's PUT of this body. Raises ServiceError for values that cannot be.

    Args:
        identity: The stored identity, or a blank one for a new device.
        body: The request's JSON object.
        now: ISO 8601, for the time the status changed.
        fresh_keys: What a SAS device gets where the body brings no keys.
    """
    for name, own in (("deviceId", identity.device_id), ("moduleId", identity.module_id)):
        claimed = body.get(name) or own
        if claimed != own:
            raise invalid_argument(f"Expected {name} {own!r} as in the path, got {str(claimed)[:80]!r}")
    status = _choice(Status, body.get("status"), identity.status, "status")
    authentication = _object(body, "authentication")
    auth_type = _choice(AuthType, authentication.get("type"), AuthType.SAS, "authentication.type")
    primary_key, secondary_key = _keys(_object(authentication, "symmetricKey"), auth_type, fresh_keys)
    primary_thumbprint, secondary_thumbprint = _thumbprints(_object(authentication, "x509Thumbprint"), auth_type)
    return replace(
        identity,
        status=status,
        status_reason=_text(body, "statusReason", length_max=128),
        status_updated=identity.status_updated if status == identity.status else now,
        auth_type=auth_type,
        primary_key=primary_key,
        secondary_key=secondary_key,
        primary_thumbprint=primary_thumbprint,
        secondary_thumbprint=secondary_thumbprint,
        managed_by=_text(body, "managedBy", length_max=128),
    )


def service_form(identity: Identity, presence: Presence, *, messages: int) -> dict[str, Any]:
    """The identity as the registry answers it, with how many messages wait for it.

    A module has no status of its own: it is its device's.
    """
    own = {"moduleId": identity.module_id, "managedBy": identity.managed_by}
    status = {
        "status": identity.status,
        "statusReason": identity.status_reason,
        "statusUpdatedTime": identity.status_updated,
        "capabilities": {"iotEdge": False},
    }
    return {
        "deviceId": identity.device_id,
        **(own if identity.module_id else status),
        "generationId": identity.generation_id,
        "etag": identity.etag,
        "connectionState": presence.state,
        "connectionStateUpdatedTime": presence.changed,
        "lastActivityTime": presence.last_activity,
        "cloudToDeviceMessageCount": messages,
        "authentication": {
            "symmetricKey": {"primaryKey": identity.primary_key, "secondaryKey": identity.secondary_key},
            "x509Thumbprint": {
                "primaryThumbprint": identity.primary_thumbprint,
                "secondaryThumbprint": identity.secondary_thumbprint,
            },
            "type": identity.auth_type,
        },
    }


def check_certificate(identity: Identity, *, common_name: str, thumbprints: tuple[str, ...]) -> None:
    """Returns when this certificate, whose chain TLS has checked, proves the device. Raises RefusedError."""
    match identity.auth_type:
        case AuthType.CERTIFICATE_AUTHORITY:
            if common_name != identity.key:
                raise RefusedError(f"Expected a certificate for {identity.key!r}, got {common_name[:128]!r}")
        case AuthType.THUMBPRINT:
            if not set(thumbprints) & set(identity.thumbprints):
                raise RefusedError(f"Expected a certificate with a registered thumbprint for {identity.key!r}")
        case _:
            raise RefusedError(f"Expected a token from {identity.key!r}, got a certificate")


def etag_of(number: int) -> str:
    """A version as IoT Hub writes it in ETags: Base64 of eight bytes."""
    return base64.b64encode(number.to_bytes(8, "big")).decode()


def _keys(body: Mapping[str, Any], auth_type: AuthType, fresh: tuple[str, str]) -> _Pair:
    if auth_type is not AuthType.SAS:
        return None, None
    primary, secondary = _text(body, "primaryKey") or fresh[0], _text(body, "secondaryKey") or fresh[1]
    if not is_key(primary) or not is_key(secondary):
        raise invalid_argument("Expected symmetric keys of 16 to 64 bytes in Base64")
    return primary, secondary


def _thumbprints(body: Mapping[str, Any], auth_type: AuthType) -> _Pair:
    if auth_type is not AuthType.THUMBPRINT:
        return None, None
    primary, secondary = _thumbprint(body, "primaryThumbprint"), _thumbprint(body, "secondaryThumbprint")
    if primary is None and secondary is None:
        raise invalid_argument("Expected at least one x509Thumbprint for authentication type selfSigned")
    return primary, secondary


def _thumbprint(body: Mapping[str, Any], key: str) -> str | None:
    text = (_text(body, key) or "").replace(":", "").upper()
    if text and (len(text) not in (40, 64) or set(text) - set("0123456789ABCDEF")):
        raise invalid_argument(f"Expected {key} as the hexadecimal SHA-1 or SHA-256 of a certificate")
    return text or None


def _object(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = body.get(key)
    if value is not None and not isinstance(value, dict):
        raise invalid_argument(f"Expected {key} as an object, got {type(value).__name__}")
    return value or {}


def _text(body: Mapping[str, Any], key: str, *, length_max: int = 512) -> str | None:
    value = body.get(key)
    if value is not None and (not isinstance(value, str) or len(value) > length_max):
        raise invalid_argument(f"Expected {key} as a text of at most {length_max} characters")
    return value or None


def _choice(kind: type[_E], value: object, default: _E, name: str) -> _E:
    if value is None:
        return default
    if not isinstance(value, str) or value not in set(kind):
        raise invalid_argument(f"Expected {name} as one of {', '.join(kind)}, got {str(value)[:80]!r}")
    return kind(value)
