"""Trains a block of clients in step, by the layers' own forward and backward passes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch

from edge_agent.training.clipping.products import clip_factors
from simulations.engines.port import ExamplePrivacy, LocalTraining, Sgd, Trained
from simulations.engines.vector.block import Block
from simulations.engines.vector.layers.convolution import OwnConvolution, UnfoldedConvolution
from simulations.engines.vector.layers.dense import Dense
from simulations.engines.vector.layers.each_client import Build, EachClient
from simulations.engines.vector.layers.layer import Layer, Run
from simulations.engines.vector.layers.low_rank import LowRankDense
from simulations.engines.vector.layers.network import ConvolutionSpec, DenseSpec, Network, PlainSpec, Spec
from simulations.engines.vector.update import Update
from simulations.problem import Problem, cross_entropy

_DELTAS_BYTES = 4 * 2**20
"""Updates made before they are handed on: a few, so that they are still in the cache when they are collected."""


class Weights(StrEnum):
    """How the block's dense layers hold their weights."""

    OWN = "own"
    """A copy for each client."""
    SHARED = "shared"
    """The start, shared, and corrections of low rank."""


class Convolve(StrEnum):
    """How the block convolves."""

    EACH = "each"
    """Client by client, by oneDNN."""
    UNFOLDED = "unfolded"
    """Together, patches unfolded to rows of one batched product."""


@dataclass(frozen=True)
class Form:
    """What is computed how."""

    weights: Weights
    convolve: Convolve


def forms(network: Network, local: LocalTraining, *, is_common_start: bool, has_linear: bool) -> list[Form]:
    """The forms that can compute this, best guess first."""
    low_rank = isinstance(local.optimizer, Sgd) and local.privacy is None and is_common_start and not has_linear
    weights = [Weights.SHARED, Weights.OWN] if low_rank else [Weights.OWN]
    convolve = [Convolve.EACH, Convolve.UNFOLDED] if network.has_convolution else [Convolve.UNFOLDED]
    if local.privacy is not None:
        convolve = [Convolve.UNFOLDED]
    return [Form(each, way) for way in convolve for each in weights]


class LayersKernel:
    """See the module.

    Args:
        problem: What is learned.
        local: How clients train.
        network: The model, read.
        form: What is computed how; one of `forms`.
    """

    def __init__(self, problem: Problem, local: LocalTraining, network: Network, form: Form) -> None:
        self._problem, self._local, self._network, self._form = problem, local, network, form

    def train(self, block: Block) -> Iterator[Trained]:
        """The block's updates, a few clients at a time; each one's memory is used again for the next."""
        with torch.no_grad():
            training = _Training(self._problem, self._local, self._network, self._layers(), block)
            for step in range(len(block.active)):
                training.step(step)
            yield from training.trained()

    def _layers(self) -> list[Layer]:
        specs = self._network.specs
        first_dense = next(number for number, spec in enumerate(specs) if isinstance(spec, DenseSpec))
        builds = [self._build(spec, is_first=self._is_first(number)) for number, spec in enumerate(specs)]
        if self._form.convolve is Convolve.EACH:
            return [EachClient(builds[:first_dense]), *(build() for build in builds[first_dense:])]
        return [build() for build in builds]

    def _is_first(self, number: int) -> bool:
        """Whether the layer's inputs are the data as they are."""
        return number == 0 or (
            number == 1 and self._network.is_flat and not isinstance(self._network.specs[0], DenseSpec)
        )

    def _build(self, spec: Spec, *, is_first: bool) -> Build:
        match spec:
            case DenseSpec(weight, bias) if self._form.weights is Weights.SHARED:
                sgd, proximal = self._local.optimizer, self._local.proximal
                assert isinstance(sgd, Sgd)
                return lambda: LowRankDense(weight, bias, sgd=sgd, proximal=proximal, is_first=is_first)
            case DenseSpec(weight, bias):
                return lambda: Dense(weight, bias)
            case ConvolutionSpec(weight, bias, window):
                kind = OwnConvolution if self._form.convolve is Convolve.EACH else UnfoldedConvolution
                return lambda: kind(weight, bias, window)
            case PlainSpec(build):
                return build


