"""The models that rounds send, fetched as the difference to the one before where the coordinator has it.

One model stays on the device for that: the newest. What is rebuilt is the object to the last bit, or else it is fetched
whole; so a lost, damaged or refused base costs bytes and nothing else.
"""

import hashlib
import os
import shutil
from pathlib import Path

import structlog

from edge_agent.coordinator_client import CoordinatorClient, digest_of
from edge_agent.errors import CoordinatorRefusedError, DamagedObjectError
from shared.compression.errors import MalformedPayloadError
from shared.compression.exact_delta import rebuilt
from shared.files import write_atomically
from shared.ids import Digest
from shared.messages.base import ObjectRef

_log = structlog.get_logger()


class Models:
    """Fetches models into files.

    Args:
        folder: For the base; it holds one file, named by its digest.
        client: To the coordinator.
    """

    def __init__(self, folder: Path, client: CoordinatorClient) -> None:
        self._folder = folder
        self._client = client

    def fetch(self, ref: ObjectRef, path: Path) -> int:
        """Puts the model at the path, verified; returns the bytes that came for it. Raises CoordinatorError."""
        if path.exists() and digest_of(path) == ref.digest:
            return 0
        came = self._rebuild(ref, path)
        if came is None:
            self._client.download(ref, path)
            came = ref.size_bytes
        self._keep(ref, path)
        return came

    def _rebuild(self, ref: ObjectRef, path: Path) -> int | None:
        """The bytes of the difference that made the model; None where there is none, or it was none."""
        base = self._base()
        if base is None:
            return None
        try:
            content = base.read_bytes()
            delta = b"" if base.name == ref.digest else self._client.delta(ref, base=Digest(base.name))
            target = rebuilt(content, delta) if delta else content
        except (CoordinatorRefusedError, DamagedObjectError, MalformedPayloadError, OSError) as error:
            _log.info("model_fetched_whole", digest=ref.digest, reason=str(error))
            return None
        if hashlib.sha256(target).hexdigest() != ref.digest:
            _log.warning("model_fetched_whole", digest=ref.digest, reason="the difference made other bytes")
            return None
        write_atomically(path, target)
        return len(delta)

    def _base(self) -> Path | None:
        return next((path for path in self._folder.glob("?" * 64) if path.is_file()), None)

    def _keep(self, ref: ObjectRef, path: Path) -> None:
        """The model is the next base, by a second name of its file; without room for that there is none."""
        try:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)
            os.link(path, self._folder / ref.digest)
        except OSError as error:
            _log.info("model_not_kept", digest=ref.digest, reason=str(error))
