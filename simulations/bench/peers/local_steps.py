"""One client's training as people write it: torch's optimizer, and Opacus' per-sample gradients where it is private."""

from typing import Any

import torch

from simulations.problem import Problem
from simulations.workloads.suite import Workload


def train_client(model: torch.nn.Module, load: Workload, problem: Problem, client: int) -> None:
    """Trains the model in place on the client's examples, in their order."""
    optimizer = torch.optim.SGD(model.parameters(), lr=load.local.optimizer.learning_rate)
    wrapped: Any  # a module, or Opacus' wrapper of it
    wrapped, optimizer = _private(model, optimizer, load) if load.local.privacy else (model, optimizer)
    first, data = client * load.examples, problem.train
    wrapped.train()
    for offset in range(0, load.examples, load.batch):
        rows = slice(first + offset, first + min(offset + load.batch, load.examples))
        optimizer.zero_grad()
        problem.losses(wrapped(data.inputs[rows]), data.labels[rows]).mean().backward()  # type: ignore[no-untyped-call]  # torch
        optimizer.step()
    if load.local.privacy:
        wrapped.remove_hooks()


def accuracy(model: torch.nn.Module, problem: Problem) -> float:
    """The share of test examples that the model names right."""
    model.eval()
    with torch.no_grad():
        named = model(problem.test.inputs).argmax(dim=1)
    return float((named == problem.test.labels).float().mean())


def _private(model: torch.nn.Module, optimizer: torch.optim.Optimizer, load: Workload) -> Any:  # Opacus has no types
    # Opacus is a third of a second to import, and most workloads do without it.
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    privacy = load.local.privacy
    assert privacy is not None
    private = DPOptimizer(
        optimizer,
        noise_multiplier=privacy.noise_multiplier,
        max_grad_norm=privacy.max_grad_norm,
        expected_batch_size=privacy.expected_batch,
    )
    return GradSampleModule(model), private
