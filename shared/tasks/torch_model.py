"""A torch model's weights as tensors of ours, and back. The only file of `shared` that is about torch models.

Import it where torch may be imported; this file itself imports torch only inside its functions.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from shared.errors import FleetlearnError
from shared.tensors import Tensors

if TYPE_CHECKING:
    import torch


class ModelMismatchError(FleetlearnError):
    """Tensors that are not this model's: another task, another version, or damaged."""

    code = "model_mismatch"


@runtime_checkable
class TakesTensors(Protocol):
    """A model whose tensors have no fixed shapes, and which knows itself which are its own."""

    def take_tensors(self, tensors: Tensors) -> None:
        """Replaces all of them. Raises ModelMismatchError, and then the model is unchanged."""
        ...


def state_tensors(model: "torch.nn.Module") -> Tensors:
    """The model's state dict, in its order, copied to NumPy arrays."""
    return {name: value.detach().cpu().numpy().copy() for name, value in model.state_dict().items()}


def load_state(model: "torch.nn.Module", tensors: Tensors) -> None:
    """Replaces all of the model's weights. Raises ModelMismatchError, and then the model is unchanged."""
    import torch

    if isinstance(model, TakesTensors):
        model.take_tensors(tensors)
        return
    expected = {name: (tuple(value.shape), value.numpy(force=True).dtype) for name, value in model.state_dict().items()}
    if missing := sorted(expected.keys() ^ tensors.keys()):
        raise ModelMismatchError(
            f"Expected the {len(expected)} tensors of the model, got a difference in {missing[0]!r}"
        )
    for name, (shape, dtype) in expected.items():
        if (tensors[name].shape, tensors[name].dtype) != (shape, dtype):
            got = f"{tensors[name].dtype} {tensors[name].shape}"
            raise ModelMismatchError(f"Expected tensor {name!r} as {dtype} {shape}, got {got}")
        if not np.isfinite(np.asarray(tensors[name], np.float64)).all():
            raise ModelMismatchError(f"Expected finite numbers in tensor {name!r}, got NaN or infinity")
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in tensors.items()})


def trained_names(model: "torch.nn.Module", prefixes: Iterable[str]) -> tuple[str, ...]:
    """Names of the parameters that rounds train, in the model's order; no prefixes means all.

    Raises ModelMismatchError where a prefix matches nothing: then the task contradicts its own model.
    """
    names = [name for name, _ in model.named_parameters()]
    wanted = tuple(prefixes)
    for prefix in wanted:
        if not any(name.startswith(prefix) for name in names):
            raise ModelMismatchError(f"Expected a parameter that starts with {prefix!r}, got {', '.join(names)}")
    return tuple(name for name in names if not wanted or name.startswith(wanted))
