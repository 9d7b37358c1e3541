"""Enrolments as values: who may register itself, how it proves that, and what it becomes. Pure.

An individual enrolment lets one registration id in; a group lets in every id that holds a key derived from the group's,
or a certificate that the group's CA signed. The JSON forms are those of the Device Provisioning Service (2021-10-01).
https://learn.microsoft.com/rest/api/iot-dps/service
"""

import base64
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from cloud.localhub.certificates import PeerCertificate, is_signed_by, thumbprints_of
from cloud.localhub.errors import ServiceError, invalid_argument
from cloud.localhub.sas import is_key
from cloud.localhub.twins import Json, checked_object

_ID_CHARACTERS_MAX = 128
_ID_SPECIALS = "-._:"
_PEM_CHARACTERS_MAX = 32_768


class Kind(StrEnum):
    """Which of the two forms it is; the value is the name of its id in JSON."""

    INDIVIDUAL = "registrationId"
    GROUP = "enrollmentGroupId"


class Attestation(StrEnum):
    """How a device proves that it belongs to the enrolment."""

    SYMMETRIC_KEY = "symmetricKey"
    X509 = "x509"


@dataclass(frozen=True)
class Enrollment:
    """One enrolment. `keys` are for symmetric keys; `certificates` are PEM: the device's own, or the group's CAs."""

    kind: Kind
    enrollment_id: str
    attestation: Attestation
    created: str
    updated: str
    etag: int = 0
    is_enabled: bool = True
    device_id: str = ""
    keys: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    tags: Json | None = None
    desired: Json | None = None

    def dumps(self) -> str:
        return json.dumps(vars(self))

    @classmethod
    def loads(cls, text: str) -> "Enrollment":
        stored = json.loads(text)
        types = {"kind": Kind(stored["kind"]), "attestation": Attestation(stored["attestation"])}
        tuples = {name: tuple(stored[name]) for name in ("keys", "certificates")}
        return cls(**(stored | types | tuples))

    def keys_of(self, registration_id: str) -> tuple[str, ...]:
        """The keys of one device: an individual's own, or those derived from the group's."""
        if self.kind is Kind.INDIVIDUAL:
            return self.keys
        return tuple(derived_key(key, registration_id) for key in self.keys)

    def has_certified(self, certificate: PeerCertificate) -> bool:
        """Whether this certificate, whose chain TLS has checked, belongs to the enrolment."""
        if self.kind is Kind.GROUP:
            return any(is_signed_by(certificate, authority) for authority in self.certificates)
        return any(set(thumbprints_of(own)) & set(certificate.thumbprints) for own in self.certificates)


def derived_key(group_key: str, registration_id: str) -> str:
    """A device's key in a group: HMAC-SHA256 of its registration id with the group's key."""
    return base64.b64encode(hmac.digest(base64.b64decode(group_key), registration_id.encode(), "sha256")).decode()


def check_id(text: str) -> str:
    """Returns the id of an enrolment, in lower case as DPS compares them. Raises ServiceError."""
    is_valid = all(c.isascii() and (c.isalnum() or c in _ID_SPECIALS) for c in text)
    if not is_valid or not 0 < len(text) <= _ID_CHARACTERS_MAX:
        raise invalid_argument(f"Expected an id of 1 to 128 letters, digits, '-', '.', '_' and ':', got {text[:80]!r}")
    return text.lower()


def parse_enrollment(
    kind: Kind, enrollment_id: str, body: Mapping[str, Any], *, now: str, fresh_keys: tuple[str, str], hostname: str
) -> Enrollment:
    """An enrolment out of the request's JSON. Raises ServiceError.

    Args:
        kind: Which of the two the path names.
        enrollment_id: As in the path.
        body: The request's JSON object.
        now: ISO 8601.
        fresh_keys: For a symmetric-key enrolment whose body brings none.
        hostname: Of this hub: the only one that devices can be assigned to.
    """
    enrollment_id = check_id(enrollment_id)
    if str(body.get(kind, enrollment_id)).lower() != enrollment_id:
        raise invalid_argument(f"Expected {kind} {enrollment_id!r} as in the path, got another")
    if (elsewhere := body.get("iotHubHostName")) not in (None, hostname):
        raise invalid_argument(f"Expected iotHubHostName {hostname!r}, the only hub here, got {str(elsewhere)[:80]!r}")
    attestation = _object(body, "attestation")
    twin = _object(body, "initialTwin")
    desired = _object(twin, "properties").get("desired")
    blank = Enrollment(
        kind,
        enrollment_id,
        _attestation(attestation),
        created=now,
        updated=now,
        is_enabled=_is_enabled(body.get("provisioningStatus")),
        device_id=str(body.get("deviceId") or "") if kind is Kind.INDIVIDUAL else "",
        tags=None if twin.get("tags") is None else checked_object(twin["tags"], name="tags"),
        desired=None if desired is None else checked_object(desired, name="desired properties"),
    )
    if blank.attestation is Attestation.SYMMETRIC_KEY:
        return replace(blank, keys=_keys(_object(attestation, "symmetricKey"), fresh_keys))
    return replace(blank, certificates=_certificates(kind, _object(attestation, "x509")))


