"""Vectors that travel beside a model or an update, in the same file: SCAFFOLD's controls, for one.

Flat float32 vectors, `(parameters,)` in the order of the trained parameters, under names that no parameter has.
"""

from collections.abc import Mapping

import numpy as np

from shared.tensors import Array, Tensors

_PREFIX = "beside/"


def put_beside(tensors: Tensors, vectors: Mapping[str, Array]) -> Tensors:
    """The tensors and the vectors, ready to be encoded together."""
    return {**tensors, **{f"{_PREFIX}{name}": np.asarray(vector, np.float32) for name, vector in vectors.items()}}


def take_beside(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """What was put together, apart again: the tensors, and the vectors by their names."""
    vectors = {name.removeprefix(_PREFIX): value for name, value in tensors.items() if name.startswith(_PREFIX)}
    return {name: value for name, value in tensors.items() if not name.startswith(_PREFIX)}, vectors
