"""A device folder as after enrolment and one rollout, made without a fleet: real identity, real install.

The int8 model is the physio task's own network, exported and quantized by the packaging code on made-up windows: its
speed and size are a trained one's, its answers are not.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from cloud.packaging.export import export_onnx
from cloud.packaging.profile import drift_profile
from cloud.packaging.quantize import quantize_int8
from cloud.packaging.runtime import run_model
from cloud.pki.authority import load_or_create_authority
from cloud.pki.certificates import pem_of
from cloud.releases.metadata import ReleaseFiles
from cloud.releases.repository import TufRepository, init_repository
from edge_agent.identity import Enrolment, own_key, signing_request, write_identity
from edge_agent.releases.errors import NotFoundError
from edge_agent.releases.installer import Installer
from edge_agent.releases.trust import pin_root
from edge_agent.serving.opset import opset_max
from edge_agent.serving.session import self_test
from edge_agent.state_dir import StateDir
from fleet.signing import sign_targets
from shared.ids import DeviceId, Digest
from shared.lifecycles import ReleaseState
from shared.manifests import MANIFEST_FILE, MODEL_FILE, PROFILE_FILE, SAMPLES_FILE, Manifest, TensorSchema
from shared.messages.base import ObjectRef
from shared.messages.desired import ReportedRelease
from shared.tasks.physio import TASK
from shared.tasks.task import Inputs
from shared.tensors import encode

DEVICE_ID = DeviceId("bench-device")
RELEASE_ID = "physio-bench"
NOBODY = "127.0.0.49"
"""No hub and no coordinator listen there: the agent serves, and tries to connect in its back-off."""


def prepare_device(folder: Path) -> StateDir:
    """A state directory whose agent will serve the int8 model at once."""
    state = StateDir(folder / "state")
    state.make()
    _write_identity(state, folder / "pki")
    release = write_release(folder / "release")
    repository = _publish(folder, release)
    pin_root(state.releases, repository.root().decode())
    installer = Installer(
        state_dir=state.releases,
        transport=_FolderTransport(repository),
        self_test=self_test,
        opset_max=opset_max(),
        now=time.time,
    )
    installer.install(RELEASE_ID, on_state=lambda _: None)
    state.write_release(ReportedRelease(generation=1, release_id=RELEASE_ID, state=ReleaseState.ACTIVE))
    return state


def windows(count: int) -> Inputs:
    """Made-up windows: a slow swing with noise, `(count, 6, 100)`."""
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 2 * np.pi, (count, 6, 1))
    swing = np.sin(np.linspace(0, 6, 100) + phase) + rng.normal(0, 0.2, (count, 6, 100))
    return swing.astype(np.float32)


def write_release(folder: Path) -> Path:
    """A release's files, int8 model included."""
    folder.mkdir(parents=True, exist_ok=True)
    data, schema = windows(256), TASK.schema
    versions = export_onnx(TASK, TASK.model(seed=0).eval(), folder / "fp32.onnx")
    quantize_int8(folder / "fp32.onnx", folder / MODEL_FILE, input_name=schema.input_name, calibration=data[:64])
    samples = {"inputs": data[:8], "outputs": run_model(folder / MODEL_FILE, data[:8])}
    (folder / SAMPLES_FILE).write_bytes(encode(samples))
    values = TASK.features(data)
    profile = drift_profile(
        schema.features, reference=values, unseen=values, unseen_units=np.repeat(np.arange(8), len(values) // 8)
    )
    (folder / PROFILE_FILE).write_bytes(profile.encode())
    manifest = Manifest(
        release_id=RELEASE_ID,
        task=TASK.name,
        task_version=TASK.version,
        opset=versions.opset,
        ir_version=versions.ir_version,
        inputs=[TensorSchema(name=schema.input_name, datatype="FP32", shape=[-1, *schema.input_shape])],
        outputs=[TensorSchema(name=schema.output_name, datatype="FP32", shape=[-1, len(schema.classes)])],
        classes=list(schema.classes),
        files={name: _ref(folder / name) for name in (MODEL_FILE, SAMPLES_FILE, PROFILE_FILE)},
        self_test_tolerance=0.05,
        created_at=time.time(),
    )
    (folder / MANIFEST_FILE).write_bytes(manifest.encode())
    return folder


class _FolderTransport:
    """The release repository read from its folder, as the coordinator's routes read it."""

    def __init__(self, repository: TufRepository) -> None:
        self._repository = repository

    def get(self, path: str, *, offset: int, bytes_max: int) -> Iterator[bytes]:
        kind, _, name = path.partition("/")
        folder = self._repository.metadata_dir if kind == "metadata" else self._repository.targets_dir
        if not (folder / name).is_file():
            raise NotFoundError(f"Expected {path} in the repository, got no such file")
        yield (folder / name).read_bytes()[offset:]


def _publish(folder: Path, release: Path) -> TufRepository:
    init_repository(folder / "tuf", offline_keys_dir=folder / "keys", now=time.time())
    repository = TufRepository(folder / "tuf")
    names = (MANIFEST_FILE, MODEL_FILE, SAMPLES_FILE, PROFILE_FILE)
    refs: Mapping[str, ObjectRef] = {name: _ref(release / name) for name in names}
    contents = {refs[name].digest: (release / name).read_bytes() for name in names}
    manifest = Manifest.parse((release / MANIFEST_FILE).read_bytes())
    files = ReleaseFiles(RELEASE_ID, TASK.name, manifest.opset, refs)
    _, unsigned = repository.signing_request(files, now=time.time())
    signed = sign_targets(unsigned, targets_key_file=folder / "keys" / "targets.pem")

    def open_object(digest: Digest) -> Iterator[bytes]:
        yield contents[digest]

    repository.accept_targets(signed, files, open_object=open_object, now=time.time())
    return repository


def _write_identity(state: StateDir, pki: Path) -> None:
    now = time.time()
    authority = load_or_create_authority(pki, now=now)
    csr_pem = signing_request(DEVICE_ID, own_key(state.identity))
    certificate = authority.sign_device_request(csr_pem, device_id=DEVICE_ID, now=now, life_days=90)
    enrolment = Enrolment(device_id=DEVICE_ID, coordinator_url=f"https://{NOBODY}:8444", hub_hostname=NOBODY)
    write_identity(
        state.identity, enrolment=enrolment, certificate_pem=pem_of(certificate).encode(), ca_pem=authority.pem
    )


def _ref(path: Path) -> ObjectRef:
    payload = path.read_bytes()
    return ObjectRef(digest=Digest(hashlib.sha256(payload).hexdigest()), size_bytes=len(payload))
