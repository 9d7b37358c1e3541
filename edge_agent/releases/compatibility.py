"""Whether this device's runtime can serve a release: decided before the model is fetched, and pure."""

from dataclasses import dataclass

from edge_agent.releases.errors import IncompatibleReleaseError
from shared.manifests import MODEL_FILE, PROFILE_FILE, SAMPLES_FILE, Manifest

FORMAT_VERSION = 1
IR_VERSION_MAX = 14
"""ONNX's own file format; the newest that ONNX Runtime 1.32 loads."""
DATATYPES = frozenset({"FP32"})


@dataclass(frozen=True)
class Runtime:
    """What this device can serve."""

    opset_max: int
    """Newest ONNX operator set."""
    ir_version_max: int = IR_VERSION_MAX


def check_opset(opset: int, runtime: Runtime) -> None:
    """Returns if the runtime knows the operator set. Raises IncompatibleReleaseError."""
    if not 1 <= opset <= runtime.opset_max:
        raise IncompatibleReleaseError(
            f"Expected opset <= {runtime.opset_max}, got {opset}",
            hint="Update the agent on this device, or export the model for an older opset.",
        )


def check_manifest(manifest: Manifest, *, release_id: str, runtime: Runtime) -> None:
    """Returns if the release is the one asked for and this device can serve it. Raises IncompatibleReleaseError."""
    if manifest.release_id != release_id:
        raise IncompatibleReleaseError(f"Expected the manifest of release {release_id}, got {manifest.release_id}")
    if manifest.format_version != FORMAT_VERSION:
        raise IncompatibleReleaseError(
            f"Expected release format {FORMAT_VERSION}, got {manifest.format_version}",
            hint="Update the agent on this device.",
        )
    check_opset(manifest.opset, runtime)
    if manifest.ir_version > runtime.ir_version_max:
        raise IncompatibleReleaseError(
            f"Expected ONNX IR version <= {runtime.ir_version_max}, got {manifest.ir_version}"
        )
    if missing := {MODEL_FILE, SAMPLES_FILE, PROFILE_FILE} - manifest.files.keys():
        raise IncompatibleReleaseError(f"Expected {sorted(missing)[0]} in the manifest, got no such file")
    _check_tensors(manifest)


def _check_tensors(manifest: Manifest) -> None:
    if len(manifest.inputs) != 1 or len(manifest.outputs) != 1:
        raise IncompatibleReleaseError(
            f"Expected a model of one input and one output, got {len(manifest.inputs)} and {len(manifest.outputs)}"
        )
    for tensor in (*manifest.inputs, *manifest.outputs):
        if tensor.datatype not in DATATYPES:
            raise IncompatibleReleaseError(f"Expected {tensor.name} of type FP32, got {tensor.datatype[:40]}")
        if not tensor.shape or tensor.shape[0] != -1 or any(size < 1 for size in tensor.shape[1:]):
            raise IncompatibleReleaseError(f"Expected {tensor.name} of shape [-1, ...], got {tensor.shape[:8]}")
    if manifest.outputs[0].shape != [-1, len(manifest.classes)]:
        raise IncompatibleReleaseError(
            f"Expected outputs of shape [-1, {len(manifest.classes)}], got {manifest.outputs[0].shape[:8]}"
        )
