"""The Device Provisioning Service: lets enrolled devices register themselves, here with this hub alone.

A device connects to the MQTT port with its registration id, proves that an enrolment lets it in, asks to be registered,
and asks for the outcome until there is one. Its identity is made, or given the credentials of the enrolment, when it
asks; the answer is "assigning" nevertheless, as on Azure, so that a client's polling is exercised.
https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-dps
"""

import math
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cloud.localhub import enrollment_tables, tables, topics, twins
from cloud.localhub.certificates import PeerCertificate
from cloud.localhub.codec import Publish
from cloud.localhub.devices import AuthType, Identity
from cloud.localhub.enrollments import Attestation, Enrollment, Kind, registration_not_found
from cloud.localhub.errors import RefusedError, ServiceError, too_many_devices
from cloud.localhub.limits import Limits
from cloud.localhub.sas import check_sas, parse_sas
from cloud.localhub.session import AuthenticateRegistration
from cloud.localhub.store import Store
from cloud.localhub.twins import compact


@dataclass(frozen=True)
class Registrant:
    """A device that proved that an enrolment lets it in, and until when, in seconds since the epoch."""

    registration_id: str
    kind: Kind
    enrollment_id: str
    certificate: PeerCertificate | None
    expiry: float

    @property
    def key(self) -> str:
        """The registration id as it is kept: DPS does not tell capitals."""
        return self.registration_id.lower()

    def device_id(self, enrollment: Enrollment) -> str:
        return enrollment.device_id or self.key


class Provisioning:
    """The devices' side, over the store. `hostname` is this hub's, as devices dial it."""

    def __init__(
        self, store: Store, *, hostname: str, limits: Limits, clock: Callable[[], float], now: Callable[[], str]
    ) -> None:
        self._hostname = hostname
        self._store = store
        self._limits = limits
        self._clock = clock
        self._now = now

    async def authenticate(self, request: AuthenticateRegistration, certificate: PeerCertificate | None) -> Registrant:
        """The device that an enrolment lets in; an individual one comes before groups. Raises RefusedError."""
        registration_id, has_token = request.registration_id, request.token is not None
        attestation = Attestation.SYMMETRIC_KEY if has_token else Attestation.X509

        def operation(database: sqlite3.Connection) -> tuple[str, list[Enrollment]]:
            own = enrollment_tables.find(database, Kind.INDIVIDUAL, registration_id.lower())
            candidates = enrollment_tables.groups(database, attestation) if own is None else [own]
            return enrollment_tables.id_scope(database), candidates

        scope, candidates = await self._store.submit(operation)
        if request.id_scope.lower() != scope.lower():
            raise RefusedError(f"Expected id scope {scope!r}, got {request.id_scope[:80]!r}")
        candidates = [enrollment for enrollment in candidates if enrollment.attestation is attestation]
        if has_token:
            enrollment, expiry = self._by_token(request, candidates)
        else:
            enrollment, expiry = _by_certificate(registration_id, certificate, candidates), math.inf
        return Registrant(registration_id, enrollment.kind, enrollment.enrollment_id, certificate, expiry)

    def _by_token(self, request: AuthenticateRegistration, candidates: list[Enrollment]) -> tuple[Enrollment, float]:
        token = parse_sas(request.token or "")
        resource = f"{request.id_scope}/registrations/{request.registration_id}"
        reason = RefusedError(f"Expected an enrolment with keys for {request.registration_id!r}, found none")
        for enrollment in candidates:
            try:
                keys = enrollment.keys_of(request.registration_id)
                check_sas(token, keys=keys, resource=resource, now=self._clock())
            except RefusedError as error:
                reason = error
            else:
                return enrollment, float(token.expiry)
        raise reason

    async def answer(self, registrant: Registrant, request: topics.Register | topics.OperationStatus) -> Publish:
        """The answer to a registration's request."""
        try:
            match request:
                case topics.Register(rid):
                    await self._register(registrant)
                    operation_id = f"4.{secrets.token_hex(8)}.{secrets.token_hex(16)}"
                    body: dict[str, Any] = {"operationId": operation_id, "status": "assigning"}
                    topic = topics.registration_answer_topic(202, rid, retry_after_s=self._limits.provisioning_poll_s)
                case topics.OperationStatus(rid, operation_id):
                    state = await self._registration(registrant.key)
                    body = {"operationId": operation_id, "status": state["status"], "registrationState": state}
                    topic = topics.registration_answer_topic(200, rid)
        except ServiceError as error:
            tracking_id = secrets.token_hex(16).upper()
            body = {"errorCode": error.number, "trackingId": tracking_id, "message": str(error)}
            body["timestampUtc"] = self._now()
            topic = topics.registration_answer_topic(error.status, request.rid)
        return Publish(topic, compact(body).encode())

    async def _registration(self, key: str) -> dict[str, Any]:
        state = await self._store.submit(lambda database: enrollment_tables.find_registration(database, key))
        if state is None:
            raise registration_not_found(key)
        return state

    async def _register(self, registrant: Registrant) -> None:
        """Makes the device's identity true to its enrolment, and keeps the outcome."""
        now, generation_id = self._now(), str(secrets.randbits(60))

        def operation(database: sqlite3.Connection) -> None:
            enrollment = enrollment_tables.find(database, registrant.kind, registrant.enrollment_id)
            before = enrollment_tables.find_registration(database, registrant.key) or {}
            state = {
                "registrationId": registrant.key,
                "createdDateTimeUtc": before.get("createdDateTimeUtc", now),
                "lastUpdatedDateTimeUtc": now,
                "etag": secrets.token_hex(8),
            }
            if enrollment is None or not enrollment.is_enabled:
                state |= {"status": "disabled"}
            else:
                self._check_room(database, enrollment, registrant)
                device = _provisioned(database, enrollment, registrant, generation_id=generation_id, now=now)
                state |= {
                    "status": "assigned",
                    "substatus": before.get("substatus", "initialAssignment"),
                    "assignedHub": self._hostname,
                    "deviceId": device.identity.device_id,
                }
            group_id = registrant.enrollment_id if registrant.kind is Kind.GROUP else None
            if group_id:
                state["enrollmentGroupId"] = group_id
            enrollment_tables.put_registration(database, registrant.key, group_id=group_id, state=state)

        await self._store.submit(operation)

    def _check_room(self, database: sqlite3.Connection, enrollment: Enrollment, registrant: Registrant) -> None:
        is_new = tables.find_device(database, registrant.device_id(enrollment)) is None
        if is_new and tables.count_devices(database) >= self._limits.devices_max:
            raise too_many_devices(self._limits.devices_max)


