"""How matrix products of float32 numbers are computed on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum


class Precision(StrEnum):
    """What the products of a run may lose."""

    FLOAT32 = "float32"
    """Nothing: on tensor cores, in three or six products of shorter numbers whose sum has the error of float32.

    Ootomo and Yokota 2022 (arXiv:2203.03341), for tf32; Henry, Tang and Heinecke 2019 (arXiv:1904.06376), for bf16.
    """
    IEEE = "ieee"
    """Nothing: on the ordinary arithmetic units, as a CPU does. For comparison."""
    BF16X3 = "bf16x3"
    """8 of 24 bits: three products of bf16. A hundred times more exact than tf32, and in these kernels faster."""


_used: ContextVar[Precision] = ContextVar("precision", default=Precision.FLOAT32)


@contextmanager
def using(precision: Precision) -> Iterator[None]:
    """Kernels that are launched, or captured, inside compute so."""
    token = _used.set(precision)
    try:
        yield
    finally:
        _used.reset(token)


def dot(float32: str) -> str:
    """Triton's name for the product; `float32` is the way that was measured to be the fastest for the kernel."""
    precision = _used.get()
    return float32 if precision is Precision.FLOAT32 else str(precision)
