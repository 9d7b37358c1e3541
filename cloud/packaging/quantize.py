"""Static int8 quantization (QDQ, weights per channel), calibrated on the task's public data."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from shared.tasks.quiet import quiet
from shared.tasks.task import Inputs

CALIBRATION_EXAMPLES_MAX = 512
"""More moved neither accuracy nor ranges on the reference tasks."""

QUANTIZED = ("Conv", "Gemm", "MatMul")
"""Where the multiplications are. Normalisations stay in fp32: in int8 they were larger, slower and no better."""


def calibration_examples(public: Inputs) -> Inputs:
    """At most `CALIBRATION_EXAMPLES_MAX` of the public examples, evenly spread over them: no randomness needed."""
    count = min(len(public), CALIBRATION_EXAMPLES_MAX)
    chosen: Inputs = public[np.linspace(0, len(public) - 1, count).astype(np.int64)]
    return chosen


def quantize_int8(fp32: Path, int8: Path, *, input_name: str, calibration: Inputs) -> None:
    """Writes the int8 model beside the fp32 one; the same again where nothing multiplies, as in trees.

    Args:
        fp32: An ONNX file.
        int8: The file to write.
        input_name: Name of the model's input.
        calibration: `(n, *input_shape)`, from which ranges of activations are taken; public data only.
    """
    # onnxruntime's quantizer brings onnx along: only a packaging worker pays.
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    if not _multiplies(fp32):
        shutil.copyfile(fp32, int8)
        return
    prepared = int8.with_suffix(".prepared.onnx")
    with quiet():
        quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=False)
        quantize_static(
            str(prepared),
            str(int8),
            _reader(input_name, calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # x86 without VNNI adds u8 x s8 products in 16 bits; 7-bit weights cannot overflow there, so every
            # device computes the same.
            reduce_range=True,
            calibrate_method=CalibrationMethod.MinMax,
        )
    prepared.unlink()


def _multiplies(path: Path) -> bool:
    import onnx

    return any(node.op_type in QUANTIZED for node in onnx.load(str(path)).graph.node)


def _reader(input_name: str, calibration: Inputs) -> object:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        """Hands the quantizer one example after another."""

        def __init__(self) -> None:
            self._examples: Iterator[Inputs] = iter(np.split(calibration, len(calibration)))

        def get_next(self) -> dict[str, Inputs] | None:
            example = next(self._examples, None)
            return None if example is None else {input_name: example}

    return Reader()
