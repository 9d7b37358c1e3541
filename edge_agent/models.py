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
from shared.ids import Digest
from shared.messages.base import ObjectRef
from shared.messages.work import AttachedModel

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
        self._offered: tuple[AttachedModel, bytes] | None = None

    @property
    def base(self) -> Digest | None:
        """The model that is here: the coordinator may send the next one as the difference to it."""
        found = self._base()
        return None if found is None else Digest(found.name)

    def offer(self, attached: AttachedModel, content: bytes) -> None:
        """Keeps what came without being asked for, until a model is fetched; the newest offer alone."""
        self._offered = attached, content

    def fetch(self, ref: ObjectRef, path: Path) -> int:
        """Puts the model at the path, verified; returns the bytes that came for it. Raises CoordinatorError."""
        if path.exists() and digest_of(path) == ref.digest:
            return 0
        came = self._take_offer(ref, path)
        if came is None:
            came = self._rebuild(ref, path)
        if came is None:
            self._client.download(ref, path)
            came = ref.size_bytes
        self._keep(ref, path)
        return came

    def _take_offer(self, ref: ObjectRef, path: Path) -> int | None:
        """The bytes that came before they were asked for, once they made the model; None where they do not."""
        offered, self._offered = self._offered, None
        if offered is None or offered[0].model != ref:
            return None
        attached, content = offered
        try:
            base = None if attached.base is None else (self._folder / attached.base).read_bytes()
            target = content if base is None else rebuilt(base, content)
        except (MalformedPayloadError, OSError) as error:
            _log.info("offered_model_not_used", digest=ref.digest, reason=str(error))
            return None
        return len(content) if _is_stored(ref, path, target) else None

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
        return len(delta) if _is_stored(ref, path, target) else None

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


def _is_stored(ref: ObjectRef, path: Path, content: bytes) -> bool:
    """Whether these bytes are the model; then they are at the path."""
    if hashlib.sha256(content).hexdigest() != ref.digest:
        _log.warning("model_fetched_whole", digest=ref.digest, reason="the difference made other bytes")
        return False
    # Not flushed: who reads it verifies it, and a model that a power cut damaged is fetched again.
    path.write_bytes(content)
    return True
