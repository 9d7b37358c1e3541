"""Named arrays as bytes and back: safetensors, sorted by name, so that equal tensors are equal bytes."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from shared.errors import FleetlearnError

Array = NDArray[np.generic]
Tensors = dict[str, Array]
"""Arrays by name, in the order of the model's `state_dict` when they are one."""


class MalformedTensorsError(FleetlearnError):
    """Bytes that are not a safetensors file."""

    code = "malformed_tensors"


def encode(tensors: Mapping[str, Array]) -> bytes:
    """The tensors as one safetensors file."""
    return save({name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)})


def decode(payload: bytes) -> Tensors:
    """The tensors of a safetensors file, by sorted name. Raises MalformedTensorsError."""
    try:
        tensors = load(payload)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise MalformedTensorsError(f"Expected a safetensors file, got {len(payload)} other bytes: {error}") from error
    return {name: tensors[name] for name in sorted(tensors)}