def _by_certificate(
    registration_id: str, certificate: PeerCertificate | None, candidates: list[Enrollment]
) -> Enrollment:
    if certificate is None:
        raise RefusedError(f"Expected a token or a certificate from {registration_id!r}, got neither")
    if certificate.common_name != registration_id:
        raise RefusedError(f"Expected a certificate for {registration_id!r}, got {certificate.common_name[:128]!r}")
    for enrollment in candidates:
        if enrollment.has_certified(certificate):
            return enrollment
    raise RefusedError(f"Expected an enrolment for the certificate of {registration_id!r}, found none")


def _provisioned(
    database: sqlite3.Connection, enrollment: Enrollment, registrant: Registrant, *, generation_id: str, now: str
) -> tables.Device:
    """The device, made if it is new, with the credentials of the enrolment.

    One that was there keeps its twin: the hub it is assigned to is always the same, and only a change of it migrates
    or resets data on Azure.
    """
    device_id = registrant.device_id(enrollment)
    device = tables.find_device(database, device_id)
    if device is None:
        device = tables.Device(Identity(device_id, generation_id, etag="0"), _initial_twin(enrollment, now))
    identity = _with_credentials(device.identity, enrollment, registrant)
    if identity != device.identity:
        identity = replace(identity, etag=str(int(identity.etag) + 1))
    return tables.put_device(database, replace(device, identity=identity))


def _with_credentials(identity: Identity, enrollment: Enrollment, registrant: Registrant) -> Identity:
    if enrollment.attestation is Attestation.SYMMETRIC_KEY:
        primary, secondary = enrollment.keys_of(registrant.registration_id)
        return replace(
            identity,
            auth_type=AuthType.SAS,
            primary_key=primary,
            secondary_key=secondary,
            primary_thumbprint=None,
            secondary_thumbprint=None,
        )
    assert registrant.certificate is not None
    return replace(
        identity,
        auth_type=AuthType.THUMBPRINT,
        primary_key=None,
        secondary_key=None,
        primary_thumbprint=registrant.certificate.thumbprints[-1],
        secondary_thumbprint=None,
    )


def _initial_twin(enrollment: Enrollment, now: str) -> twins.Twin:
    twin = twins.new_twin(now)
    if enrollment.tags:
        twin = twins.patch_tags(twin, enrollment.tags)
    if enrollment.desired:
        twin = replace(twin, desired=twins.patch_section(twin.desired, enrollment.desired, now=now, name="desired"))
    return twin
