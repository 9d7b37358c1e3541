"""Blobs of a container at a signed address, as Azure Storage speaks it: put one, get one. Both block."""

import shutil
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from cloud.localhub.errors import LocalHubError

_TIMEOUT_S = 60.0
_VERSION = "2021-12-02"
_CHUNK_BYTES = 1024 * 1024
BLOB_BYTES_MAX = 4 * 1024**3


class ContainerError(LocalHubError):
    """A container did not give or take a blob. The message has no address: that carries a signature."""

    code = "container_error"


def put_blob(container: str, name: str, source: Path) -> None:
    """Uploads a file. Raises ContainerError."""
    headers = {"x-ms-blob-type": "BlockBlob", "x-ms-version": _VERSION, "Content-Length": str(source.stat().st_size)}
    with source.open("rb") as file:
        request = urllib.request.Request(_address(container, name), file, headers, method="PUT")  # noqa: S310  # checked
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S):  # noqa: S310  # http or https
                return
        except OSError as error:
            raise ContainerError(f"Expected the container to take {name[:80]!r}, got {_reason(error)}") from None


def get_blob(container: str, name: str, target: Path) -> None:
    """Downloads into a file. Raises ContainerError."""
    request = urllib.request.Request(_address(container, name), headers={"x-ms-version": _VERSION})  # noqa: S310  # checked
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response, target.open("wb") as file:  # noqa: S310
            if int(response.headers.get("Content-Length") or 0) > BLOB_BYTES_MAX:
                raise ContainerError(f"Expected {name[:80]!r} of at most {BLOB_BYTES_MAX} bytes")
            shutil.copyfileobj(response, file, _CHUNK_BYTES)
    except OSError as error:
        raise ContainerError(f"Expected the container to have {name[:80]!r}, got {_reason(error)}") from None


def _address(container: str, name: str) -> str:
    scheme, place, path, query, _ = urlsplit(container)
    return urlunsplit((scheme, place, f"{path.rstrip('/')}/{quote(name)}", query, ""))


def _reason(error: OSError) -> str:
    if isinstance(error, urllib.error.HTTPError):
        with error:
            return f"status {error.code}"
    return str(getattr(error, "reason", error))[:200]
