"""Enrolment: a one-time token becomes an identity, in an order that trusts nobody too early.

1. The token names the coordinator and the fingerprint of the fleet's CA.
2. The CA's certificate is fetched over a connection that proves nothing, and its fingerprint is checked.
3. Only then, over TLS that trusts that CA alone, the secret and the signing request are sent.
4. What comes back is checked, then written, `enrolment.json` last: a kill before it leaves the key, and the next run
   asks again with that same key, which the coordinator recognises.
"""

import re
import ssl
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from pydantic import ValidationError
from urllib3.exceptions import InsecureRequestWarning

from edge_agent.certificate_time import Trust, coordinator_trust
from edge_agent.errors import AlreadyEnrolledError, CoordinatorIdentityError, CoordinatorRefusedError
from edge_agent.https import HttpsOrigin
from edge_agent.identity import (
    Enrolment,
    checked_certificate,
    is_enrolled,
    own_key,
    read_identity,
    signing_request,
    write_identity,
)
from edge_agent.releases.trust import pin_root
from edge_agent.state_dir import StateDir, locked
from shared.api.enrolment import Enrolled, EnrolmentToken, EnrolRequest
from shared.ids import DeviceId, parse_device_id


@dataclass(frozen=True)
class EnrolmentOrder:
    """What the operator asked for. Its `repr` hides the token: it is a secret."""

    token: EnrolmentToken
    device_id: DeviceId
    data_dir: Path | None = None

    def __repr__(self) -> str:
        return f"EnrolmentOrder(device_id={self.device_id!r})"


def enrol(order: EnrolmentOrder, state: StateDir) -> Enrolment:
    """Enrols this device; the identity is on disk when this returns.

    Raises:
        AlreadyEnrolledError: The state directory has an identity.
        CoordinatorIdentityError: Whoever answered is not the coordinator the token means.
        CoordinatorRefusedError: It refused: a wrong, used or expired token, or another device's name.
        CoordinatorUnavailableError: It did not answer.
    """
    state.make()
    with locked(state):
        if is_enrolled(state.identity):
            known = read_identity(state.identity).device_id
            raise AlreadyEnrolledError(
                f"Expected a new state directory, got the one of enrolled device {known}",
                hint="Run it with `fleetlearn agent run`, or choose another directory.",
            )
        key = own_key(state.identity)
        ca_pem = fetch_ca(order.token)
        csr_pem = signing_request(order.device_id, key)
        trust = coordinator_trust(ca_pem, state_dir=state.releases, system_time=time.time)
        enrolled = _request(order, trust, csr_pem)
        certificate = checked_certificate(enrolled.certificate_pem, device_id=order.device_id, key=key, ca_pem=ca_pem)
        pin_root(state.releases, enrolled.tuf_root)
        enrolment = Enrolment(
            device_id=order.device_id,
            coordinator_url=enrolled.coordinator_url,
            hub_hostname=enrolled.hub_hostname,
            hub_url=enrolled.hub_url,
            hub_ca_pem=enrolled.hub_ca_pem,
            data_dir=str(order.data_dir.absolute()) if order.data_dir else "",
        )
        write_identity(state.identity, enrolment=enrolment, certificate_pem=certificate, ca_pem=ca_pem)
        return enrolment


def fetch_ca(token: EnrolmentToken) -> str:
    """The fleet's CA certificate in PEM, once its fingerprint is the token's. Raises CoordinatorIdentityError."""
    origin = HttpsOrigin(token.coordinator_url, _unverified_context())
    try:
        with warnings.catch_warnings():
            # urllib3 warns of a server that was not verified; the fingerprint below is what verifies this one.
            warnings.simplefilter("ignore", InsecureRequestWarning)
            body = origin.request("GET", "/v1/ca", headers={}).body
    finally:
        origin.close()
    try:
        certificate = x509.load_pem_x509_certificate(body)
    except ValueError as error:
        raise CoordinatorIdentityError("Expected the fleet's CA certificate in PEM, got something else") from error
    if certificate.fingerprint(hashes.SHA256()).hex() != token.ca_fingerprint:
        raise CoordinatorIdentityError(
            f"Expected the CA with SHA-256 fingerprint {token.ca_fingerprint}, "
            f"got {certificate.fingerprint(hashes.SHA256()).hex()}",
            hint="Another machine answers at that address, or the token is of another fleet. No secret was sent.",
        )
    return body.decode("ascii")


def default_device_id(hostname: str) -> DeviceId:
    """A device id made of this machine's name. Raises InvalidIdError where nothing of it can be used."""
    return parse_device_id(re.sub(r"[^a-z0-9]+", "-", hostname.lower()).strip("-")[:64].strip("-"))


def _request(order: EnrolmentOrder, trust: Trust, csr_pem: str) -> Enrolled:
    origin = HttpsOrigin(order.token.coordinator_url, trust.context, check=trust.check)
    request = EnrolRequest(secret=order.token.secret, device_id=order.device_id, csr_pem=csr_pem)
    try:
        answer = origin.request(
            "POST",
            "/v1/enrol",
            headers={"Content-Type": "application/json"},
            body=request.model_dump_json().encode(),
        )
        return Enrolled.model_validate_json(answer.body)
    except ValidationError as error:
        raise CoordinatorRefusedError("Expected an enrolment from the coordinator, got something else") from error
    finally:
        origin.close()


def _unverified_context() -> ssl.SSLContext:
    """For the one request whose answer is checked by fingerprint; it carries no secret."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
