"""The gates between a model version and a release. They decide on validation data, never on unseen data."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cloud.packaging.errors import AccuracyLossError, NotFiniteError, ParityError
from cloud.packaging.runtime import Outputs, run_model
from shared.tasks.task import Examples, Inputs, Tolerance

if TYPE_CHECKING:
    import torch


def check_parity(model: "torch.nn.Module", onnx_file: Path, inputs: Inputs, *, tolerance: Tolerance) -> float:
    """Largest difference of ONNX outputs from torch's, relative to the largest output. Raises ParityError."""
    import torch

    with torch.no_grad():
        expected: Outputs = model(torch.from_numpy(inputs)).numpy()
    difference = relative_difference(run_model(onnx_file, inputs), expected)
    if not difference <= tolerance.parity_max:
        raise ParityError(difference=difference, difference_max=tolerance.parity_max)
    return difference


def check_accuracy_loss(*, fp32_accuracy: float, int8_accuracy: float, tolerance: Tolerance) -> None:
    """Returns if int8 is good enough on validation data. Raises AccuracyLossError with both figures."""
    if not fp32_accuracy - int8_accuracy <= tolerance.accuracy_loss_max:
        raise AccuracyLossError(
            fp32_accuracy=fp32_accuracy, int8_accuracy=int8_accuracy, loss_max=tolerance.accuracy_loss_max
        )


def check_finite(metrics: Mapping[str, float]) -> None:
    """Returns if JSON can say every metric. Raises NotFiniteError, which names the first that it cannot."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise NotFiniteError(name=name, value=value)


def accuracy(onnx_file: Path, examples: Examples) -> float:
    """Share of examples whose largest output is their label."""
    outputs = run_model(onnx_file, examples.inputs)
    return float(np.mean(outputs.argmax(axis=1) == examples.labels))


def relative_difference(actual: Outputs, expected: Outputs) -> float:
    """Largest difference, relative to the largest expected output; NaN or infinity where either has one."""
    scale = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    return float(np.abs(actual - expected).max()) / scale
