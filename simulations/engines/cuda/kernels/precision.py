"""How matrix products of float32 numbers are computed on a GPU."""

import os
from enum import StrEnum


class Precision(StrEnum):
    """What the products of a run may lose."""

    FLOAT32 = "float32"
    """Nothing: on tensor cores, in three or six products of shorter numbers whose sum has the error of float32.

    Ootomo and Yokota 2022 (arXiv:2203.03341), for tf32; Henry, Tang and Heinecke 2019 (arXiv:1904.06376), for bf16.
    """
    IEEE = "ieee"
    """Nothing: on the ordinary arithmetic units, as a CPU does. For comparison."""
    TF32 = "tf32"
    """13 bits: one product on tensor cores. Other numbers than the reference's, from the third digit on."""


def chosen() -> Precision:
    """What `FLEETLEARN_CUDA_PRECISION` says; float32 unless it does."""
    return Precision(os.environ.get("FLEETLEARN_CUDA_PRECISION", Precision.FLOAT32))


def dot(float32: str) -> str:
    """Triton's name for the product; `float32` is the way that was measured to be the fastest for the kernel."""
    precision = chosen()
    return float32 if precision is Precision.FLOAT32 else str(precision)
