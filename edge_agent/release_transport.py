"""The release repository, read through the coordinator's signed HTTPS API: the port of `edge_agent.releases`."""

from collections.abc import Iterator

from edge_agent.coordinator_client import CoordinatorClient, quoted
from edge_agent.errors import CoordinatorError, CoordinatorRefusedError
from edge_agent.releases.errors import FetchError, NotFoundError


class CoordinatorTransport:
    """Implements `edge_agent.releases.transport.ReleaseTransport`."""

    def __init__(self, client: CoordinatorClient) -> None:
        self._client = client

    def get(self, path: str, *, offset: int, bytes_max: int) -> Iterator[bytes]:
        """The file's bytes from `offset` on; stops after the first piece beyond `bytes_max`."""
        size = 0
        try:
            with self._client.stream(f"/v1/device/tuf/{quoted(path)}", offset=offset) as pieces:
                for piece in pieces:
                    size += len(piece)
                    yield piece
                    if size > bytes_max:
                        return
        except CoordinatorRefusedError as error:
            if error.status == 404:
                raise NotFoundError(f"Expected {path} at the coordinator, got no such file") from error
            raise FetchError(error.message, hint=error.hint) from error
        except CoordinatorError as error:
            raise FetchError(error.message, hint=error.hint) from error
