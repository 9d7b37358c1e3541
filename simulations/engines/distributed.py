"""A cohort shared among processes, one for each GPU, that torchrun started: each trains a share, the folds are added.

Every process makes the same decisions from the same seeds, so nothing is sent before training; after it, one
all-reduce of the fold, whose size is the model's and not the cohort's. All processes then hold the same next model.

    torch.distributed.init_process_group("cpu:gloo,cuda:nccl")
    engine = DistributedEngine(CudaEngine(problem, local))
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import distributed

from cloud.aggregation.rule import Fold
from simulations.engines.port import Assignment, Collector, Engine, Trained
from simulations.engines.shares import shares


class DistributedEngine:
    """Trains this process's share of every cohort.

    Args:
        inner: Trains the share, on this process's own device.
        group: The processes; the default group unless given.
    """

    def __init__(self, inner: Engine, group: distributed.ProcessGroup | None = None) -> None:
        self._inner, self._group = inner, group
        self._rank, self._processes = distributed.get_rank(group), distributed.get_world_size(group)

    @property
    def device(self) -> torch.device:
        """Where models are: the inner engine's."""
        device: torch.device = getattr(self._inner, "device", torch.device("cpu"))
        return device

    @property
    def notes(self) -> Sequence[str]:
        return [*self._inner.notes, f"The cohort is shared among {self._processes} processes."]

    def train(self, assignment: Assignment, collector: Collector) -> Fold:
        own = shares(assignment.steps, self._processes)[self._rank]
        # A process without a client still adds its zeros: the sum waits for everybody.
        fold = self._train(assignment, own, collector) if len(own) else collector.begin(assignment)
        for name in sorted(fold):
            fold[name] = self._added_up(fold[name])
        return fold

    def close(self) -> None:
        self._inner.close()

    def _train(self, assignment: Assignment, own: torch.Tensor, collector: Collector) -> Fold:
        return self._inner.train(_rows(assignment, own), _OfShare(collector, assignment, own))

    def _added_up(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over processes, where the value lay."""
        is_nccl = distributed.get_backend(self._group) == "nccl"
        moved = value.cuda() if is_nccl and not value.is_cuda else value.contiguous()
        distributed.all_reduce(moved, group=self._group)
        return moved.to(value.device)


@dataclass(frozen=True)
class _OfShare(Collector):
    """Collects a share as the whole cohort's collector would, under the positions of the whole."""

    whole: Collector
    assignment: Assignment
    own: torch.Tensor

    def begin(self, assignment: Assignment) -> Fold:
        start = assignment.start if assignment.start.dim() == 1 else self.assignment.start.to(assignment.start.device)
        return self.whole.begin(replace(self.assignment, start=start))

    def add(self, fold: Fold, assignment: Assignment, trained: Trained) -> None:
        self.whole.add(fold, self.assignment, replace(trained, positions=self.own[trained.positions]))


def _rows(assignment: Assignment, own: torch.Tensor) -> Assignment:
    """These rows of the assignment."""
    start, linear = assignment.start, assignment.linear
    return Assignment(
        clients=assignment.clients[own],
        batches=assignment.batches[own],
        steps=assignment.steps[own],
        start=start if start.dim() == 1 else start[own.to(start.device)],
        learning_rate_factor=assignment.learning_rate_factor,
        linear=linear if linear is None or linear.dim() == 1 else linear[own.to(linear.device)],
        seeds=assignment.seeds[own] if len(assignment.seeds) else assignment.seeds,
    )
