"""ONNX Runtime, as packaging uses it: the one typed place that calls it in the cloud."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.tasks.task import Inputs

Outputs = NDArray[np.float32]

_BATCH = 256


def run_model(path: Path, inputs: Inputs) -> Outputs:
    """Outputs `(n, ...)` of a model with one input and one output, on one thread, in batches.

    One thread: a packaging job shares its machine, and the order of additions stays the same from run to run.
    """
    # 30 MB and a second to import; only a packaging worker needs it here.
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    outputs = [session.run(None, {name: batch})[0] for batch in _batches(inputs)]
    return np.concatenate(outputs).astype(np.float32, copy=False)


def _batches(inputs: Inputs) -> list[Inputs]:
    return [inputs[start : start + _BATCH] for start in range(0, len(inputs), _BATCH)]
