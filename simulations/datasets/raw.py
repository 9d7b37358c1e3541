"""Data before they have a model."""

from dataclasses import dataclass

import torch

from simulations.problem import Data


@dataclass(frozen=True)
class Raw:
    """What a source gives."""

    name: str
    train: Data
    test: Data
    classes: int
    groups: torch.Tensor | None = None
    """Who or what each training example comes from, `(n,)` int64 from 0."""
