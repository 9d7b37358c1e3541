"""Small real releases for tests: a linear ONNX model for the digits task, with samples and profile of its own."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from shared.manifests import MANIFEST_FILE, MODEL_FILE, PROFILE_FILE, SAMPLES_FILE, Manifest, TensorSchema
from shared.messages.base import ObjectRef
from shared.sketches import DriftProfile, FeatureProfile
from shared.tasks.digits import TASK
from shared.tensors import encode

PIXELS = 64
CLASSES = 10


def weights(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(PIXELS, CLASSES)).astype(np.float32)


def images(count: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((count, PIXELS), np.float32)


def write_model(path: Path, *, seed: int = 0) -> None:
    """`logits = pixels @ weights(seed)`."""
    node = helper.make_node("MatMul", ["pixels", "w"], ["logits"])
    graph = helper.make_graph(
        [node],
        "linear",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", PIXELS])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(weights(seed), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, str(path))


def profile(reference: NDArray[np.float32], *, examples_min: int = 32, threshold: float = 0.5) -> DriftProfile:
    """Deciles of the digits task's features over these images."""
    values = TASK.features(reference)
    quantiles = np.quantile(values, np.linspace(0.1, 0.9, 9), axis=0)
    return DriftProfile(
        features=[
            FeatureProfile(
                feature=name, edges=quantiles[:, column].tolist(), proportions=[0.1] * 10, threshold=threshold
            )
            for column, name in enumerate(TASK.schema.features)
        ],
        examples_min=examples_min,
        reference_examples=len(reference),
    )


def write_release(folder: Path, *, release_id: str = "digits-1", seed: int = 0) -> Manifest:
    """A whole release's files in the folder, and their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder / MODEL_FILE, seed=seed)
    inputs = images(8)
    (folder / SAMPLES_FILE).write_bytes(encode({"inputs": inputs, "outputs": inputs @ weights(seed)}))
    (folder / PROFILE_FILE).write_bytes(profile(images(500, seed=2)).encode())
    manifest = Manifest(
        release_id=release_id,
        task="digits",
        task_version="1",
        opset=21,
        ir_version=10,
        inputs=[TensorSchema(name="pixels", datatype="FP32", shape=[-1, PIXELS])],
        outputs=[TensorSchema(name="logits", datatype="FP32", shape=[-1, CLASSES])],
        classes=[str(digit) for digit in range(CLASSES)],
        files={name: _ref(folder / name) for name in (MODEL_FILE, SAMPLES_FILE, PROFILE_FILE)},
        self_test_tolerance=1e-3,
        created_at=1_000_000.0,
    )
    (folder / MANIFEST_FILE).write_bytes(manifest.encode())
    return manifest


def _ref(path: Path) -> ObjectRef:
    payload = path.read_bytes()
    return ObjectRef.model_validate({"digest": hashlib.sha256(payload).hexdigest(), "size_bytes": len(payload)})
