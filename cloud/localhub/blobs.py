"""The devices' files over HTTPS, as Azure Storage speaks it: Put Blob and Get Blob with a signed address.

A file appears under its name whole, and on disk, or not at all. Blocks, leases, metadata and the rest are not here.
https://learn.microsoft.com/rest/api/storageservices/put-blob
"""

import asyncio
import contextlib
import os
import secrets
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from cloud.localhub.errors import LocalHubError, RefusedError, ServiceError
from cloud.localhub.files import CONTAINER, Blob, Files
from cloud.localhub.http import Receive, Response, Scope, Send, respond
from cloud.localhub.limits import Limits

PREFIX = f"/{CONTAINER}/"

_CHUNK_BYTES = 256 * 1024


class BlobError(LocalHubError):
    """A request that Azure Storage answers with an error: its status and its name of the error."""

    code = "blob_error"

    def __init__(self, status: int, name: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.name = name


class BlobApi:
    """The ASGI application for the paths that begin with `PREFIX`."""

    def __init__(self, files: Files, *, limits: Limits) -> None:
        self._files = files
        self._limits = limits
        self._stored_bytes: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._answer(scope, receive, send)
        except BlobError as error:
            reason = f"<Code>{error.name}</Code><Message>{escape(str(error))}</Message>"
            body = f'<?xml version="1.0" encoding="utf-8"?><Error>{reason}</Error>'.encode()
            headers = {"x-ms-error-code": error.name, "content-type": "application/xml", **_common()}
            await respond(send, Response(error.status, body, headers))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        blob = self._blob(scope)
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        match scope["method"]:
            case "PUT":
                await self._put(blob, headers, receive)
                await respond(send, Response(201, headers=_described(blob.path)))
            case "GET" | "HEAD" as method:
                await _get(blob, send, with_body=method == "GET")
            case method:
                raise BlobError(405, "UnsupportedHttpVerb", f"Expected PUT, GET or HEAD, got {method[:20]!r}")

    def _blob(self, scope: Scope) -> Blob:
        name = unquote(scope["raw_path"].decode("ascii", "replace")).removeprefix(PREFIX)
        query = {key: values[-1] for key, values in parse_qs(scope["query_string"].decode("latin-1")).items()}
        try:
            self._files.check(name, query)
            blob = Blob.named(self._files.folder, name)
        except (RefusedError, ServiceError) as error:
            raise BlobError(403, "AuthenticationFailed", str(error)) from error
        if "comp" in query:
            raise BlobError(400, "UnsupportedQueryParameter", "Expected the whole blob in one request, got a part")
        return blob

    async def _put(self, blob: Blob, headers: dict[str, str], receive: Receive) -> None:
        if headers.get("x-ms-blob-type") != "BlockBlob":
            raise BlobError(400, "InvalidHeaderValue", "Expected x-ms-blob-type BlockBlob")
        if headers.get("if-none-match") == "*" and blob.path.exists():
            raise BlobError(409, "BlobAlreadyExists", "Expected no blob of this name, found one")
        length = headers.get("content-length", "")
        if not length.isascii() or not length.isdigit():
            raise BlobError(411, "MissingContentLengthHeader", "Expected a content-length")
        if int(length) > self._limits.file_bytes_max or not await self._has_room(int(length)):
            raise BlobError(413, "RequestBodyTooLarge", "Expected a smaller file, or more room for files")
        draft = self._files.folder / f".{secrets.token_hex(16)}"
        try:
            size = await _write(draft, receive, bytes_max=int(length), timeout_s=self._limits.file_s)
            if size != int(length):
                raise BlobError(400, "InvalidInput", f"Expected {length} bytes, got {size}")
            await asyncio.to_thread(_publish, draft, blob.path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()
        self._stored_bytes = (self._stored_bytes or 0) + size

    async def _has_room(self, size: int) -> bool:
        """What is overwritten counts twice until the hub starts again."""
        if self._stored_bytes is None:
            self._stored_bytes = await asyncio.to_thread(_bytes_under, self._files.folder)
        return self._stored_bytes + size <= self._limits.files_bytes_max


def _bytes_under(folder: Path) -> int:
    """The size of all files; makes the folder where it is missing."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def _write(path: Path, receive: Receive, *, bytes_max: int, timeout_s: float) -> int:
    """Writes the body as it comes; how many bytes it had. Raises BlobError where it is too long, slow or cut off."""
    size, is_more = 0, True
    try:
        with path.open("xb") as file:
            async with asyncio.timeout(timeout_s):
                while is_more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise BlobError(400, "InvalidInput", "Expected the rest of the body, got the end")
                    chunk, is_more = message.get("body", b""), message.get("more_body", False)
                    size += len(chunk)
                    if size > bytes_max:
                        raise BlobError(413, "RequestBodyTooLarge", f"Expected at most {bytes_max} bytes")
                    file.write(chunk)
    except TimeoutError:
        raise BlobError(408, "OperationTimedOut", f"Expected the body within {timeout_s:g} s") from None
    return size


def _publish(draft: Path, path: Path) -> None:
    """Moves a complete file to its place, and both onto the disk."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _sync(draft)
        draft.replace(path)
        for folder in path.parents[: len(path.parents) - len(draft.parent.parents)]:
            _sync(folder)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise BlobError(409, "BlobAlreadyExists", "Expected a name that no other blob's name goes through") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _get(blob: Blob, send: Send, *, with_body: bool) -> None:
    try:
        file = blob.path.open("rb")
    except OSError as error:
        raise BlobError(404, "BlobNotFound", "Expected a blob of this name, found none") from error
    with file:
        headers = {"content-length": str(os.fstat(file.fileno()).st_size), "content-type": "application/octet-stream"}
        headers |= {"x-ms-blob-type": "BlockBlob", **_described(blob.path)}
        encoded = [(key.encode(), value.encode()) for key, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": encoded})
        while with_body and (chunk := file.read(_CHUNK_BYTES)):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _described(path: Path) -> dict[str, str]:
    found = path.stat()
    etag = f'"0x{found.st_mtime_ns:X}"'
    return {"etag": etag, "last-modified": formatdate(found.st_mtime, usegmt=True), **_common()}


def _common() -> dict[str, str]:
    return {"x-ms-version": "2018-03-28", "x-ms-request-id": secrets.token_hex(16)}
