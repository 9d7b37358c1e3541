"""What release code needs of the network, as a port; `edge_agent`'s signed HTTPS client implements it."""

from collections.abc import Iterator
from typing import Protocol

from edge_agent.releases.errors import FetchError


class ReleaseTransport(Protocol):
    """Reads files of the coordinator's release repository."""

    def get(self, path: str, *, offset: int, bytes_max: int) -> Iterator[bytes]:
        """The file's bytes from `offset` on, in pieces; it may stop reading after `bytes_max` + 1 bytes.

        Args:
            path: Below `/v1/device/tuf/`, for example `metadata/timestamp.json`.
            offset: Bytes to skip (HTTP Range); equal to the file's length, nothing comes.
            bytes_max: More than this are never wanted.

        Raises:
            NotFoundError: There is no such file.
            FetchError: Anything else; also while iterating.
        """
        ...


def fetch(transport: ReleaseTransport, path: str, *, offset: int, bytes_max: int) -> Iterator[bytes]:
    """`transport.get`, from which nothing but FetchError comes out, not even while iterating."""
    try:
        yield from transport.get(path, offset=offset, bytes_max=bytes_max)
    except FetchError:
        raise
    except OSError as error:
        raise FetchError(f"Expected {path} from the coordinator: {error}") from error
