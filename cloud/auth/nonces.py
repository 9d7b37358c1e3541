"""Nonces of the server: an HMAC of the current time bucket, so that nothing is stored and any replica knows them.

A nonce is good in its own bucket and in the next one: for 5 to 10 minutes.
"""

import base64
import hmac
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from shared.files import write_atomically

BUCKET_S = 300
_KEY_BYTES = 32


@dataclass(frozen=True)
class Nonces:
    """Makes and checks nonces with one secret key."""

    key: bytes = field(repr=False)

    def current(self, *, now: float) -> str:
        return self._of_bucket(_bucket(now))

    def is_fresh(self, nonce: str, *, now: float) -> bool:
        """Whether we made this nonce, and not long ago; takes the same time for any wrong one."""
        bucket = _bucket(now)
        given = nonce.encode(errors="surrogatepass")
        is_newest = hmac.compare_digest(given, self._of_bucket(bucket).encode())
        is_previous = hmac.compare_digest(given, self._of_bucket(bucket - 1).encode())
        return is_newest or is_previous

    def _of_bucket(self, bucket: int) -> str:
        digest = hmac.digest(self.key, f"fleetlearn nonce {bucket}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def load_or_create_nonce_key(path: Path) -> bytes:
    """The key in this file; makes it (mode 0600) where there is none."""
    if not path.exists():
        write_atomically(path, secrets.token_bytes(_KEY_BYTES), mode=0o600)
    return path.read_bytes()


def _bucket(now: float) -> int:
    return int(now // BUCKET_S)
