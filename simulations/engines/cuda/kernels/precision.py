"""How matrix products of float32 numbers are computed on a GPU."""

import os
from enum import StrEnum


class Precision(StrEnum):
    """The value is Triton's name for it."""

    FLOAT32 = "ieee"
    """On the ordinary arithmetic units: 67 TFLOP/s on an H100."""
    FLOAT32_TENSOR = "tf32x3"
    """Three products of tensor cores for one, the error of float32 (Ootomo and Yokota 2022, arXiv:2203.03341)."""
    TF32 = "tf32"
    """One product of tensor cores: 10 bits of mantissa. Other numbers than the reference's, in the third digit."""


def chosen() -> Precision:
    """What `FLEETLEARN_CUDA_PRECISION` says, or float32 by tensor cores."""
    return Precision(os.environ.get("FLEETLEARN_CUDA_PRECISION", Precision.FLOAT32_TENSOR))
