"""Any model: clients one after another, torch's own autograd, the parameters of one model overwritten in place."""

from collections.abc import Iterator

import torch

from edge_agent.training.clipping.chooser import choose_engine
from edge_agent.training.clipping.errors import UnclippableModelError
from edge_agent.training.clipping.sums import Sums
from edge_agent.training.clipping.units import Units
from simulations.engines.errors import UnsupportedModelError
from simulations.engines.port import ExamplePrivacy, LocalTraining, Trained
from simulations.engines.vector.block import Block
from simulations.engines.vector.update import Update
from simulations.problem import Problem


class InPlaceKernel:
    """Draws what the reference draws, but for dropout in private steps: each client seeds torch's own generator.

    Args:
        problem: What is learned.
        local: How clients train.

    Raises:
        UnsupportedModelError: Devices cannot clip its gradients either.
    """

    def __init__(self, problem: Problem, local: LocalTraining) -> None:
        self._problem, self._local = problem, local
        self._model = problem.model(0).train()
        named = [(name, each) for name, each in self._model.named_parameters() if each.requires_grad]
        self._names, self._parameters = [name for name, _ in named], [each for _, each in named]
        self._sizes = [parameter.numel() for parameter in self._parameters]
        privacy = local.privacy
        self._clipping = None if privacy is None else _Clipping(problem, self._model, privacy.max_grad_norm)

    def train(self, block: Block) -> Iterator[Trained]:
        with torch.random.fork_rng(devices=[]):
            for client in range(block.clients):
                yield self._trained(block.part(client))

    def _trained(self, alone: Block) -> Trained:
        start = alone.start.reshape(-1)
        values = [parameter.detach()[None] for parameter in self._parameters]
        for value, part in zip(values, self._parts(start), strict=True):
            value.copy_(part)
        updates: dict[tuple[int, ...], Update] = {}
        torch.manual_seed(alone.seeds[0])
        losses, steps = 0.0, int(alone.steps[0])
        for step in range(steps):
            rows = alone.rows[0, step][alone.is_real[0, step] > 0]
            gradients, loss = self._gradients(rows)
            moving = self._moving(step, steps)
            update = updates.get(moving) or updates.setdefault(moving, self._update(alone, moving))
            update.step([values[place] for place in moving], [gradients[place][None] for place in moving], active=1)
            losses += loss
        return Trained(
            alone.positions,
            torch.cat([value.flatten() for value in values])[None] - start,
            torch.tensor([losses / max(1, int(alone.steps[0]))], dtype=torch.float64),
            torch.full((1,), float("nan"), dtype=torch.float64),
        )

    def _moving(self, step: int, steps: int) -> tuple[int, ...]:
        """Places of the parameters that this step moves."""
        alternation = self._local.alternation
        if alternation is None:
            return tuple(range(len(self._names)))
        return alternation.moving(self._names, alternation.turn(step, steps=steps))

    def _update(self, alone: Block, moving: tuple[int, ...]) -> Update:
        """The optimizer of these parameters alone: what takes turns has momentum and a count of its own."""
        start = self._parts(alone.start.reshape(-1))
        linear = None if alone.linear is None else self._parts(alone.linear.reshape(-1))
        return Update(
            self._local,
            factor=alone.learning_rate_factor,
            start=[start[place] for place in moving],
            linear=None if linear is None else [linear[place] for place in moving],
        )

    def _parts(self, vector: torch.Tensor) -> list[torch.Tensor]:
        parts = torch.split(vector, self._sizes)
        return [part.view(parameter.shape)[None] for part, parameter in zip(parts, self._parameters, strict=True)]

    def _gradients(self, rows: torch.Tensor) -> tuple[list[torch.Tensor], float]:
        """The gradients of one step, and the batch's mean loss before it."""
        inputs, labels = self._problem.train.inputs[rows], self._problem.train.labels[rows]
        if self._local.privacy is not None:
            return self._private_gradients(inputs, labels, self._local.privacy)
        loss = self._problem.losses(self._model(inputs), labels).mean()
        return list(torch.autograd.grad(loss, self._parameters)), float(loss.detach())

    def _private_gradients(
        self, inputs: torch.Tensor, labels: torch.Tensor, privacy: ExamplePrivacy
    ) -> tuple[list[torch.Tensor], float]:
        assert self._clipping is not None
        total, loss = self._clipping.sums(inputs, labels)
        noise = torch.randn(total.shape) * (privacy.noise_multiplier * privacy.max_grad_norm)
        return [part[0] for part in self._parts((total + noise) / privacy.expected_batch)], loss


class _Clipping:
    """The very engine that clips on devices, and the loss that it saw."""

    def __init__(self, problem: Problem, model: torch.nn.Module, max_grad_norm: float) -> None:
        self._losses = problem.losses
        inputs, labels = problem.train.inputs[:2], problem.train.labels[:2]
        try:
            self._engine = choose_engine(
                model, self._mean_loss, max_grad_norm=max_grad_norm, inputs=inputs, labels=labels
            )
        except UnclippableModelError as error:
            raise UnsupportedModelError(error.message, hint=error.hint) from error
        self._sums = Sums([parameter for parameter in model.parameters() if parameter.requires_grad])

    def sums(self, inputs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, float]:
        """The sum of clipped gradients, to be overwritten by the next, and the batch's mean loss."""
        self._loss = 0.0
        self._engine.clipped_sums(inputs, labels, Units.single(len(labels)), self._sums)
        return self._sums.vector, self._loss

    def _mean_loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        mean = self._losses(outputs, labels).mean()
        self._loss = float(mean.detach())
        return mean
