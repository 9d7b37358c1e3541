"""HTTPS to the coordinator, for whoever needs it: TLS that trusts the fleet's CA alone, bounded answers, bounded tries.

Translates every error of urllib3 and every status into the family of `edge_agent.errors`; knows nothing of devices.
"""

import random
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import urllib3
import urllib3.connection
from pydantic import ValidationError

from edge_agent.errors import (
    CoordinatorError,
    CoordinatorIdentityError,
    CoordinatorRefusedError,
    CoordinatorUnavailableError,
    DeviceRevokedError,
    InvalidSettingError,
)
from shared.api.base import Problem
from shared.backoff import Backoff

CONNECT_S = 10.0
READ_S = 30.0
ANSWER_BYTES_MAX = 4 * 1024 * 1024
"""Largest answer that is read into memory; larger things are streamed."""
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})

Headers = Mapping[str, str]
PeerCheck = Callable[[bytes], None]
"""Takes the server's certificate in DER after the handshake; raises ssl.SSLCertVerificationError."""


@dataclass(frozen=True)
class Answer:
    """A whole answer with a status below 400, or one the caller said it expects."""

    status: int
    headers: Headers
    body: bytes


@dataclass(frozen=True)
class Retries:
    """How often, and how long between: bounded, jittered."""

    tries_max: int = 4
    backoff: Backoff = field(default_factory=lambda: Backoff(base_s=0.3, cap_s=5))
    rng: random.Random = field(default_factory=random.Random)
    sleep: Callable[[float], None] = time.sleep


class HttpsOrigin:
    """One coordinator, trusted through one CA. Safe to use from several threads.

    Args:
        url: Its address, https.
        context: Whom to trust.
        check: What has to be checked besides, before anything is sent.
    """

    def __init__(self, url: str, context: ssl.SSLContext, *, check: PeerCheck | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise InvalidSettingError(f"Expected an https:// address of the coordinator, got {url[:200]!r}")
        self.prefix = parts.path.rstrip("/")
        self._shown = f"{parts.hostname}:{parts.port or 443}"
        self._pool = urllib3.HTTPSConnectionPool(
            parts.hostname,
            parts.port or 443,
            maxsize=4,
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_S, read=READ_S),
            ssl_context=context,
            cert_reqs=context.verify_mode.name,
            assert_hostname=None if context.check_hostname else False,
        )
        if check is not None:
            self._pool.ConnectionCls = _checked_connection(check)

    def request(
        self, method: str, path: str, *, headers: Headers, body: bytes = b"", expected: frozenset[int] = frozenset()
    ) -> Answer:
        """One try. Raises the CoordinatorError that the answer, or its absence, means.

        Args:
            method: Of HTTP.
            path: With the query, as it goes over the wire.
            headers: Sent as they are.
            body: The whole of it.
            expected: Statuses from 400 on that the caller handles itself.
        """
        with self.stream(method, path, headers=headers, body=body, expected=expected) as (status, got, pieces):
            return Answer(status, got, b"".join(_bounded(pieces, self._shown)))

    @contextmanager
    def stream(
        self, method: str, path: str, *, headers: Headers, body: bytes = b"", expected: frozenset[int] = frozenset()
    ) -> Iterator[tuple[int, Headers, Iterator[bytes]]]:
        """Status, headers and the body in pieces, also translating while the pieces are read."""
        with self._translated():
            response = self._pool.urlopen(
                method,
                self.prefix + path,
                body=body or None,
                headers={"Accept-Encoding": "identity", **headers},
                preload_content=False,
                redirect=False,
            )
        try:
            if response.status >= 300 and response.status not in expected:
                with self._translated():
                    text = response.read(64 * 1024, decode_content=False)
                raise refusal(response.status, text, response.headers)
            yield response.status, response.headers, self._pieces(response)
        finally:
            # Back to the pool only when it was read to its end (urllib3 did so then); otherwise it is of no more use.
            response.close()

    def close(self) -> None:
        self._pool.close()

    def _pieces(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        with self._translated():
            yield from response.stream(64 * 1024, decode_content=False)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except urllib3.exceptions.SSLError as error:
            if not _is_about_identity(error):
                raise CoordinatorUnavailableError(f"Expected TLS with {self._shown}, got: {error}") from error
            raise CoordinatorIdentityError(
                f"Expected {self._shown} to show a certificate of the fleet's CA for that name, got another",
                hint="Check the coordinator's address and its certificate.",
            ) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise CoordinatorUnavailableError(
                f"Expected an answer from the coordinator at {self._shown}, got {type(error).__name__}",
                hint="Check that it runs and that this device reaches it.",
            ) from error


def pinned_context(ca_pem: str) -> ssl.SSLContext:
    """TLS that trusts this CA and no other, and checks the host's name or address."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=ca_pem)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _checked_connection(check: PeerCheck) -> type[urllib3.connection.HTTPSConnection]:
    class Checked(urllib3.connection.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            try:
                check(cast(ssl.SSLSocket, self.sock).getpeercert(binary_form=True) or b"")
            except BaseException:
                self.close()
                raise

    return Checked


def refusal(status: int, body: bytes, headers: Headers) -> CoordinatorError:
    """The error that this answer means."""
    try:
        problem = Problem.model_validate_json(body)
    except ValidationError:
        problem = Problem(code=f"http_{status}", message=f"Expected success from the coordinator, got status {status}")
    if status in _LATER:
        return CoordinatorUnavailableError(problem.message, hint=problem.hint)
    kind = DeviceRevokedError if problem.code == DeviceRevokedError.code else CoordinatorRefusedError
    return kind(problem.message, hint=problem.hint, status=status, problem=problem.code)


def _bounded(pieces: Iterator[bytes], shown: str) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > ANSWER_BYTES_MAX:
            raise CoordinatorRefusedError(f"Expected at most {ANSWER_BYTES_MAX} bytes from {shown}, got more")
        yield piece


def _is_about_identity(error: BaseException) -> bool:
    """Whether the peer's certificate was the problem, rather than a broken connection."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            return False
        if isinstance(seen, ssl.SSLCertVerificationError | ssl.CertificateError):
            return True
        inner = next((part for part in seen.args if isinstance(part, BaseException)), None)
        seen = inner or seen.__cause__ or seen.__context__
    return False
