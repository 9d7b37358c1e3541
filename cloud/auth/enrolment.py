"""Enrolment: a one-time token and a certificate request become a device with a certificate.

The token, the device's row and its certificate are one transaction; the hub hears of the device after it. A device
that got no answer asks again with the same token and key, and gets the same certificate: a crash anywhere in between
does no harm. The coordinator keeps only the hash of a token's secret.
"""

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, select

from cloud.auth.errors import (
    EnrolmentTokenBoundError,
    EnrolmentTokenExpiredError,
    EnrolmentTokenUsedError,
    UnknownEnrolmentTokenError,
)
from cloud.auth.models import EnrolmentTokenRecord
from cloud.auth.operators import Principal, hash_token
from cloud.devices.errors import DeviceIdTakenError
from cloud.devices.models import DeviceRecord
from cloud.devices.service import get_active_device, replace_certificate
from cloud.pki.authority import Authority
from cloud.pki.certificates import expires_at, key_fingerprint, parse_request, pem_of, public_key_of, public_pem_of
from shared.api.enrolment import EnrolRequest, TokenCreate
from shared.ids import DeviceId, parse_device_id

_MAKE_ANOTHER = "Make a new one with `fleetlearn tokens create`."


def create_token(
    session: Session, request: TokenCreate, *, token_id: str, secret: str, now: float, principal: Principal
) -> EnrolmentTokenRecord:
    """Stores a token by its hash. Raises InvalidIdError for a device id that cannot be one."""
    row = EnrolmentTokenRecord(
        token_id=token_id,
        secret_hash=hash_token(secret),
        device_id=None if request.device_id is None else parse_device_id(request.device_id),
        tags=request.tags,
        created_at=now,
        expires_at=now + request.expires_in_s,
        created_by_principal=principal.name,
        created_by_role=principal.role,
    )
    session.add(row)
    return row


def enrol(
    session: Session, request: EnrolRequest, authority: Authority, *, now: float, certificate_days: float
) -> DeviceRecord:
    """The device with its certificate.

    Raises an error of its own for each thing that can be wrong: see `errors.py` in `cloud/auth`, `cloud/pki` and
    `cloud/devices`. None of them uses up the token.
    """
    device_id = parse_device_id(request.device_id)
    token = _token(session, request.secret)
    key = public_key_of(parse_request(request.csr_pem, device_id=device_id))
    if token.used_at is not None:
        return _enrolled_before(session, token, device_id, key_fingerprint(key))
    _check_usable(token, device_id, now=now)
    certificate = authority.sign_device_request(
        request.csr_pem, device_id=device_id, now=now, life_days=certificate_days
    )
    device = DeviceRecord(
        device_id=device_id,
        tags=token.tags,
        enrolled_at=now,
        created_by_principal=token.created_by_principal,
        created_by_role=token.created_by_role,
        public_key_pem=public_pem_of(key),
        certificate_pem=pem_of(certificate),
        certificate_expires_at=expires_at(certificate),
    )
    _add(session, device)
    token.used_at, token.used_by_device_id, token.used_by_key = now, device_id, key_fingerprint(key)
    session.add(token)
    return device


def renew(
    session: Session, device_id: DeviceId, csr_pem: str, authority: Authority, *, now: float, certificate_days: float
) -> str:
    """A new certificate in PEM for a device that proved itself; asking twice gives two, and the newest counts."""
    key = public_key_of(parse_request(csr_pem, device_id=device_id))
    certificate = authority.sign_device_request(csr_pem, device_id=device_id, now=now, life_days=certificate_days)
    pem = pem_of(certificate)
    replace_certificate(
        session, device_id, public_key_pem=public_pem_of(key), certificate_pem=pem, expires_at=expires_at(certificate)
    )
    return pem


def _token(session: Session, secret: str) -> EnrolmentTokenRecord:
    query = select(EnrolmentTokenRecord).where(EnrolmentTokenRecord.secret_hash == hash_token(secret))
    found = session.exec(query.with_for_update()).first()
    if found is None:
        raise UnknownEnrolmentTokenError("Expected a known enrolment token, got another one", hint=_MAKE_ANOTHER)
    return found


def _enrolled_before(session: Session, token: EnrolmentTokenRecord, device_id: DeviceId, key: str) -> DeviceRecord:
    if (token.used_by_device_id, token.used_by_key) != (device_id, key):
        raise EnrolmentTokenUsedError(
            f"Expected an unused enrolment token, got one that enrolled {token.used_by_device_id}", hint=_MAKE_ANOTHER
        )
    return get_active_device(session, device_id)


def _check_usable(token: EnrolmentTokenRecord, device_id: DeviceId, *, now: float) -> None:
    if now >= token.expires_at:
        late_s = now - token.expires_at
        raise EnrolmentTokenExpiredError(
            f"Expected an enrolment token in its time, got one that expired {late_s:.0f} s ago", hint=_MAKE_ANOTHER
        )
    if token.device_id not in (None, device_id):
        raise EnrolmentTokenBoundError(f"Expected device {token.device_id} for this enrolment token, got {device_id}")


def _add(session: Session, device: DeviceRecord) -> None:
    taken = DeviceIdTakenError(
        f"Expected a new device id, got {device.device_id}, which is or was another device's",
        hint="Choose another name: names are never used again.",
    )
    if session.get(DeviceRecord, device.device_id) is not None:
        raise taken
    session.add(device)
    try:
        session.flush()
    except IntegrityError as error:  # Enrolled with another token in this very moment.
        raise taken from error
