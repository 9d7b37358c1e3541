"""Small models of every kind that is clipped, and the oracle: plain autograd, one unit at a time."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from opacus.layers import DPLSTM
from torch import nn
from torch.nn.functional import cross_entropy

from edge_agent.training.clipping.port import ClippingEngine
from edge_agent.training.clipping.sums import Sums
from edge_agent.training.clipping.units import Units

CLASSES = 3
VOCABULARY = 11


@dataclass(frozen=True)
class Kind:
    """A model's making, and its inputs'."""

    model: Callable[[], nn.Module]
    inputs: Callable[[int], torch.Tensor]
    opacus_knows: bool = True
    """Whether Opacus computes right gradients for it."""


class Words(nn.Module):
    """Embedding, normalisation and dense layers over sequences."""

    def __init__(self, *, padding_idx: int | None = None) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, 6, padding_idx=padding_idx)
        self.normalise = nn.LayerNorm(6)
        self.hidden = nn.Linear(6, 9)
        self.head = nn.Linear(9, CLASSES)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.hidden(self.normalise(self.words(words))))
        logits: torch.Tensor = self.head(hidden.mean(dim=1))
        return logits


class Recurrent(nn.Module):
    """Opacus' LSTM, whose cells use their weights once for each step in time."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = DPLSTM(4, 5, batch_first=True)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(sequence)
        logits: torch.Tensor = self.head(states[:, -1])
        return logits


class Scale(nn.Module):
    """A layer that nobody has a rule for."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * self.factor


def _dense() -> nn.Module:
    return nn.Sequential(nn.Linear(7, 8), nn.Tanh(), nn.Linear(8, 5, bias=False), nn.ReLU(), nn.Linear(5, CLASSES))


def _shared() -> nn.Module:
    again = nn.Linear(6, 6)
    return nn.Sequential(again, nn.Tanh(), again, nn.Tanh(), nn.Linear(6, CLASSES))


def _image() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(2, 6, 3, padding=1), nn.GroupNorm(3, 6), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 8, 3, groups=2, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32, CLASSES)),
    )


def _deep_image() -> nn.Module:
    """Three by three pixels of many channels: one example's gradient is larger than what it is made of."""
    return nn.Sequential(nn.Conv2d(20, 24, 3, padding="same"), nn.ReLU(), nn.Flatten(), nn.Linear(216, CLASSES))


def _signal() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv1d(3, 24, 5, padding="same", padding_mode="circular"), nn.ReLU()),
        *(nn.Conv1d(24, 26, 3, stride=2, dilation=2, bias=False), nn.Flatten(), nn.Linear(26 * 4, CLASSES)),
    )


def _with_others() -> nn.Module:
    return nn.Sequential(nn.Linear(7, 6), Scale(6), nn.RMSNorm(6), nn.Linear(6, CLASSES))


def _frozen_statistics() -> nn.Module:
    one, two = nn.BatchNorm2d(4), nn.BatchNorm1d(9)
    for norm in (one, two):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean += torch.randn(norm.num_features)
        norm.running_var += torch.rand(norm.num_features)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), one.eval(), nn.Flatten(), nn.Linear(16, 9), two.eval(), nn.Linear(9, CLASSES)
    )


def _words(examples: int) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (examples, 5))


KINDS = {
    "dense": Kind(_dense, lambda n: torch.randn(n, 7)),
    "in_place": Kind(
        lambda: nn.Sequential(nn.Linear(7, 8), nn.ReLU(inplace=True), nn.Linear(8, CLASSES)),
        lambda n: torch.randn(n, 7),
        opacus_knows=False,
    ),
    "shared": Kind(_shared, lambda n: torch.randn(n, 6)),
    "image": Kind(_image, lambda n: torch.randn(n, 2, 8, 8)),
    "deep_image": Kind(_deep_image, lambda n: torch.randn(n, 20, 3, 3)),
    "frozen_statistics": Kind(_frozen_statistics, lambda n: torch.randn(n, 2, 4, 4), opacus_knows=False),
    "signal": Kind(_signal, lambda n: torch.randn(n, 3, 12), opacus_knows=False),
    "words": Kind(Words, _words),
    "padded_words": Kind(lambda: Words(padding_idx=0), _words, opacus_knows=False),
    "recurrent": Kind(Recurrent, lambda n: torch.randn(n, 6, 4)),
    "others": Kind(_with_others, lambda n: torch.randn(n, 7)),
}


def made(name: str, examples: int, *, seed: int, dtype: torch.dtype) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """The model, inputs and labels."""
    torch.manual_seed(seed)
    model, inputs = KINDS[name].model().to(dtype), KINDS[name].inputs(examples)
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    return model, inputs, torch.randint(0, CLASSES, (examples,))


def sums_of(
    engine: ClippingEngine, model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, units: Units
) -> torch.Tensor:
    """What the engine finds, as one vector; the engine is closed."""
    sums = Sums([parameter for parameter in model.parameters() if parameter.requires_grad])
    engine.clipped_sums(inputs, labels, units, sums)
    engine.close()
    return sums.vector


def unit_gradients(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, units: Units) -> torch.Tensor:
    """`(units, parameters)`: each unit's average gradient, by autograd."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    losses = [cross_entropy(model(inputs[part.rows]), labels[part.rows]) for part in units.parts(1)]
    return torch.stack([torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained)]) for loss in losses])


def clipped_sum(gradients: torch.Tensor, max_grad_norm: float) -> torch.Tensor:
    """Opacus' formula, on materialised gradients."""
    factors = (max_grad_norm / (gradients.norm(dim=1) + 1e-6)).clamp(max=1.0)
    total: torch.Tensor = factors @ gradients
    return total


def relative_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm().clamp(min=1e-30))
