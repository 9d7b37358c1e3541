"""What a round's update is: the trained parameters' new values; everything else stays as the model had it."""

import numpy as np

from shared.errors import FleetlearnError
from shared.tensors import Tensors


class MalformedUpdateError(FleetlearnError):
    """An update that does not fit the model it claims to change."""

    code = "malformed_update"


def apply_update(model: Tensors, update: Tensors) -> Tensors:
    """The full model with the update's tensors in place of its own; neither argument changes.

    Raises:
        MalformedUpdateError: A tensor the model does not have, another shape or type, NaN or infinity, or no tensor.
    """
    check_update(model, update)
    return {name: np.array(update.get(name, value)) for name, value in model.items()}


def check_update(model: Tensors, update: Tensors) -> None:
    """Passes an update that fits the model, or raises MalformedUpdateError."""
    if not update:
        raise MalformedUpdateError("Expected an update with at least one tensor, got none")
    for name, value in update.items():
        if name not in model:
            raise MalformedUpdateError(f"Expected tensors of the model, got {name[:80]!r}")
        if (value.shape, value.dtype) != (model[name].shape, model[name].dtype):
            expected = f"{model[name].dtype} {model[name].shape}"
            raise MalformedUpdateError(f"Expected {name!r} as {expected}, got {value.dtype} {value.shape}")
        if not np.isfinite(np.asarray(value, np.float64)).all():
            raise MalformedUpdateError(f"Expected finite numbers in {name!r}, got NaN or infinity")
