"""The device's end of the coordinator's HTTPS API: every request signed by the device's key, every retry bounded.

    client = CoordinatorClient(origin, device_id=..., key=...)
    client.work(); client.download(ref, path); client.upload(path); client.hand_in(result); client.renew(csr_pem)

Synchronous and thread-safe: the agent calls it in threads. All errors are `CoordinatorError`s.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ValidationError

from edge_agent.errors import (
    CoordinatorRefusedError,
    CoordinatorUnavailableError,
    DamagedObjectError,
)
from edge_agent.https import Answer, Headers, HttpsOrigin, Retries, refusal
from shared.api.enrolment import Renewed, RenewRequest
from shared.device_auth import AUTHORIZATION_SCHEME, EMPTY_BODY, NONCE_HEADER, SignedRequest, sign
from shared.files import sync_folder
from shared.ids import DeviceId, Digest
from shared.messages.attached import CONTENT_TYPE, attach, detach
from shared.messages.base import MalformedMessageError, ObjectRef
from shared.messages.events import WorkResult
from shared.messages.work import WorkList

UPLOAD_CHUNK_BYTES = 1024 * 1024
RESUMES_MAX = 8
"""How often one object's download or upload goes on after an interruption that followed some progress."""
_JSON = {"Content-Type": "application/json"}
_T = TypeVar("_T")
_ModelT = TypeVar("_ModelT", bound=BaseModel)


