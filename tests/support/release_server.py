"""A real release repository behind an in-memory transport: publishes real releases, and lets a test be the attacker.

Attacks are plain edits: `server.replaced["metadata/timestamp.json"] = old_bytes`, `server.tail = b"..."`.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from cloud.releases.metadata import ReleaseFiles
from cloud.releases.repository import TufRepository, init_repository
from edge_agent.releases.errors import FetchError, NotFoundError
from fleet.signing import sign_targets
from shared.manifests import MANIFEST_FILE, MODEL_FILE, PROFILE_FILE, SAMPLES_FILE, Manifest, TensorSchema
from shared.messages.base import ObjectRef

T0 = 1_800_000_000.0
"""January 2027: after the build time of any agent under test."""
CHUNK_BYTES = 1000


def ref(payload: bytes) -> ObjectRef:
    return ObjectRef.model_validate({"digest": hashlib.sha256(payload).hexdigest(), "size_bytes": len(payload)})


def release_payloads(release_id: str, *, opset: int = 20, model: bytes = b"") -> dict[str, bytes]:
    """The four files of a release whose model is just bytes: nothing here runs it."""
    others = {
        MODEL_FILE: model or f"the model of {release_id}\n".encode() * 200,
        SAMPLES_FILE: f"the samples of {release_id}".encode() * 20,
        PROFILE_FILE: f'{{"of": "{release_id}"}}'.encode(),
    }
    manifest = Manifest(
        release_id=release_id,
        task="digits",
        task_version="1",
        opset=opset,
        ir_version=10,
        inputs=[TensorSchema(name="images", datatype="FP32", shape=[-1, 64])],
        outputs=[TensorSchema(name="logits", datatype="FP32", shape=[-1, 2])],
        classes=["no", "yes"],
        files={name: ref(payload) for name, payload in others.items()},
        self_test_tolerance=1e-3,
        created_at=T0,
    )
    return {MANIFEST_FILE: manifest.encode(), **others}


class ReleaseServer:
    """A coordinator's release repository in a folder, and the operator who signs for it.

    Implements `edge_agent.releases.transport.ReleaseTransport`.
    """

    def __init__(self, folder: Path, *, now: float = T0) -> None:
        self.now = now
        self.keys_dir = folder / "offline-keys"
        init_repository(folder / "tuf", offline_keys_dir=self.keys_dir, now=now)
        self.repository = TufRepository(folder / "tuf")
        self.requests: list[tuple[str, int]] = []
        self.replaced: dict[str, bytes] = {}
        self.missing: set[str] = set()
        self.endless: set[str] = set()
        self.cut_after: dict[str, int] = {}
        """Bytes of a file after which the connection breaks, each time it is asked for."""
        self.on_chunk: Callable[[str], None] = lambda path: None

    @property
    def targets_key(self) -> Path:
        return self.keys_dir / "targets.pem"

    def publish(
        self,
        release_id: str,
        payloads: dict[str, bytes] | None = None,
        *,
        opset: int = 20,
        signing_keys: tuple[Path, ...] = (),
    ) -> ReleaseFiles:
        """Publishes a release as an operator does: request, sign (by default with the first targets key), publish."""
        payloads = payloads or release_payloads(release_id, opset=opset)
        files = {name: ref(payload) for name, payload in payloads.items()}
        release = ReleaseFiles(release_id, task="digits", opset=opset, files=files)
        _, signed = self.repository.signing_request(release, now=self.now)
        for key in signing_keys or (self.targets_key,):
            signed = sign_targets(signed, targets_key_file=key)
        by_digest = {files[name].digest: payload for name, payload in payloads.items()}
        self.repository.accept_targets(
            signed,
            release,
            open_object=lambda digest: iter([by_digest[digest]]),
            now=self.now,
        )
        return release

    def root(self) -> str:
        return self.repository.root().decode()

    def path_of(self, release: ReleaseFiles, name: str) -> str:
        """Where a device asks for this file."""
        return f"targets/releases/{release.release_id}/{release.files[name].digest}.{name}"

    def stored(self, path: str) -> bytes:
        """The file as the repository has it. Raises NotFoundError."""
        place = self.repository.metadata_dir.parent / path
        if not place.is_file():
            raise NotFoundError(f"Expected a file at {path}, got none")
        return place.read_bytes()

    def everything(self) -> dict[str, bytes]:
        """All metadata as it stands now, to be played again later."""
        return {f"metadata/{path.name}": path.read_bytes() for path in self.repository.metadata_dir.glob("*.json")}

    def get(self, path: str, *, offset: int, bytes_max: int) -> Iterator[bytes]:
        self.requests.append((path, offset))
        if path in self.missing:
            raise NotFoundError(f"Expected a file at {path}, got none")
        payload = self.replaced[path] if path in self.replaced else self.stored(path)
        end = min(len(payload), self.cut_after.get(path, len(payload)))
        for start in range(offset, end, CHUNK_BYTES):
            self.on_chunk(path)
            yield payload[start : min(start + CHUNK_BYTES, end)]
        if end < len(payload):
            raise FetchError(f"Expected all of {path}, but the connection broke")
        while path in self.endless:
            yield b"\0" * CHUNK_BYTES


def flipped(payload: bytes, position: int | None = None) -> bytes:
    """The payload with one bit of one byte changed."""
    where = len(payload) // 2 if position is None else position
    return payload[:where] + bytes([payload[where] ^ 1]) + payload[where + 1 :]


def edited(metadata: bytes, **changes: object) -> bytes:
    """Metadata with fields of its signed part changed, and the signatures as they were."""
    document = json.loads(metadata)
    document["signed"].update(changes)
    return json.dumps(document).encode()
