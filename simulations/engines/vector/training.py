"""Trains a share of an assignment in this process, the chosen way, and folds the updates."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from cloud.aggregation.rule import Fold
from simulations.engines.port import Assignment, Collector, LocalTraining, Trained
from simulations.engines.vector.block import Block, block_of
from simulations.engines.vector.choice import Choice, Way
from simulations.engines.vector.in_place import InPlaceKernel
from simulations.engines.vector.kernel import Kernel
from simulations.engines.vector.layers.kernel import LayersKernel
from simulations.engines.vector.layers.network import Network
from simulations.engines.vector.stacked import StackedKernel
from simulations.engines.vector.start_loss import StartLoss
from simulations.problem import Problem


class Training:
    """Makes kernels when they are first needed, and keeps them.

    Args:
        problem: What is learned.
        local: How clients train.
        network: The model's layers; None if they have no hand-written form.
    """

    def __init__(self, problem: Problem, local: LocalTraining, network: Network | None) -> None:
        self._problem, self._local, self._network = problem, local, network
        self._kernels: dict[Choice, Kernel] = {}
        self._start_loss = StartLoss(problem) if local.wants_start_loss else None

    def fold(self, assignment: Assignment, positions: torch.Tensor, collector: Collector, choice: Choice) -> Fold:
        """The fold of the clients at these positions."""
        fold = collector.begin(assignment)
        for trained in self.updates(assignment, positions, choice):
            collector.add(fold, assignment, trained)
        return fold

    def updates(self, assignment: Assignment, positions: torch.Tensor, choice: Choice) -> Iterator[Trained]:
        """Updates, block by block; the memory of one may be used again for the next."""
        steps = assignment.steps[positions]
        idle = positions[steps == 0]
        if len(idle):
            yield _unmoved(assignment, idle)
        order = steps.argsort(descending=True, stable=True)[: len(positions) - len(idle)]
        blocks = -(-len(order) // choice.chunk)  # of nearly one size: a small last one would cost as much
        for together in torch.tensor_split(positions[order], blocks) if blocks else ():
            yield from self._block(block_of(assignment, together), choice)

    def _block(self, block: Block, choice: Choice) -> Iterator[Trained]:
        start_losses = None if self._start_loss is None else self._start_loss.of(block)
        done = 0
        for trained in self._kernel(choice).train(block):
            if start_losses is not None:
                trained = replace(trained, start_losses=start_losses[done : done + len(trained.positions)])
            done += len(trained.positions)
            yield trained

    def _kernel(self, choice: Choice) -> Kernel:
        choice = replace(choice, chunk=0)  # the same kernel takes any number
        if choice not in self._kernels:
            self._kernels[choice] = self._made(choice)
        return self._kernels[choice]

    def _made(self, choice: Choice) -> Kernel:
        match choice.way:
            case Way.LAYERS:
                assert self._network is not None
                assert choice.form is not None
                return LayersKernel(self._problem, self._local, self._network, choice.form)
            case Way.STACKED:
                return StackedKernel(self._problem, self._local)
            case Way.IN_PLACE:
                return InPlaceKernel(self._problem, self._local)


def _unmoved(assignment: Assignment, idle: torch.Tensor) -> Trained:
    """Clients that take no step."""
    nothing = torch.zeros(len(idle), dtype=torch.float64)
    deltas = torch.zeros(len(idle), assignment.start.shape[-1])
    return Trained(idle, deltas, losses=nothing, start_losses=torch.full_like(nothing, float("nan")))