def service_form(enrollment: Enrollment, *, hostname: str) -> dict[str, Any]:
    """The enrolment as the service answers it, without its keys: those have a request of their own."""
    form: dict[str, Any] = {
        enrollment.kind.value: enrollment.enrollment_id,
        "attestation": {"type": enrollment.attestation.value},
        "iotHubHostName": hostname,
        "provisioningStatus": "enabled" if enrollment.is_enabled else "disabled",
        "allocationPolicy": "static",
        "capabilities": {"iotEdge": False},
        "createdDateTimeUtc": enrollment.created,
        "lastUpdatedDateTimeUtc": enrollment.updated,
        "etag": str(enrollment.etag),
    }
    if enrollment.device_id:
        form["deviceId"] = enrollment.device_id
    if enrollment.tags is not None or enrollment.desired is not None:
        form["initialTwin"] = {"tags": enrollment.tags or {}, "properties": {"desired": enrollment.desired or {}}}
    return form


def attestation_form(enrollment: Enrollment) -> dict[str, Any]:
    """How its devices prove themselves, keys included."""
    form: dict[str, Any] = {"type": enrollment.attestation.value}
    if enrollment.attestation is Attestation.SYMMETRIC_KEY:
        primary, secondary = enrollment.keys
        form["symmetricKey"] = {"primaryKey": primary, "secondaryKey": secondary}
    else:
        names = zip(("primary", "secondary"), enrollment.certificates, strict=False)
        where = "clientCertificates" if enrollment.kind is Kind.INDIVIDUAL else "signingCertificates"
        form["x509"] = {where: {name: {"certificate": pem} for name, pem in names}}
    return form


def _attestation(body: Mapping[str, Any]) -> Attestation:
    kind = body.get("type")
    if kind not in set(Attestation):
        raise invalid_argument(f"Expected attestation.type as symmetricKey or x509, got {str(kind)[:40]!r}")
    return Attestation(kind)


def _is_enabled(status: object) -> bool:
    if status not in (None, "enabled", "disabled"):
        raise invalid_argument(f"Expected provisioningStatus as enabled or disabled, got {str(status)[:40]!r}")
    return status != "disabled"


def _keys(body: Mapping[str, Any], fresh: tuple[str, str]) -> tuple[str, str]:
    primary, secondary = body.get("primaryKey") or fresh[0], body.get("secondaryKey") or fresh[1]
    if not (isinstance(primary, str) and isinstance(secondary, str) and is_key(primary) and is_key(secondary)):
        raise invalid_argument("Expected symmetric keys of 16 to 64 bytes in Base64")
    return primary, secondary


def _certificates(kind: Kind, body: Mapping[str, Any]) -> tuple[str, ...]:
    where = "clientCertificates" if kind is Kind.INDIVIDUAL else "signingCertificates"
    given = _object(body, where)
    pems = tuple(_pem(_object(given, name)) for name in ("primary", "secondary") if given.get(name))
    if not pems:
        raise invalid_argument(f"Expected a certificate in attestation.x509.{where}.primary.certificate, got none")
    return pems


def _pem(body: Mapping[str, Any]) -> str:
    text = body.get("certificate")
    if not isinstance(text, str) or len(text) > _PEM_CHARACTERS_MAX:
        raise invalid_argument("Expected a certificate in PEM, got something else")
    try:
        thumbprints_of(text)
    except ValueError as error:
        raise invalid_argument("Expected a certificate in PEM, got something that cannot be read") from error
    return text


def _object(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = body.get(key)
    if value is not None and not isinstance(value, dict):
        raise invalid_argument(f"Expected {key} as an object, got {type(value).__name__}")
    return value or {}


def not_found(kind: Kind, enrollment_id: str) -> ServiceError:
    """No such enrolment; DPS's numbers are other than IoT Hub's."""
    what = "Enrollment" if kind is Kind.INDIVIDUAL else "Enrollment group"
    return ServiceError(404, 404201, "EnrollmentNotFound", f"{what} {enrollment_id[:128]} not found")


def registration_not_found(registration_id: str) -> ServiceError:
    """No device of that registration id has registered."""
    return ServiceError(404, 404202, "RegistrationNotFound", f"Registration {registration_id[:128]} not found")
