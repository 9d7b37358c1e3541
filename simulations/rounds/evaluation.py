"""The shared model on the test data."""

from dataclasses import dataclass

import torch
from torch.nn.utils import vector_to_parameters

from cloud.aggregation.rule import Vector
from simulations.problem import Problem

_EXAMPLES_AT_ONCE = 1024


@dataclass(frozen=True)
class Measured:
    """Means over the test data."""

    loss: float
    accuracy: float
    """Fraction classified right."""


class Evaluator:
    """Measures models of one problem."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._model = problem.model(0).eval()
        self._trained = [parameter for parameter in self._model.parameters() if parameter.requires_grad]

    def measure(self, vector: Vector) -> Measured:
        """The model with these trained parameters."""
        vector_to_parameters(vector, self._trained)
        test, losses, right = self._problem.test, 0.0, 0
        with torch.inference_mode():
            for start in range(0, len(test), _EXAMPLES_AT_ONCE):
                labels = test.labels[start : start + _EXAMPLES_AT_ONCE]
                outputs = self._model(test.inputs[start : start + _EXAMPLES_AT_ONCE])
                losses += float(self._problem.losses(outputs, labels).double().sum())
                right += int((outputs.argmax(dim=1) == labels).sum())
        return Measured(losses / len(test), right / len(test))
