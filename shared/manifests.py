"""The release manifest: what a release is, where it came from, and what a device needs to run it.

A release is four files, each a TUF target under `releases/<release_id>/`: `manifest.json`, `model.onnx`,
`samples.safetensors` (self-test: `inputs`, and the `outputs` the packaged model gave) and `profile.json`
(the drift reference profile). The manifest names the other three by digest, and TUF names all four.
"""

from typing import Any

from pydantic import Field

from shared.messages.base import Message, ObjectRef

MODEL_FILE = "model.onnx"
SAMPLES_FILE = "samples.safetensors"
PROFILE_FILE = "profile.json"
MANIFEST_FILE = "manifest.json"
RELEASE_FILES = (MANIFEST_FILE, MODEL_FILE, SAMPLES_FILE, PROFILE_FILE)
SIGNED_AT_FIELD = "x-fleetlearn-signed-at"
"""In the TUF timestamp: when it was signed, in whole seconds since the epoch; devices without a clock use it."""
MANIFEST_BYTES_MAX = 1_000_000


def target_path(release_id: str, file_name: str) -> str:
    """The TUF target path of one file of a release."""
    return f"releases/{release_id}/{file_name}"


class TensorSchema(Message):
    """One input or output of the model. The first dimension is the batch."""

    name: str
    datatype: str
    """As the Open Inference Protocol v2 names it: `FP32`."""
    shape: list[int]
    """-1 for the batch dimension."""


class Manifest(Message):
    """What the device checks before it serves, and what an auditor reads years later."""

    release_id: str
    format_version: int = 1
    task: str
    task_version: str
    opset: int
    ir_version: int
    inputs: list[TensorSchema]
    outputs: list[TensorSchema]
    classes: list[str]
    files: dict[str, ObjectRef]
    """`model.onnx`, `samples.safetensors`, `profile.json`."""
    self_test_tolerance: float = Field(gt=0)
    """Largest difference from the recorded outputs a device may show, relative to the largest output."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """`fp32_validation_accuracy`, `int8_validation_accuracy`, `int8_unseen_accuracy`, `parity_max_difference`,
    `fp32_bytes`, `int8_bytes` ..."""
    lineage: dict[str, Any] = Field(default_factory=dict)
    """`Any`: JSON. Data, rounds, privacy, code version, parent model versions."""
    created_at: float
