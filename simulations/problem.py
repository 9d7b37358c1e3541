"""What is learned in a simulation: a model, a loss for each example, and data to deal to clients."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

Losses = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""`(outputs (n, classes), labels (n,))` to each example's own loss, `(n,)`."""


def cross_entropy(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Each example's; by this very function engines know that they may use their fast paths for it."""
    return torch.nn.functional.cross_entropy(outputs, labels, reduction="none")


@dataclass(frozen=True)
class Data:
    """Examples, in memory: inputs `(n, *shape)` float32, labels `(n,)` int64."""

    inputs: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Problem:
    """One learning problem; every engine reads the same."""

    name: str
    model: Callable[[int], torch.nn.Module]
    """A fresh model from a seed. Parameters that require a gradient are trained, in the order of `named_parameters`."""
    losses: Losses
    train: Data
    """Dealt to clients by a partition."""
    test: Data
    """What every accuracy is measured on."""
    classes: int
    groups: torch.Tensor | None = None
    """Who or what each training example comes from (a person, a writer), `(n,)` int64, where the data know it."""
