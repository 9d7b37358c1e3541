"""Shared access signatures as clients make them, written from Azure's description and not from the hub's code."""

import base64
import hmac
from urllib.parse import quote_plus


def make_sas(*, resource: str, key: str, expiry: int, policy: str | None = None) -> str:
    """A token for the resource, signed with this key in Base64, until `expiry` in seconds since the epoch."""
    encoded = quote_plus(resource)
    signature = hmac.digest(base64.b64decode(key), f"{encoded}\n{expiry}".encode(), "sha256")
    token = f"SharedAccessSignature sr={encoded}&sig={quote_plus(base64.b64encode(signature))}&se={expiry}"
    return token if policy is None else f"{token}&skn={quote_plus(policy)}"
