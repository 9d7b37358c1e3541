"""Gradients of a block of clients, each with weights of its own: by the chain of stacked layers, or by `vmap`."""

from typing import Protocol

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from shared.layout import Layout
from simulations.engines.cuda.chain import Chain, Weights
from simulations.engines.cuda.compilation import Compiler
from simulations.engines.cuda.randomness import Randomness
from simulations.problem import Losses

Tensor = torch.Tensor


class Gradients(Protocol):
    """Inputs are `(clients, batch, *shape)`, labels and coefficients `(clients, batch)`, as are the losses returned."""

    def add(
        self, weights: Weights, targets: Weights, x: Tensor, labels: Tensor, coefficients: Tensor, random: Randomness
    ) -> Tensor:
        """Adds each client's sum of `coefficient * gradient` to its targets, which may be the weights themselves."""
        ...

    def add_clipped(
        self,
        weights: Weights,
        targets: Weights,
        x: Tensor,
        labels: Tensor,
        coefficients: Tensor,
        random: Randomness,
        *,
        norm_max: float,
    ) -> Tensor:
        """The same, with each example's gradient scaled down to a norm of at most `norm_max` first."""
        ...

    def losses(self, weights: Weights, x: Tensor, labels: Tensor) -> Tensor:
        """Each example's loss, as in evaluation."""
        ...


class ChainGradients:
    """Passes written by hand over stacked layers.

    Args:
        chain: The model.
        losses: The problem's.
    """

    def __init__(self, chain: Chain, losses: Losses) -> None:
        self._chain = chain
        self._losses = losses

    def add(
        self, weights: Weights, targets: Weights, x: Tensor, labels: Tensor, coefficients: Tensor, random: Randomness
    ) -> Tensor:
        outputs, tape = self._chain.forward(weights, x, random)
        losses, dy = self._top(outputs, labels, coefficients)
        self._chain.finish(weights, targets, tape, dy)
        return losses

    def add_clipped(
        self,
        weights: Weights,
        targets: Weights,
        x: Tensor,
        labels: Tensor,
        coefficients: Tensor,
        random: Randomness,
        *,
        norm_max: float,
    ) -> Tensor:
        outputs, tape = self._chain.forward(weights, x, random)
        losses, dy = self._top(outputs, labels, torch.ones_like(coefficients))
        signals = self._chain.signals(weights, tape, dy)
        squares = torch.stack([signal.layer.squared_norms(signal.saved, signal.dy) for signal in signals]).sum(dim=0)
        factors = coefficients * _clip(squares.sqrt(), norm_max)
        for signal in signals:
            own = [targets[name] for name in signal.layer.names]
            signal.layer.accumulate(own, signal.saved, signal.dy * _as(factors, signal.dy))
        return losses

    def losses(self, weights: Weights, x: Tensor, labels: Tensor) -> Tensor:
        outputs, _ = self._chain.forward(weights, x, None)
        return self._losses(outputs.flatten(0, 1), labels.flatten()).reshape(labels.shape)

    def _top(self, outputs: Tensor, labels: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Each example's loss, and the gradient of their weighted sum at the outputs."""
        with torch.enable_grad():
            flat = outputs.detach().flatten(0, 1).requires_grad_()
            losses = self._losses(flat, labels.flatten())
            (dy,) = torch.autograd.grad(losses, flat, coefficients.flatten())
        return losses.detach().reshape(labels.shape), dy.reshape(outputs.shape)


class VmapGradients:
    """Any model that `torch.func.vmap` can run; its layers become grouped ones.

    Args:
        model: Gives the computation, not the weights.
        layout: Its trained parameters.
        losses: The problem's.
        compiler: For passes forward and backward.
    """

    def __init__(self, model: nn.Module, layout: Layout, losses: Losses, compiler: Compiler) -> None:
        self._model = model
        self._losses = losses
        self._names = layout.names
        self._of_clients = compiler.of(self._client_gradients, is_dynamic=False)
        self._of_examples = compiler.of(self._example_gradients, is_dynamic=False)

    def add(
        self, weights: Weights, targets: Weights, x: Tensor, labels: Tensor, coefficients: Tensor, random: Randomness
    ) -> Tensor:
        gradients, losses = self._of_clients(dict(weights), x, labels, coefficients)
        for name in self._names:
            targets[name].add_(gradients[name])
        return losses

    def add_clipped(
        self,
        weights: Weights,
        targets: Weights,
        x: Tensor,
        labels: Tensor,
        coefficients: Tensor,
        random: Randomness,
        *,
        norm_max: float,
    ) -> Tensor:
        gradients, losses = self._of_examples(dict(weights), x, labels, torch.ones_like(coefficients))
        squares = torch.stack([gradients[name].flatten(2).square().sum(dim=2) for name in self._names]).sum(dim=0)
        factors = coefficients * _clip(squares.sqrt(), norm_max)
        for name in self._names:
            targets[name].add_(torch.einsum("kb,kb...->k...", factors, gradients[name]))
        return losses

    def losses(self, weights: Weights, x: Tensor, labels: Tensor) -> Tensor:
        self._model.eval()
        ones = torch.ones(labels.shape, device=x.device)
        losses: Tensor = vmap(self._weighted)(dict(weights), x, labels, ones)[1]
        self._model.train()
        return losses

    def _client_gradients(
        self, weights: dict[str, Tensor], x: Tensor, labels: Tensor, coefficients: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Each client's sum of weighted gradients, and each example's loss."""
        of_client = vmap(grad(self._weighted, has_aux=True), randomness="different")
        gradients, losses = of_client(weights, x, labels, coefficients)
        return gradients, losses

    def _example_gradients(
        self, weights: dict[str, Tensor], x: Tensor, labels: Tensor, coefficients: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Each example's own gradient, `(clients, batch, *parameter)`, and its loss."""
        of_example = vmap(grad(self._weighted, has_aux=True), in_dims=(None, 0, 0, 0), randomness="different")
        gradients, losses = vmap(of_example, randomness="different")(
            weights, x[:, :, None], labels[:, :, None], coefficients[..., None]
        )
        return gradients, losses[..., 0]

    def _weighted(self, weights: Weights, x: Tensor, labels: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        losses = self._losses(functional_call(self._model, dict(weights), (x,)), labels)
        return (losses * coefficients).sum(), losses


def _clip(norms: Tensor, norm_max: float) -> Tensor:
    return (norm_max / norms.clamp(min=1e-12)).clamp(max=1.0)


def _as(factors: Tensor, dy: Tensor) -> Tensor:
    """`(clients, batch)` with as many dimensions as dy."""
    return factors.reshape(*factors.shape, *[1] * (dy.dim() - 2))
