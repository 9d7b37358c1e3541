"""Where each named tensor lies in one flat vector: strategies, compression and simulation work on vectors.

Frameworks stay outside: `split` takes NumPy arrays and torch tensors alike, stacked along leading dimensions or not.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from shared.tensors import Tensors

# Anything that slices and reshapes: NumPy arrays and torch tensors have no common base class.
VectorT = TypeVar("VectorT", bound=Any)


@dataclass(frozen=True)
class Layout:
    """Names and shapes, in the order in which they lie in the vector.

    Example:
        >>> layout = Layout(("w", "b"), ((2, 3), (3,)))
        >>> layout.size, {name: part.shape for name, part in layout.split(np.zeros((5, 9))).items()}
        (9, {'w': (5, 2, 3), 'b': (5, 3)})
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tensors: Mapping[str, Any]) -> "Layout":
        """The layout of these tensors, in their order; `Any`: whatever has a shape."""
        return cls(tuple(tensors), tuple(tuple(value.shape) for value in tensors.values()))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers in each tensor."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def size(self) -> int:
        """Numbers in the vector."""
        return sum(self.sizes)

    @property
    def slices(self) -> dict[str, slice]:
        """Where each tensor lies."""
        ends = np.cumsum((0, *self.sizes)).tolist()
        return {name: slice(start, end) for name, start, end in zip(self.names, ends, ends[1:], strict=False)}

    def split(self, vector: VectorT) -> dict[str, VectorT]:
        """The tensors as views of the vector; `(..., size)` gives `(..., *shape)`."""
        return {
            name: vector[..., part].reshape((*vector.shape[:-1], *shape))
            for (name, part), shape in zip(self.slices.items(), self.shapes, strict=True)
        }

    def flatten(self, tensors: Tensors) -> NDArray[np.float32]:
        """One float32 vector, `(size,)`, of these tensors' numbers; others are left out."""
        return np.concatenate([np.asarray(tensors[name], np.float32).reshape(-1) for name in self.names])
