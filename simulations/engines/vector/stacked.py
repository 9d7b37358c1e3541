"""Any model that torch.func can map: the parameters of all clients of a block stacked, one pass for all of them."""

from collections.abc import Callable, Iterator

import torch
from torch.func import functional_call, grad, vmap

from edge_agent.training.clipping.products import clip_factors
from simulations.engines.port import LocalTraining, Trained
from simulations.engines.vector.block import Block
from simulations.engines.vector.update import Update
from simulations.problem import Problem

Values = tuple[torch.Tensor, ...]


class StackedKernel:
    """Dropout draws other numbers than the reference: one generator for the block. Noise is each client's own.

    Args:
        problem: What is learned.
        local: How clients train.
    """

    def __init__(self, problem: Problem, local: LocalTraining) -> None:
        self._problem, self._local = problem, local
        self._model = problem.model(0).train()
        trained = {name: each for name, each in self._model.named_parameters() if each.requires_grad}
        self._names, self._shapes = list(trained), [each.shape for each in trained.values()]
        self._sizes = [each.numel() for each in trained.values()]
        self._gradients = self._mapped()

    def train(self, block: Block) -> Iterator[Trained]:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(block.seeds[0])
            draws = [torch.Generator().manual_seed(seed) for seed in block.seeds]
            values = [part.expand(block.clients, *part.shape[1:]).clone() for part in self._parts(block.start)]
            update = Update(
                self._local,
                factor=block.learning_rate_factor,
                start=self._parts(block.start),
                linear=None if block.linear is None else self._parts(block.linear),
            )
            losses = torch.zeros(block.clients, dtype=torch.float64)
            for step, active in enumerate(block.active):
                gradients, step_losses = self._step(block, step, [each[:active] for each in values], draws)
                update.step(values, gradients, active=active)
                losses[:active] += step_losses
            yield Trained(
                block.positions,
                torch.cat([each.flatten(1) for each in values], dim=1) - block.start,
                losses / block.steps.clamp(min=1),
                torch.full((block.clients,), float("nan"), dtype=torch.float64),
            )

    def _step(
        self, block: Block, step: int, values: list[torch.Tensor], draws: list[torch.Generator]
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Gradients `(active, *parameter)`, and each client's mean loss."""
        active = block.active[step]
        rows, is_real, counts = (each[:active, step] for each in (block.rows, block.is_real, block.counts))
        data = self._problem.train
        inputs = block.inputs(data, rows).view(*rows.shape, *data.inputs.shape[1:])
        privacy = self._local.privacy
        counts = counts[:, None] if privacy is None else counts[:, None].clamp(min=1)
        if privacy is None:
            gradients, losses = self._gradients(tuple(values), inputs, data.labels[rows], is_real / counts)
            return list(gradients), (losses * is_real / counts).sum(dim=1)
        examples, losses = self._gradients(tuple(values), inputs, data.labels[rows], torch.ones_like(is_real))
        squares = torch.stack([each.flatten(2).square().sum(dim=2) for each in examples]).sum(dim=0)
        factors = clip_factors(squares, max_norm=privacy.max_grad_norm) * is_real
        sums = [
            torch.bmm(factors[:, None], each.flatten(2)).view_as(value)
            for each, value in zip(examples, values, strict=True)
        ]
        noise = torch.stack([torch.randn(sum(self._sizes), generator=own) for own in draws[:active]])
        spread = privacy.noise_multiplier * privacy.max_grad_norm
        noised = [each.add_(part, alpha=spread) for each, part in zip(sums, self._parts(noise), strict=True)]
        return [each.div_(privacy.expected_batch) for each in noised], (losses[:, :, 0] * is_real / counts).sum(dim=1)

    def _parts(self, vectors: torch.Tensor) -> list[torch.Tensor]:
        """By parameter, a row for each client, or one for all."""
        rows = vectors[None] if vectors.dim() == 1 else vectors
        return [
            part.view(len(rows), *shape)
            for part, shape in zip(torch.split(rows, self._sizes, dim=1), self._shapes, strict=True)
        ]

    def _mapped(self) -> Callable[..., tuple[Values, torch.Tensor]]:
        def loss(
            values: Values, inputs: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            outputs = functional_call(self._model, dict(zip(self._names, values, strict=True)), (inputs,))
            losses = self._problem.losses(outputs, labels)
            return (losses * weights).sum(), losses

        def of_one(
            values: Values, one: torch.Tensor, label: torch.Tensor, weight: torch.Tensor
        ) -> tuple[Values, torch.Tensor]:
            gradients: tuple[Values, torch.Tensor] = grad(loss, has_aux=True)(
                values, one[None], label[None], weight[None]
            )
            return gradients

        if self._local.privacy is None:
            return vmap(grad(loss, has_aux=True), randomness="different")
        return vmap(vmap(of_one, in_dims=(None, 0, 0, 0), randomness="different"), randomness="different")
