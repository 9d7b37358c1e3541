"""A release's model, loaded into ONNX Runtime with one thread, and the self-test before it may serve.

ONNX Runtime is imported inside the functions: it costs 30 MB, and only `agent run` pays for it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_agent.releases.errors import SelfTestFailedError
from edge_agent.serving.errors import InferenceFailedError
from edge_agent.serving.protocol import ServedSchema
from shared.manifests import MODEL_FILE, PROFILE_FILE, SAMPLES_FILE, Manifest
from shared.messages.base import MalformedMessageError
from shared.sketches import DriftProfile
from shared.tasks.task import Inputs
from shared.tensors import MalformedTensorsError, decode

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Outputs = NDArray[np.float32]
_TOGETHER_MAX = 8


class Model:
    """A loaded model; `run` may be called from several threads at once."""

    def __init__(self, session: "InferenceSession", schema: ServedSchema) -> None:
        self.schema = schema
        self._session = session
        self._output_names = [schema.output.name]
        self.is_batchable = False
        """Whether an example's output is the same whatever examples run with it; `load` finds out."""

    def run(self, inputs: Inputs) -> Outputs:
        """Outputs `(n, ...)` of inputs `(n, *shape)`. Raises InferenceFailedError."""
        try:
            outputs: Outputs = self._session.run(self._output_names, {self.schema.input.name: inputs})[0]
        # ONNX Runtime raises a dozen classes of its own that share no base below Exception.
        except Exception as error:
            raise InferenceFailedError(f"Expected outputs from the model, got {type(error).__name__}") from error
        return outputs


@dataclass(frozen=True)
class LoadedRelease:
    """All that serving needs of one release, swapped as one value."""

    release_id: str
    manifest: Manifest
    model: Model
    profile: DriftProfile


def load(folder: Path, manifest: Manifest) -> LoadedRelease:
    """Loads a release's verified files, ready to serve. Raises SelfTestFailedError."""
    try:
        profile = DriftProfile.parse((folder / PROFILE_FILE).read_bytes())
    except (OSError, MalformedMessageError) as error:
        raise SelfTestFailedError(f"Expected a drift profile in release {manifest.release_id}: {error}") from error
    model = open_model(folder / MODEL_FILE, manifest)
    model.is_batchable = _is_batchable(model, folder / SAMPLES_FILE)
    return LoadedRelease(manifest.release_id, manifest, model, profile)


def open_model(path: Path, manifest: Manifest) -> Model:
    """The model in this file, checked against the manifest's schema. Raises SelfTestFailedError."""
    schema = _checked_schema(manifest)
    try:
        session = _open_session(path)
    except Exception as error:  # ONNX Runtime's classes share no base below Exception
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise SelfTestFailedError(f"Expected a model that this runtime can load, got: {reason}") from error
    named = ({i.name for i in session.get_inputs()}, {o.name for o in session.get_outputs()})
    if named[0] != {schema.input.name} or schema.output.name not in named[1]:
        raise SelfTestFailedError(
            f"Expected a model from {schema.input.name!r} to {schema.output.name!r}, got {sorted(named[0])} to "
            f"{sorted(named[1])}"
        )
    return Model(session, schema)


def self_test(folder: Path, manifest: Manifest) -> None:
    """Returns when the model gives the recorded outputs on the release's own samples. Raises SelfTestFailedError."""
    inputs, expected = _samples(folder / SAMPLES_FILE)
    model = open_model(folder / MODEL_FILE, manifest)
    try:
        actual = model.run(inputs)
    except InferenceFailedError as error:
        raise SelfTestFailedError(f"Expected the model to run on the release's samples: {error.message}") from error
    if actual.shape != expected.shape:
        raise SelfTestFailedError(f"Expected outputs of shape {expected.shape}, got {actual.shape}")
    difference = _relative_difference(actual, expected)
    if not difference <= manifest.self_test_tolerance:
        raise SelfTestFailedError(
            f"Expected outputs within {manifest.self_test_tolerance:g} of the recorded ones, got {difference:g} away",
            hint="This device's runtime computes something else than the packaging machine's.",
        )


def runtime_version() -> str:
    """ONNX Runtime's version."""
    import onnxruntime

    return str(onnxruntime.__version__)


def _is_batchable(model: Model, samples: Path) -> bool:
    """Whether the release's samples give alone what they give together, bit for bit.

    Some do not: dynamic quantization scales by the largest number of the whole batch, and then what one client is
    answered would depend on what another one asks.
    """
    inputs = _samples(samples)[0][:_TOGETHER_MAX]
    try:
        together = model.run(inputs)
        return all(np.array_equal(model.run(inputs[i : i + 1])[0], together[i]) for i in range(len(inputs)))
    except InferenceFailedError:
        return False


def _relative_difference(actual: Outputs, expected: Outputs) -> float:
    """Largest difference, relative to the largest expected output; NaN where either has one."""
    scale = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    return float(np.abs(actual - expected).max()) / scale


def _samples(path: Path) -> tuple[Inputs, Outputs]:
    try:
        tensors = decode(path.read_bytes())
        inputs, outputs = tensors["inputs"], tensors["outputs"]
    except (OSError, MalformedTensorsError, KeyError) as error:
        raise SelfTestFailedError(f"Expected samples with 'inputs' and 'outputs' in the release: {error}") from error
    if len(inputs) == 0 or len(inputs) != len(outputs):
        raise SelfTestFailedError(f"Expected as many inputs as outputs, got {len(inputs)} and {len(outputs)}")
    return inputs.astype(np.float32, copy=False), outputs.astype(np.float32, copy=False)


def _checked_schema(manifest: Manifest) -> ServedSchema:
    tensors = [*manifest.inputs, *manifest.outputs]
    if len(manifest.inputs) != 1 or len(manifest.outputs) != 1 or any(t.datatype != "FP32" for t in tensors):
        raise SelfTestFailedError("Expected a manifest with one FP32 input and one FP32 output, got another schema")
    return ServedSchema.of(manifest)


def _open_session(path: Path) -> "InferenceSession":
    # 30 MB: only a serving agent pays for it.
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # an arena keeps its largest batch for ever
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
