"""Small problems and rounds on which engines are compared."""

import torch
from torch import nn
from torch.nn import functional

from cloud.aggregation.rule import Fold
from shared.layout import Layout
from simulations.engines.port import Assignment, Collector, Engine, LocalTraining, Trained
from simulations.engines.reference import ReferenceEngine
from simulations.problem import Data, Problem

EXAMPLES = 60
CLASSES = 4


def dense_net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Linear(12, CLASSES))


def image_net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Conv2d(4, 5, 2, stride=1, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(20, CLASSES),
    )


def signal_net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(2), nn.Conv1d(1, 4, 5, stride=2, padding=2), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(),
        nn.Linear(36, CLASSES), nn.ReLU(),
    )  # fmt: skip


def dropout_net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, CLASSES), nn.Dropout(0.1)
    )


class Residual(nn.Module):
    """No chain: its input goes round its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(36, 36)
        self.norm = nn.GroupNorm(4, 36)
        self.outer = nn.Linear(36, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        y: torch.Tensor = self.outer(x + self.norm(self.inner(x)).tanh())
        return y


def residual_net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return Residual()


def problem(model: object = dense_net, *, seed: int = 0) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (EXAMPLES,), generator=generator)
    data = Data(torch.randn(EXAMPLES, 1, 6, 6, generator=generator), labels)
    losses = lambda outputs, labels: functional.cross_entropy(outputs, labels, reduction="none")  # noqa: E731
    return Problem("small", model, losses, data, data, CLASSES)  # type: ignore[arg-type]  # one of the functions above


def layout(of: Problem) -> Layout:
    return Layout.of(dict(of.model(0).named_parameters()))


def start(of: Problem, *, seed: int = 0) -> torch.Tensor:
    return nn.utils.parameters_to_vector(of.model(seed).parameters()).detach()


def unequal_round(of: Problem, *, seed: int = 0, empty_steps: bool = False) -> Assignment:
    """Five clients of 1 to 4 steps, whose batches hold 1 to 6 examples."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.tensor([2, 4, 1, 4, 3])
    batches = torch.full((5, 4, 6), -1)
    for client, count in enumerate(steps.tolist()):
        for step in range(count):
            size = int(torch.randint(0 if empty_steps else 1, 7, (), generator=generator))
            batches[client, step, :size] = torch.randint(EXAMPLES, (size,), generator=generator)
    return Assignment(torch.arange(5) + 7, batches, steps, start(of), seeds=torch.arange(5) + 100)


class Rows(Collector):
    """Keeps every update and loss."""

    def begin(self, assignment: Assignment) -> Fold:
        clients, parameters = len(assignment), assignment.start.shape[-1]
        home = assignment.start.device
        return {
            "deltas": torch.full((clients, parameters), float("inf"), device=home),
            "losses": torch.zeros(clients, dtype=torch.float64, device=home),
            "start_losses": torch.zeros(clients, dtype=torch.float64, device=home),
        }

    def add(self, fold: Fold, assignment: Assignment, trained: Trained) -> None:
        fold["deltas"][trained.positions] = trained.deltas
        fold["losses"][trained.positions] = trained.losses
        fold["start_losses"][trained.positions] = trained.start_losses.to(fold["start_losses"].device)


def reference(of: Problem, local: LocalTraining, assignment: Assignment) -> Fold:
    return ReferenceEngine(of, local).train(assignment, Rows())


def assert_same(engine: Engine, expected: Fold, assignment: Assignment, *, tolerance: float = 5e-5) -> None:
    """All updates within `tolerance` of the largest change; losses to as many digits."""
    found = engine.train(assignment, Rows())
    scale = float(expected["deltas"].abs().max())
    torch.testing.assert_close(found["deltas"], expected["deltas"], rtol=0, atol=tolerance * scale)
    torch.testing.assert_close(found["losses"], expected["losses"], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(found["start_losses"], expected["start_losses"], rtol=1e-5, atol=1e-5, equal_nan=True)
