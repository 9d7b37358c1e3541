"""Enrolment: a one-time token becomes a certificate.

Token text: `fle1.` + base64url(JSON of EnrolmentToken). It names the coordinator and carries the fingerprint of the
fleet's CA, so that a device trusts the right coordinator before it says its secret.
"""

import base64
import binascii
from typing import Self

from pydantic import Field, ValidationError

from shared.api.base import Shape
from shared.errors import FleetlearnError

TOKEN_PREFIX = "fle1."  # noqa: S105  # a format's name, not a secret


class MalformedTokenError(FleetlearnError):
    """Text that is not an enrolment token."""

    code = "malformed_token"


class EnrolmentToken(Shape):
    """What a device needs to enrol, and nothing that outlives it: used once, and only until it expires."""

    coordinator_url: str
    ca_fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the CA certificate in DER."""
    secret: str = Field(min_length=16)

    def encode(self) -> str:
        return TOKEN_PREFIX + base64.urlsafe_b64encode(self.model_dump_json().encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Self:
        """The token in this text. Raises MalformedTokenError, without repeating the text: it may be a secret."""
        body = text.strip().removeprefix(TOKEN_PREFIX)
        try:
            if body == text.strip():
                raise ValueError("no prefix")
            raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
            return cls.model_validate_json(raw)
        except (ValueError, binascii.Error, ValidationError):
            raise MalformedTokenError(
                f"Expected an enrolment token that starts with '{TOKEN_PREFIX}', got something else or a part of one",
                hint="Make a new one with `fleetlearn tokens create` and copy all of it.",
            ) from None


class TokenCreate(Shape):
    """Asks for a token; with a device id it enrols that device only."""

    device_id: str | None = None
    expires_in_s: float = Field(default=3600, gt=0, le=30 * 24 * 3600)
    tags: dict[str, str] = Field(default_factory=dict)
    """Given to the device that enrols with it, for example `site`."""


class TokenCreated(Shape):
    """The token, shown once; the coordinator keeps only a hash of its secret."""

    token_id: str
    token: str
    expires_at: float


class EnrolRequest(Shape):
    """A device's own key never leaves it: it sends a certificate signing request (PEM, CN = device id)."""

    secret: str
    device_id: str
    csr_pem: str = Field(max_length=16_384)


class Enrolled(Shape):
    """All a device needs from now on."""

    device_id: str
    certificate_pem: str
    ca_pem: str
    hub_hostname: str
    """Host to dial for the hub, port 8883."""
    hub_url: str = ""
    """`mqtts://HOST:PORT/FLEET`: an MQTT broker instead."""
    hub_ca_pem: str = ""
    """The CA of the broker's certificate; empty: the fleet's."""
    coordinator_url: str
    tuf_root: str
    """The trusted root metadata of the release repository, as JSON text."""


class RenewRequest(Shape):
    """A new certificate for the same name, at two thirds of the old one's life."""

    csr_pem: str = Field(max_length=16_384)


class Renewed(Shape):
    certificate_pem: str
