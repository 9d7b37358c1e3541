"""Shared access signatures, read and checked. Pure: the time is an argument.

A token is `SharedAccessSignature sr={resource}&sig={signature}&se={expiry}[&skn={policy}]` where the signature is
HMAC-SHA256 over the URL-encoded resource, a line feed and the expiry, with the Base64-decoded key.
"""

import base64
import binascii
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote_plus, unquote

from cloud.localhub.errors import RefusedError

_PREFIX = "SharedAccessSignature "
_TOKEN_CHARACTERS_MAX = 4096


@dataclass(frozen=True)
class SasToken:
    """A parsed token; `signed` is the text that the signature covers."""

    resource: str
    signature: str
    expiry: int
    policy: str | None
    signed: str


def parse_sas(token: str) -> SasToken:
    """Reads a token. Raises RefusedError."""
    if not token.startswith(_PREFIX) or len(token) > _TOKEN_CHARACTERS_MAX:
        raise RefusedError("Expected a shared access signature, got something else")
    fields = dict(part.partition("=")[::2] for part in token[len(_PREFIX) :].split("&"))
    resource, expiry = fields.get("sr", ""), fields.get("se", "")
    if not resource or not fields.get("sig") or not expiry.isascii() or not expiry.isdigit() or len(expiry) > 15:
        raise RefusedError("Expected a token with sr, sig and se, got one without")
    return SasToken(
        resource=unquote(resource),
        signature=unquote(fields["sig"]),
        expiry=int(expiry),
        policy=unquote(fields["skn"]) if fields.get("skn") else None,
        signed=f"{resource}\n{expiry}",
    )


def check_sas(token: SasToken, *, keys: Iterable[str], resource: str, now: float) -> None:
    """Returns when one of the keys signed the token for this resource (or a parent of it). Raises RefusedError."""
    if token.expiry <= now:
        raise RefusedError(f"Expected a token that is still valid, got one that expired at {token.expiry}")
    if not _covers(token.resource, resource):
        raise RefusedError(f"Expected a token for {resource[:200]!r}, got one for {token.resource[:200]!r}")
    if not any(hmac.compare_digest(_signature(key, token.signed), token.signature.encode()) for key in keys):
        raise RefusedError("Expected a signature by a key of this identity, got another")


def make_sas(resource: str, *, key: str, expiry: int, policy: str | None = None) -> str:
    """A token for the resource until `expiry`, in seconds since the epoch; the key is Base64."""
    encoded = quote_plus(resource)
    signature = quote_plus(_signature(key, f"{encoded}\n{expiry}"))
    token = f"{_PREFIX}sr={encoded}&sig={signature}&se={expiry}"
    return token if policy is None else f"{token}&skn={quote_plus(policy)}"


def is_key(text: str) -> bool:
    """Whether it is a key as IoT Hub takes it: 16 to 64 bytes in Base64."""
    try:
        return 16 <= len(base64.b64decode(text, validate=True)) <= 64
    except (binascii.Error, ValueError):
        return False


def _signature(key: str, text: str) -> bytes:
    digest = hmac.digest(base64.b64decode(key), text.encode(), "sha256")
    return base64.b64encode(digest)


def _covers(granted: str, wanted: str) -> bool:
    granted, wanted = granted.lower().rstrip("/"), wanted.lower()
    return wanted == granted or wanted.startswith(granted + "/")
