"""Which contributions a layer's parameters make, by the layer's type; other types are Opacus' to compute.

A rule sees what went in, `(examples, ...)`, and the gradient of what came out, and gives contributions by parameter.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edge_agent.training.clipping.contributions import (
    Contribution,
    Convolved,
    Lookups,
    Outer,
    Products,
    Rows,
    Slopes,
    smallest,
)
from edge_agent.training.clipping.errors import UnclippableModelError
from edge_agent.training.clipping.products import is_direct

Contributions = Iterator[tuple[torch.Tensor, Contribution]]
Rule = Callable[[Any, torch.Tensor, torch.Tensor], Contributions]
"""`Any`: each rule takes the layer type it is listed for."""
_Convolution = nn.Conv1d | nn.Conv2d


def linear(layer: nn.Linear, inputs: torch.Tensor, gradient: torch.Tensor) -> Contributions:
    """Inputs `(examples, ..., in)`: whatever lies between are tokens."""
    bias: Contribution
    if gradient.dim() == 2:
        bias = slopes = Slopes(gradient)
        yield layer.weight, Outer(inputs, slopes)
    else:
        tokens = gradient.reshape(len(gradient), -1, layer.out_features)
        bias = Rows(tokens.sum(dim=1))
        yield layer.weight, smallest(Products(inputs.reshape(len(inputs), -1, layer.in_features), tokens))
    if layer.bias is not None:
        yield layer.bias, bias


def convolution(layer: _Convolution, inputs: torch.Tensor, gradient: torch.Tensor) -> Contributions:
    """Per-example gradients by one grouped convolution, or ghost norms where those would be too large."""
    padded, padding = _padded(layer, inputs)
    tokens, (outputs, *patch) = math.prod(gradient.shape[2:]), layer.weight.shape
    if layer.groups > 1 or is_direct(tokens, inputs=math.prod(patch), outputs=outputs):
        yield layer.weight, Rows(_example_gradients(layer, padded, gradient, padding=padding))
    else:
        unfold = partial(_unfolded, layer, padding=padding)
        sum_weights = partial(_weight_gradient, layer, padding=padding, groups=1)
        yield layer.weight, Convolved(padded, gradient, unfold, sum_weights)
    if layer.bias is not None:
        yield layer.bias, Rows(gradient.flatten(2).sum(dim=2))


def embedding(layer: nn.Embedding, indices: torch.Tensor, gradient: torch.Tensor) -> Contributions:
    """Indices `(examples, ...)`."""
    width = layer.embedding_dim
    if layer.padding_idx is not None:
        gradient = gradient * (indices != layer.padding_idx)[..., None]
    tokens = gradient.reshape(len(indices), -1, width)
    yield layer.weight, Lookups(indices.reshape(len(indices), -1), tokens, layer.num_embeddings)


def layer_norm(layer: nn.LayerNorm, inputs: torch.Tensor, gradient: torch.Tensor) -> Contributions:
    shape = layer.normalized_shape
    between = tuple(range(1, gradient.dim() - len(shape)))
    normalised = functional.layer_norm(inputs, list(shape), eps=layer.eps)
    yield from _affine(layer, normalised, gradient, summed=between)


def group_norm(layer: nn.GroupNorm, inputs: torch.Tensor, gradient: torch.Tensor) -> Contributions:
    normalised = functional.group_norm(inputs, layer.num_groups, eps=layer.eps)
    yield from _affine(layer, normalised, gradient, summed=tuple(range(2, gradient.dim())))


def frozen_batch_norm(
    layer: nn.modules.batchnorm._BatchNorm, inputs: torch.Tensor, gradient: torch.Tensor
) -> Contributions:
    """Its statistics are constants: `refuse_unclippable` has seen to that."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    mean, variance = (each.view(-1, *(1,) * (inputs.dim() - 2)) for each in (layer.running_mean, layer.running_var))
    normalised = (inputs - mean) * (variance + layer.eps).rsqrt()
    yield from _affine(layer, normalised, gradient, summed=tuple(range(2, gradient.dim())))


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: linear,
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    nn.Embedding: embedding,
    nn.LayerNorm: layer_norm,
    nn.GroupNorm: group_norm,
}


