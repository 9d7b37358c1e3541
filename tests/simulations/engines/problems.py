"""Small problems on which engines are compared, and a collector that keeps every row."""

from collections.abc import Callable

import torch
from torch import nn

from cloud.aggregation.rule import Fold
from simulations.engines.port import Assignment, Trained
from simulations.problem import Data, Problem, cross_entropy

EXAMPLES = 60
CLASSES = 3


class FrozenBatchNorm(nn.BatchNorm2d):
    """Stays in evaluation mode, as fine-tuning recipes have it; a subclass has no hand-written form."""

    def train(self, mode: bool = True) -> "FrozenBatchNorm":
        super().train(False)
        return self


class Residual(nn.Module):
    """Not a chain: only general ways compute it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 12), nn.Linear(12, CLASSES)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = inputs.flatten(1)
        outputs: torch.Tensor = self.second(hidden + torch.tanh(self.first(hidden)))
        return outputs


def dense() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 5, bias=False), nn.Tanh(), nn.Linear(5, CLASSES)
    )


def convolutional() -> nn.Module:
    """Strides, paddings and channels that do not divide each other; GroupNorm before and after flattening."""
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.GroupNorm(3, 6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 4, (3, 2), stride=(1, 2), bias=False),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(8, 6),
        nn.GroupNorm(2, 6),
        nn.ReLU(),
        nn.Linear(6, CLASSES),
    )


def sensor() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 5, 3, stride=2, padding=2, dilation=2),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Flatten(),
        nn.Linear(20, CLASSES),
    )


def dropping() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(64, 7),
        nn.Dropout(0.5),
        nn.Linear(7, CLASSES),
    )


def frozen_statistics() -> nn.Module:
    norm = FrozenBatchNorm(4)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean += torch.randn(4)
    norm.running_var += torch.rand(4)
    return nn.Sequential(nn.Conv2d(2, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, CLASSES))


def partly_frozen() -> nn.Module:
    model = dense()
    for parameter in model[1].parameters():  # type: ignore[index]  # it is a Sequential
        parameter.requires_grad_(False)
    return model


SHAPES: dict[Callable[[], nn.Module], tuple[int, ...]] = {
    dense: (3, 4),
    convolutional: (2, 6, 10),
    sensor: (2, 16),
    dropping: (2, 6, 6),
    frozen_statistics: (2, 6, 6),
    partly_frozen: (12,),
    Residual: (3, 4),
}


def problem(build: Callable[[], nn.Module]) -> Problem:
    def model(seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build()

    generator = torch.Generator().manual_seed(5)
    data = Data(
        torch.randn(EXAMPLES, *SHAPES[build], generator=generator),
        torch.randint(CLASSES, (EXAMPLES,), generator=generator),
    )
    return Problem(build.__name__, model, cross_entropy, data, data, CLASSES)


def start_of(problem: Problem) -> torch.Tensor:
    trained = [each.detach().flatten() for each in problem.model(3).parameters() if each.requires_grad]
    return torch.cat(trained)


def uneven(start: torch.Tensor) -> Assignment:
    """Seven clients: steps from 0 to 4, batches of 1 to 5, one with a single example."""
    generator = torch.Generator().manual_seed(7)
    steps = torch.tensor([2, 4, 1, 0, 3, 1, 4])
    batches = torch.randint(EXAMPLES, (7, 4, 5), generator=generator)
    for client, count in enumerate(steps.tolist()):
        batches[client, count:] = -1
    batches[0, 1, 2:] = batches[4, 2, 3:] = batches[1, 3, 1:] = -1
    batches[5, 0, 1:] = -1
    return Assignment(torch.arange(7) + 10, batches, steps, start, seeds=torch.arange(7) * 31 + 4)


class Rows:
    """Keeps every update, and counts how often each was added."""

    def begin(self, assignment: Assignment) -> Fold:
        clients, parameters = len(assignment), assignment.start.shape[-1]
        return {
            "deltas": torch.zeros(clients, parameters),
            "losses": torch.zeros(clients, dtype=torch.float64),
            "start_losses": torch.zeros(clients, dtype=torch.float64),
            "times": torch.zeros(clients),
        }

    def add(self, fold: Fold, assignment: Assignment, trained: Trained) -> None:
        fold["deltas"][trained.positions] += trained.deltas
        fold["losses"][trained.positions] += trained.losses
        fold["start_losses"][trained.positions] += trained.start_losses
        fold["times"][trained.positions] += 1