class _Training:
    """One block's training."""

    def __init__(
        self, problem: Problem, local: LocalTraining, network: Network, layers: Sequence[Layer], block: Block
    ) -> None:
        self._problem, self._local, self._network, self._block = problem, local, network, block
        self._layers = layers
        self._wants_inputs = [any(_is_trained(below) for below in layers[:number]) for number in range(len(layers))]
        self._labels = problem.train.labels[block.rows]
        self._shares = block.is_real if local.privacy else block.is_real / block.counts[:, :, None]
        self._losses = torch.zeros(block.rows.shape)
        self._begin(_run(local, block))

    def _begin(self, run: Run) -> None:
        for layer in self._layers:
            layer.begin(run)
        self._draws = run.draws
        self._parameters = [parameter for layer in self._layers for parameter in layer.parameters]
        places = [parameter.place for parameter in self._parameters]
        linear = self._block.linear
        self._update = (
            None
            if run.is_fused or not self._parameters
            else Update(
                self._local,
                factor=self._block.learning_rate_factor,
                start=[place.read(self._block.start) for place in places],
                linear=None if linear is None else [place.read(linear) for place in places],
            )
        )
        self._ahead = self._look_ahead()

    def _look_ahead(self) -> torch.Tensor | None:
        """All steps' inputs at once, where the first dense layer takes them."""
        first = next((layer for layer in self._layers if isinstance(layer, LowRankDense)), None)
        if first is None or not first.is_first:
            return None
        inputs = self._block.inputs(self._problem.train, self._block.rows.flatten(1))
        first.look_ahead(inputs)
        return inputs

    def step(self, step: int) -> None:
        active = self._block.active[step]
        values = self._inputs(step, active)
        for layer in self._layers:
            values = layer.forward(values, step)
        slopes = self._slopes(values, step, active)
        for number in reversed(range(len(self._layers))):
            layer = self._layers[number]
            slopes = layer.backward(slopes, step, wants_inputs=self._wants_inputs[number])
            if self._local.privacy is None:
                layer.gradient(None)
        if self._local.privacy is not None:
            self._clip_and_noise(self._local.privacy, step, active)
        if self._update is not None:
            gradients = [parameter.gradients for parameter in self._parameters if parameter.gradients is not None]
            self._update.step([parameter.values for parameter in self._parameters], gradients, active=active)

    def _inputs(self, step: int, active: int) -> torch.Tensor:
        if self._ahead is not None:
            return self._ahead[:active, step * self._block.batch : (step + 1) * self._block.batch]
        inputs = self._block.inputs(self._problem.train, self._block.rows[:active, step])
        if self._network.is_flat:
            return inputs
        channels, *extent = self._network.shape
        height, width = (1, *extent)[-2:]
        return inputs.view(*inputs.shape[:2], channels, height, width).permute(0, 1, 3, 4, 2).contiguous()

    def _slopes(self, outputs: torch.Tensor, step: int, active: int) -> torch.Tensor:
        """The loss's slope by the outputs; private steps weight examples later."""
        logits, labels = outputs.flatten(0, 1), self._labels[:active, step].flatten()
        by_losses = cross_entropy_slopes if self._problem.losses is cross_entropy else self._autograd_slopes
        losses, slopes = by_losses(logits, labels)
        self._losses[:active, step] = losses.view(active, -1)
        return slopes.view_as(outputs).mul_(self._shares[:active, step, :, None])

    def _autograd_slopes(self, logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Each example's loss, and its slope by its own outputs, of any loss."""
        with torch.enable_grad():
            logits = logits.detach().requires_grad_()
            losses = self._problem.losses(logits, labels)
        (slopes,) = torch.autograd.grad(losses, logits, torch.ones_like(losses))
        return losses.detach(), slopes

    def _clip_and_noise(self, privacy: ExamplePrivacy, step: int, active: int) -> None:
        """Every example's gradient clipped, summed, noised, over the expected batch (Abadi et al. 2016)."""
        squares = [norms for layer in self._layers if (norms := layer.square_norms()) is not None]
        factors = clip_factors(torch.stack(squares).sum(dim=0), max_norm=privacy.max_grad_norm)
        factors *= self._block.is_real[:active, step]
        for layer in self._layers:
            layer.gradient(factors / privacy.expected_batch)
        if privacy.noise_multiplier:
            self._add_noise(privacy.noise_multiplier * privacy.max_grad_norm / privacy.expected_batch, active)

    def _add_noise(self, spread: float, active: int) -> None:
        noise = torch.empty(active, self._block.start.shape[-1])
        for row, draws in zip(noise, self._draws, strict=False):
            torch.randn(row.shape, generator=draws, out=row)
        for parameter in self._parameters:
            assert parameter.gradients is not None
            parameter.gradients[:active].add_(parameter.place.read(noise), alpha=spread)

    def trained(self) -> Iterator[Trained]:
        block, parameters = self._block, self._block.start.shape[-1]
        together = max(1, min(block.clients, _DELTAS_BYTES // (4 * parameters)))
        deltas = torch.empty(together, parameters)
        losses = self._mean_losses()
        for first in range(0, block.clients, together):
            clients = slice(first, min(first + together, block.clients))
            rows = deltas[: clients.stop - first]
            for layer in self._layers:
                layer.write_deltas(rows, clients)
            nobody_asked = torch.full((len(rows),), float("nan"), dtype=torch.float64)
            yield Trained(block.positions[clients], rows, losses[clients], nobody_asked)

    def _mean_losses(self) -> torch.Tensor:
        """`(clients,)` float64."""
        block = self._block
        counts = block.counts if self._local.privacy is None else block.counts.clamp(min=1)
        taken = torch.arange(block.rows.shape[1]) < block.steps[:, None]
        means = (self._losses * block.is_real).sum(dim=2, dtype=torch.float64) / counts
        return torch.where(taken, means, 0).sum(dim=1) / block.steps.clamp(min=1)


def cross_entropy_slopes(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each example's loss, and its slope by its own outputs: softmax minus one at the label."""
    logs, places = torch.log_softmax(logits, dim=1), labels[:, None]
    losses = -logs.gather(1, places)[:, 0]
    slopes = logs.exp_()
    return losses, slopes.scatter_add_(1, places, torch.full_like(places, -1, dtype=slopes.dtype))


def _is_trained(layer: Layer) -> bool:
    return bool(layer.parameters) or isinstance(layer, LowRankDense)


def _run(local: LocalTraining, block: Block) -> Run:
    sgd = local.optimizer
    is_plain = isinstance(sgd, Sgd) and not (sgd.momentum or sgd.weight_decay or local.proximal or local.privacy)
    return Run(
        block,
        rate=sgd.learning_rate * block.learning_rate_factor,
        is_fused=is_plain and block.linear is None,
        draws=[torch.Generator().manual_seed(seed) for seed in block.seeds],
    )
