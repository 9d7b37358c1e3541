"""Any model: clients one after another, torch's own autograd, the parameters of one model overwritten in place."""

from collections.abc import Iterator

import torch
from torch.func import functional_call, grad_and_value, vmap

from simulations.engines.port import ExamplePrivacy, LocalTraining, Trained
from simulations.engines.vector.block import Block
from simulations.engines.vector.update import Update
from simulations.problem import Problem


class InPlaceKernel:
    """Draws what the reference draws: each client seeds torch's own generator.

    Args:
        problem: What is learned.
        local: How clients train.
    """

    def __init__(self, problem: Problem, local: LocalTraining) -> None:
        self._problem, self._local = problem, local
        self._model = problem.model(0).train()
        named = [(name, each) for name, each in self._model.named_parameters() if each.requires_grad]
        self._names, self._parameters = [name for name, _ in named], [each for _, each in named]
        self._sizes = [parameter.numel() for parameter in self._parameters]

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
        sums = [torch.zeros_like(parameter) for parameter in self._parameters]
        loss = 0.0
        if len(labels):
            examples, losses = self._example_gradients(inputs, labels)
            squares = torch.stack([each.flatten(1).square().sum(dim=1) for each in examples]).sum(dim=0)
            factors = (privacy.max_grad_norm / squares.sqrt().clamp(min=1e-12)).clamp(max=1)
            sums = [torch.tensordot(factors, each, dims=1) for each in examples]
            loss = float(losses.mean())
        noise = torch.randn(sum(self._sizes)) * (privacy.noise_multiplier * privacy.max_grad_norm)
        noised = [each + part[0] for each, part in zip(sums, self._parts(noise), strict=True)]
        return [each / privacy.expected_batch for each in noised], loss

    def _example_gradients(
        self, inputs: torch.Tensor, labels: torch.Tensor
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Each example's own gradient, `(batch, *parameter)` by parameter, and its loss."""

        def loss(values: tuple[torch.Tensor, ...], one: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            outputs = functional_call(self._model, dict(zip(self._names, values, strict=True)), (one[None],))
            return self._problem.losses(outputs, label[None]).sum()

        each = vmap(grad_and_value(loss), in_dims=(None, 0, 0), randomness="different")
        gradients, losses = each(tuple(parameter.detach() for parameter in self._parameters), inputs, labels)
        return gradients, losses