class CoordinatorClient:
    """One device's signed requests to one coordinator.

    Args:
        origin: Where, and whom to trust.
        device_id: Who asks.
        key: The device's own.
        retries: How often a request is tried again while the coordinator cannot be reached.
    """

    def __init__(
        self, origin: HttpsOrigin, *, device_id: DeviceId, key: ec.EllipticCurvePrivateKey, retries: Retries
    ) -> None:
        self._origin = origin
        self._device_id = device_id
        self._key = key
        self._retries = retries
        self._nonce = ""

    def work(self, *, base: Digest | None = None) -> tuple[WorkList, bytes]:
        """All work that waits for this device, and what came behind the list for `attached`: nothing, mostly.

        Args:
            base: The model that this device has: one that resembles it may come as the difference.
        """
        answer = self._request("GET", f"/v1/device/work?base={base or ''}")
        if answer.headers.get("Content-Type") != CONTENT_TYPE:
            return _parsed(WorkList, answer.body), b""
        try:
            document, content = detach(answer.body)
        except MalformedMessageError as error:
            raise CoordinatorRefusedError(error.message) from error
        return _parsed(WorkList, document), content

    def hand_in(self, result: WorkResult, update: bytes = b"") -> None:
        """Says what became of work; result and update are on the coordinator's disk when this returns.

        Args:
            result: With the update's name, where there is one.
            update: Its bytes, at most `ATTACHED_BYTES_MAX`; nothing where they were uploaded before.
        """
        path = f"/v1/device/work/{quote(result.work_id, safe='')}/result"
        self._request("PUT", path, body=attach(result, update), headers={"Content-Type": CONTENT_TYPE})

    def renew(self, csr_pem: str) -> str:
        """A new certificate for this device, in PEM."""
        body = RenewRequest(csr_pem=csr_pem).model_dump_json().encode()
        return _parsed(Renewed, self._request("POST", "/v1/device/certificate", body=body).body).certificate_pem

    def download(self, ref: ObjectRef, path: Path) -> None:
        """Puts the object at the path, verified; what came before an interruption is kept beside and gone on with.

        Raises:
            DamagedObjectError: The bytes are not what the digest says.
            CoordinatorError: They did not come.
        """
        if path.exists() and digest_of(path) == ref.digest:
            return
        partial = path.with_name(f"{path.name}.part")
        for _ in range(RESUMES_MAX):
            before = _size(partial)
            try:
                self._append(ref, partial)
                break
            except CoordinatorUnavailableError:
                if _size(partial) <= before:
                    raise
        if digest_of(partial) != ref.digest:
            partial.unlink()
            raise DamagedObjectError(f"Expected an object with SHA-256 {ref.digest}, got other bytes")
        partial.replace(path)
        sync_folder(path.parent)

    def delta(self, ref: ObjectRef, *, base: Digest) -> bytes:
        """The difference that makes the object of one that this device has; smaller than the object.

        Raises:
            CoordinatorRefusedError: There is none; the object can be downloaded.
            CoordinatorError: It did not come.
        """
        delta = bytearray()
        with self.stream(f"/v1/device/objects/{ref.digest}/from/{base}", offset=0) as pieces:
            for piece in pieces:
                delta += piece
                if len(delta) > ref.size_bytes:
                    raise DamagedObjectError(f"Expected a difference below {ref.size_bytes} bytes, got more")
        return bytes(delta)

    def upload(self, path: Path) -> ObjectRef:
        """Sends the file as a content-addressed object, from where an earlier try ended; returns its name."""
        ref = ObjectRef(digest=digest_of(path), size_bytes=_size(path))
        with path.open("rb") as file:
            offset = self._upload_offset(ref)
            for _ in range(RESUMES_MAX + ref.size_bytes // UPLOAD_CHUNK_BYTES + 1):
                if offset is None:
                    return ref
                file.seek(offset)
                offset = self._send_chunk(ref, file.read(UPLOAD_CHUNK_BYTES), offset=offset)
        raise CoordinatorUnavailableError(f"Expected the upload of {ref.size_bytes} bytes to end, got no end")

    @contextmanager
    def stream(self, path: str, *, offset: int) -> Iterator[Iterator[bytes]]:
        """The bytes at the path from `offset` on, in pieces. Raises CoordinatorError, also while iterating."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        expected = frozenset({416}) if offset else frozenset[int]()
        with self._opened("GET", path, headers=headers, expected=expected) as (status, got, pieces):
            yield _from_offset(status, got, pieces, offset)

    def close(self) -> None:
        self._origin.close()

    def _append(self, ref: ObjectRef, partial: Path) -> None:
        """Appends what is missing to the part, and puts it on disk."""
        if _size(partial) > ref.size_bytes:
            partial.unlink()
        with partial.open("ab") as out:
            size = out.tell()
            if size < ref.size_bytes:
                with self.stream(f"/v1/device/objects/{ref.digest}", offset=size) as pieces:
                    for piece in pieces:
                        size += len(piece)
                        if size > ref.size_bytes:
                            raise DamagedObjectError(f"Expected {ref.size_bytes} bytes of {ref.digest}, got more")
                        out.write(piece)
            out.flush()
            os.fsync(out.fileno())
        if size < ref.size_bytes:
            raise CoordinatorUnavailableError(f"Expected {ref.size_bytes} bytes of {ref.digest}, got {size}")

    def _upload_offset(self, ref: ObjectRef) -> int | None:
        """How many bytes the coordinator has; None: all of them."""
        answer = self._request("HEAD", f"/v1/device/uploads/{ref.digest}")
        return None if answer.headers.get("Upload-Complete") == "1" else _offset(answer.headers)

    def _send_chunk(self, ref: ObjectRef, chunk: bytes, *, offset: int) -> int | None:
        headers = {
            "Upload-Offset": str(offset),
            "Upload-Length": str(ref.size_bytes),
            "Content-Type": "application/offset+octet-stream",
        }
        try:
            path = f"/v1/device/uploads/{ref.digest}"
            answer = self._request("PATCH", path, body=chunk, headers=headers, expected=frozenset({409}))
        except CoordinatorUnavailableError:
            return self._upload_offset(ref)  # itself retried: the answer may have been lost, not the bytes
        if answer.status == 409:
            return self._upload_offset(ref)
        received = _offset(answer.headers)
        return None if received >= ref.size_bytes else received

    # Signed requests

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: Headers | None = None,
        expected: frozenset[int] = frozenset(),
    ) -> Answer:
        default = _JSON if body else {}

        def once() -> Answer:
            signed = {**(headers or default), **self._authorization(method, path, body)}
            answer = self._origin.request(method, path, headers=signed, body=body, expected=expected | {401})
            self._keep_nonce(answer.headers)
            return answer

        return self._tried(lambda: self._answered(once))

    def _answered(self, once: Callable[[], Answer]) -> Answer:
        """The answer; a stale nonce is answered with a fresh one, and then the request is made once more."""
        answer = once()
        if answer.status == 401:
            answer = once()
        if answer.status == 401:
            raise _unauthenticated(answer.body)
        return answer

    @contextmanager
    def _opened(
        self, method: str, path: str, *, headers: Headers, expected: frozenset[int]
    ) -> Iterator[tuple[int, Headers, Iterator[bytes]]]:
        """A streamed answer; a stale nonce costs a second request, as in `_answered`."""
        with ExitStack() as stack:

            def opened() -> tuple[int, Headers, Iterator[bytes]]:
                signed = {**headers, **self._authorization(method, path, b"")}
                stream = self._origin.stream(method, path, headers=signed, expected=expected | {401})
                answer = stack.enter_context(stream)
                self._keep_nonce(answer[1])
                return answer

            answer = self._tried(opened)
            if answer[0] == 401:
                answer = self._tried(opened)
            if answer[0] == 401:
                raise _unauthenticated(b"")
            yield answer

    def _tried(self, attempt: Callable[[], _T]) -> _T:
        """What the attempt gives, tried again while the coordinator cannot be reached, within the bound."""
        retries = self._retries
        for number in range(retries.tries_max):
            try:
                return attempt()
            except CoordinatorUnavailableError:
                if number + 1 == retries.tries_max:
                    raise
                retries.sleep(retries.backoff.delay_s(number, retries.rng))
        raise AssertionError("the loop returns or raises")

    def _authorization(self, method: str, path: str, body: bytes) -> dict[str, str]:
        if not self._nonce:
            answer = self._origin.request("GET", "/v1/nonce", headers={})
            self._keep_nonce(answer.headers)
        digest = Digest(hashlib.sha256(body).hexdigest()) if body else EMPTY_BODY
        request = SignedRequest(self._device_id, method, self._origin.prefix + path, digest, self._nonce)
        return {"Authorization": f"{AUTHORIZATION_SCHEME} {sign(request, self._key)}"}

    def _keep_nonce(self, headers: Headers) -> None:
        if nonce := headers.get(NONCE_HEADER):
            self._nonce = nonce


def _unauthenticated(body: bytes) -> CoordinatorRefusedError:
    """The refusal that is left when a fresh nonce did not help."""
    told = refusal(401, body, {})
    return CoordinatorRefusedError(
        told.message, hint=told.hint or "Check that the device is enrolled with this very coordinator.", status=401
    )


def quoted(path: str) -> str:
    """A path as it goes over the wire."""
    return quote(path, safe="/")


def digest_of(path: Path) -> Digest:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return Digest(hashlib.file_digest(file, "sha256").hexdigest())


def _from_offset(status: int, headers: Headers, pieces: Iterator[bytes], offset: int) -> Iterator[bytes]:
    """The bytes from `offset` on, whether or not the coordinator understood the range."""
    if status == 416:
        return
    if status == 206:
        start = headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        if start != str(offset):
            raise CoordinatorUnavailableError(f"Expected bytes from {offset} on, got from {start[:20] or 'nowhere'}")
        yield from pieces
        return
    skip = offset
    for piece in pieces:
        if skip < len(piece):
            yield piece[skip:]
        skip = max(0, skip - len(piece))


def _offset(headers: Headers) -> int:
    text = headers.get("Upload-Offset", "")
    if not text.isdigit():
        raise CoordinatorRefusedError(f"Expected a number as Upload-Offset, got {text[:40]!r}")
    return int(text)


def _parsed(model: type[_ModelT], document: bytes) -> _ModelT:
    try:
        return model.model_validate_json(document)
    except ValidationError as error:
        raise CoordinatorRefusedError(
            f"Expected a {model.__name__} from the coordinator, got something else: {error.error_count()} problems"
        ) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
