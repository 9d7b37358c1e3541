"""Typed clients of the coordinator's HTTP API: one blocking, one asynchronous, over the same table of calls.

Whatever goes wrong leaves here as one of `fleet.errors`; no caller sees httpx. Nothing is retried: who waits says for
how long (`fleet/waiting.py`), and the terminal app polls anyway.

    with CoordinatorClient("https://127.0.0.1:8444", token=token, ca_file=Path("ca.pem")) as client:
        for device in client.send(calls.devices()):
            print(device.device_id)
"""

import ssl
from ipaddress import ip_address
from pathlib import Path
from types import NoneType, TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import TypeAdapter, ValidationError

from fleet.calls import Call
from fleet.errors import ApiError, CoordinatorUnreachableError, ProfileError, UnexpectedAnswerError
from shared.api.base import Problem

AnswerT = TypeVar("AnswerT")

TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 32 * 1024 * 1024
"""A longer answer is not read to its end: an operator's screen has no use for it."""
CONNECTIONS_MAX = 4
"""At once, for one client; further calls wait for a free one."""


class CoordinatorClient:
    """The blocking client. Use it as a context manager, or call `close`.

    Args:
        url: Where the coordinator listens; plain HTTP only on this machine, because the token would be readable.
        token: The operator's token.
        ca_file: PEM of the CA that signed the coordinator's certificate; None trusts the system's.
        timeout_s: For each phase of a request: connecting, sending, one read.
        transport: Carries requests somewhere else, for example into an application in this process.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str,
        ca_file: Path | None = None,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url
        self._http = httpx.Client(transport=transport, **_settings(url, token, ca_file=ca_file, timeout_s=timeout_s))

    def send(self, call: Call[AnswerT]) -> AnswerT:
        """The coordinator's answer. Raises CoordinatorUnreachableError, ApiError or UnexpectedAnswerError."""
        try:
            with self._http.stream(call.method, call.path, **_content(call)) as response:
                content = bytearray()
                for chunk in response.iter_bytes():
                    _take(content, chunk, call)
        except httpx.HTTPError as error:
            raise _translated(error, self.url) from error
        return _answer(call, response.status_code, bytes(content))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncCoordinatorClient:
    """The asynchronous client, for the terminal app; otherwise as CoordinatorClient."""

    def __init__(
        self,
        url: str,
        *,
        token: str,
        ca_file: Path | None = None,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url
        settings = _settings(url, token, ca_file=ca_file, timeout_s=timeout_s)
        self._http = httpx.AsyncClient(transport=transport, **settings)

    async def send(self, call: Call[AnswerT]) -> AnswerT:
        """The coordinator's answer. Raises CoordinatorUnreachableError, ApiError or UnexpectedAnswerError."""
        try:
            async with self._http.stream(call.method, call.path, **_content(call)) as response:
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    _take(content, chunk, call)
        except httpx.HTTPError as error:
            raise _translated(error, self.url) from error
        return _answer(call, response.status_code, bytes(content))

    async def close(self) -> None:
        await self._http.aclose()


def _settings(url: str, token: str, *, ca_file: Path | None, timeout_s: float) -> dict[str, Any]:
    # `Any`: keyword arguments that httpx.Client and httpx.AsyncClient share.
    _check_url(url)
    return {
        "base_url": url,
        "headers": {"Authorization": f"Bearer {token}", "Accept": "application/json"},
        "timeout": timeout_s,
        "verify": _tls_context(ca_file),
        "limits": httpx.Limits(max_connections=CONNECTIONS_MAX),
        # The environment may name proxies and password files; the token goes to the coordinator and nowhere else.
        "trust_env": False,
        "follow_redirects": False,
    }


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host:
        raise ProfileError(f"Expected the coordinator's URL such as https://10.0.0.5:8444, got {url[:200]!r}")
    if parts.scheme == "http" and not _is_this_machine(host):
        raise ProfileError(
            f"Expected an https URL for another machine, got {url[:200]!r}",
            hint="Over plain HTTP everybody on the way could read the operator's token.",
        )


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except OSError as error:  # ssl.SSLError is one
        raise ProfileError(
            f"Expected a CA certificate in PEM, could not read {ca_file}: {error}",
            hint="Give the coordinator's own with --ca; it is pki/ca.pem in its data directory.",
        ) from error


def _content(call: Call[Any]) -> dict[str, Any]:
    arguments: dict[str, Any] = {"params": dict(call.query) or None}
    if call.body is not None:
        arguments |= {"content": call.body.model_dump_json(), "headers": {"Content-Type": "application/json"}}
    return arguments


def _take(content: bytearray, chunk: bytes, call: Call[Any]) -> None:
    content += chunk
    if len(content) > ANSWER_BYTES_MAX:
        raise UnexpectedAnswerError(f"Expected at most {ANSWER_BYTES_MAX} bytes from {call.path}, got more")


def _answer(call: Call[AnswerT], status: int, content: bytes) -> AnswerT:
    if not 200 <= status < 300:
        raise _refusal(call, status, content)
    if call.answer is NoneType:
        return None  # type: ignore[return-value]  # AnswerT is None here
    try:
        return TypeAdapter(call.answer).validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the answer"
        raise UnexpectedAnswerError(
            f"Expected the API's shape from {call.method} {call.path}, got {where}: {first['msg']}",
            hint="Is this the coordinator, and of this version? `fleetlearn --version` names ours.",
        ) from error


def _refusal(call: Call[Any], status: int, content: bytes) -> ApiError | UnexpectedAnswerError:
    try:
        problem = Problem.model_validate_json(content)
    except ValidationError:
        return UnexpectedAnswerError(
            f"Expected an answer of the coordinator's API from {call.method} {call.path}, got HTTP status {status}",
            hint="Does another program listen at this URL?",
        )
    return ApiError(problem.message, hint=problem.hint, api_code=problem.code, status=status)


def _translated(error: httpx.HTTPError, url: str) -> CoordinatorUnreachableError:
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return CoordinatorUnreachableError(
            f"The coordinator at {url} shows a certificate that the CA did not sign, or for another name",
            hint="Give the CA of this coordinator with --ca or FLEETLEARN_CA.",
        )
    what = "did not answer in time" if isinstance(error, httpx.TimeoutException) else "could not be reached"
    return CoordinatorUnreachableError(
        f"The coordinator at {url} {what} ({text or type(error).__name__})",
        hint="Does it run? `fleetlearn up` starts one on this machine.",
    )