def refuse_unclippable(model: nn.Module) -> None:
    """Raises UnclippableModelError where a layer mixes the examples of a batch, or changes with what it sees."""
    for name, layer in model.named_modules():
        if reason := _unclippable(layer):
            kind = type(layer).__name__
            raise UnclippableModelError(
                f"Expected layers that keep examples apart, got {kind} ({name!r}): {reason[0]}",
                hint=reason[1],
            )


def _unclippable(layer: nn.Module) -> tuple[str, str] | None:
    """Why, and what to do."""
    if isinstance(layer, nn.modules.batchnorm._BatchNorm) and (layer.training or layer.running_mean is None):
        return "it normalises each example with all others of the batch", "Use GroupNorm, or freeze it with eval()."
    if isinstance(layer, nn.modules.instancenorm._InstanceNorm) and layer.track_running_stats and layer.training:
        return "its running statistics are not noised", "Use track_running_stats=False."
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        if layer.max_norm is not None:
            return "max_norm changes the entries that the data use, without noise", "Use max_norm=None."
        if layer.scale_grad_by_freq:
            return "it scales gradients by counts over the batch", "Use scale_grad_by_freq=False."
    return None


def _affine(
    layer: nn.LayerNorm | nn.GroupNorm | nn.modules.batchnorm._BatchNorm,
    normalised: torch.Tensor,
    gradient: torch.Tensor,
    *,
    summed: tuple[int, ...],
) -> Contributions:
    """Scale and shift after a normalisation."""
    if layer.weight is not None:
        scales = gradient * normalised
        yield layer.weight, Rows(scales.sum(dim=summed) if summed else scales)
    if layer.bias is not None:
        yield layer.bias, Rows(gradient.sum(dim=summed) if summed else gradient)


def _padded(layer: _Convolution, inputs: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """The inputs, and the zeros still to be put around them; other padding than by zeros is done here."""
    if layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        return inputs, list(layer.padding)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    around: list[int] = layer._reversed_padding_repeated_twice
    return functional.pad(inputs, around, mode=mode), [0] * (inputs.dim() - 2)


def _example_gradients(
    layer: _Convolution, inputs: torch.Tensor, gradient: torch.Tensor, *, padding: list[int]
) -> torch.Tensor:
    """`(examples, *weight.shape)`: each example is a group of its own in one large grouped convolution."""
    examples, groups = len(inputs), len(inputs) * layer.groups
    wide = inputs.reshape(1, -1, *inputs.shape[2:]), gradient.reshape(1, -1, *gradient.shape[2:])
    stacked = _weight_gradient(layer, *wide, padding=padding, groups=groups, outputs=examples * layer.out_channels)
    return stacked.reshape(examples, *layer.weight.shape)


def _weight_gradient(
    layer: _Convolution,
    inputs: torch.Tensor,
    gradient: torch.Tensor,
    *,
    padding: list[int],
    groups: int,
    outputs: int | None = None,
) -> torch.Tensor:
    """The weight's gradient, summed over examples."""
    weight = layer.weight.detach()
    shaped = weight if outputs is None else weight.new_empty(1).expand(outputs, *weight.shape[1:])
    none = [0] * len(padding)
    _, found, _ = torch.ops.aten.convolution_backward(
        gradient.contiguous(),
        inputs.contiguous(),
        shaped,
        None,
        list(layer.stride),
        padding,
        list(layer.dilation),
        False,
        none,
        groups,
        [False, True, False],
    )
    assert isinstance(found, torch.Tensor)
    return found


def _unfolded(layer: _Convolution, inputs: torch.Tensor, *, padding: list[int]) -> torch.Tensor:
    """`(examples, tokens, in)`; a sequence is an image of height 1."""
    one, none = ((1,), (0,)) if len(padding) == 1 else ((), ())
    patches = functional.unfold(
        inputs.unsqueeze(2) if one else inputs,
        (*one, *layer.kernel_size),
        dilation=(*one, *layer.dilation),
        padding=(*none, *padding),
        stride=(*one, *layer.stride),
    )
    return patches.mT
