"""Segments of different lengths, one after the other in one array: a cohort is handled without Python per client."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def within(sizes: Ints) -> Ints:
    """0, 1, ... for each segment of these sizes."""
    places: Ints = np.arange(sizes.sum()) - np.repeat(starts(sizes), sizes)
    return places


def starts(sizes: Ints) -> Ints:
    """Where each segment starts."""
    first: Ints = np.cumsum(sizes) - sizes
    return first
