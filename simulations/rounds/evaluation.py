"""The shared model on the test data."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn.utils import vector_to_parameters

from cloud.aggregation.rule import Vector
from simulations.problem import Data, Problem

_EXAMPLES_AT_ONCE = 1024


@dataclass(frozen=True)
class Measured:
    """Means over the test data."""

    loss: float
    accuracy: float
    """Fraction classified right."""


class Evaluator:
    """Measures models of one problem."""

    def __init__(self, problem: Problem, device: torch.device) -> None:
        self._problem = problem
        self._device = device
        self._model = problem.model(0).eval().to(device)
        self._trained = [parameter for parameter in self._model.parameters() if parameter.requires_grad]

    def measure(self, vector: Vector, data: Data) -> Measured:
        """The model with these trained parameters, on these data."""
        sums = torch.zeros(2, dtype=torch.float64, device=self._device)
        for outputs, labels in self._outputs(vector, data):
            is_right = outputs.argmax(dim=1) == labels
            sums += torch.stack([self._problem.losses(outputs, labels).double().sum(), is_right.sum()])
        loss, right = (sums / len(data)).tolist()
        return Measured(loss, right)

    def right(self, vector: Vector, data: Data) -> torch.Tensor:
        """1 for each example that the model classifies right, 0 for others, `(n,)` float64 on the CPU."""
        found = [(outputs.argmax(dim=1) == labels).double().cpu() for outputs, labels in self._outputs(vector, data)]
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)

    @torch.inference_mode()
    def _outputs(self, vector: Vector, data: Data) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """With the labels, some examples at a time."""
        vector_to_parameters(vector, self._trained)
        for start in range(0, len(data), _EXAMPLES_AT_ONCE):
            inputs = data.inputs[start : start + _EXAMPLES_AT_ONCE].to(self._device)
            labels = data.labels[start : start + _EXAMPLES_AT_ONCE].to(self._device)
            yield self._model(inputs), labels
