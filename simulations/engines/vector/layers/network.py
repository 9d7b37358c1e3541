"""Reads a module into layers that are written by hand; refuses, with the reason, what has none.

A subclass of a known module may compute anything, so hooks and forward functions of its own are refused; what slips
through is caught by the trial, which compares every way with torch's own autograd.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from simulations.engines.vector.layers.convolution import Window
from simulations.engines.vector.layers.layer import Layer
from simulations.engines.vector.layers.normalisation import FrozenBatchNorm, GroupNorm
from simulations.engines.vector.layers.parameter import Place
from simulations.engines.vector.layers.pointwise import Dropout, Flatten, MaxPool, Relu, Sigmoid, Tanh

_KNOWN: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.GroupNorm,
    nn.modules.batchnorm._BatchNorm,
    nn.ReLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.Flatten,
    nn.Dropout,
)


class NotReadableError(Exception):
    """Why a module has no hand-written form. Never leaves the engine: it takes another way, and says why."""


@dataclass(frozen=True)
class DenseSpec:
    weight: Place
    bias: Place | None


@dataclass(frozen=True)
class ConvolutionSpec:
    weight: Place
    bias: Place | None
    window: Window


@dataclass(frozen=True)
class PlainSpec:
    """A layer of which there is one form only."""

    build: Callable[[], Layer]


Spec = DenseSpec | ConvolutionSpec | PlainSpec


@dataclass(frozen=True)
class Network:
    """A model as layers, the data's shape beside it."""

    specs: tuple[Spec, ...]
    shape: tuple[int, ...]
    """Of one input as the data have it, channels first."""
    is_flat: bool
    """Whether the first layer wants the input as one vector."""

    @property
    def has_convolution(self) -> bool:
        return any(isinstance(spec, ConvolutionSpec) for spec in self.specs)


def read(model: nn.Module, shape: tuple[int, ...]) -> Network:
    """The model as layers.

    Args:
        model: In training mode.
        shape: Of one input.

    Raises:
        NotReadableError: A part of the model has no hand-written form.
    """
    modules = list(_modules(model))
    if len(set(map(id, modules))) != len(modules):
        raise NotReadableError("a layer is used twice")
    specs = [_spec(module, _Places.of(model)) for module in modules]
    flat_from = _flat_from(modules, shape)
    return Network(tuple(_pooled_first(specs)), shape, is_flat=flat_from == 0)


def _modules(model: nn.Module) -> Iterator[nn.Module]:
    """The leaves of nested nn.Sequential, in order; identities are left out."""
    if model._forward_hooks or model._forward_pre_hooks or model._backward_hooks:
        raise NotReadableError(f"a {type(model).__name__} has hooks")
    if type(model) is nn.Sequential:
        for child in model:
            yield from _modules(child)
    elif type(model) is not nn.Identity:
        yield model


def _flat_from(modules: list[nn.Module], shape: tuple[int, ...]) -> int:
    """The index of the first layer whose inputs are vectors; checks that each gets what it can take."""
    flat_from = 0 if len(shape) == 1 or isinstance(modules[0], nn.Flatten) else len(modules)
    for number, module in enumerate(modules):
        flat_from = number + 1 if isinstance(module, nn.Flatten) and number < flat_from else flat_from
        spatial = {nn.Conv1d: 2, nn.MaxPool1d: 2, nn.Conv2d: 3, nn.MaxPool2d: 3}.get(type(module))
        if spatial is not None and (number >= flat_from or len(shape) != spatial):
            raise NotReadableError(f"a {type(module).__name__} gets inputs of another dimension")
        if isinstance(module, nn.Linear) and number < flat_from:
            raise NotReadableError("a Linear gets more than a vector")
    if flat_from >= len(modules):
        raise NotReadableError("the outputs are no vectors")
    return 0 if isinstance(modules[0], nn.Flatten) else flat_from


class _Places:
    """Where a module's parameters lie in the vector of all trained ones."""

    def __init__(self, parts: dict[int, slice]) -> None:
        self._parts = parts

    @classmethod
    def of(cls, model: nn.Module) -> "_Places":
        parts, end = {}, 0
        for parameter in model.parameters():
            if parameter.requires_grad:
                parts[id(parameter)] = slice(end, end + parameter.numel())
                end += parameter.numel()
        return cls(parts)

    def place(self, parameter: torch.Tensor, shape: tuple[int, ...], order: tuple[int, ...]) -> Place:
        if id(parameter) not in self._parts:
            raise NotReadableError("a parameter is frozen")
        if parameter.dtype != torch.float32:
            raise NotReadableError(f"a parameter is {parameter.dtype}")
        return Place(self._parts[id(parameter)], shape, order)

    def vector(self, parameter: torch.Tensor | None) -> Place | None:
        return None if parameter is None else self.place(parameter, tuple(parameter.shape), (0,))


def _spec(module: nn.Module, places: _Places) -> Spec:
    if not any(isinstance(module, known) and type(module).forward is known.forward for known in _KNOWN):
        raise NotReadableError(f"a {type(module).__name__} has no hand-written form")
    match module:
        case nn.Linear():
            weight = places.place(module.weight, tuple(module.weight.shape), (0, 1))
            return DenseSpec(weight, places.vector(module.bias))
        case nn.Conv1d() | nn.Conv2d():
            return _convolution(module, places)
        case nn.MaxPool1d() | nn.MaxPool2d():
            return _pool(module)
        case nn.GroupNorm():
            affine = places.vector(module.weight), places.vector(module.bias)
            return PlainSpec(partial(GroupNorm, *affine, groups=module.num_groups, eps=module.eps))
        case nn.BatchNorm1d() | nn.BatchNorm2d() if not module.training:
            return _frozen_batch_norm(module, places)
    return _plain(module)


def _plain(module: nn.Module) -> Spec:
    match module:
        case nn.ReLU():
            return PlainSpec(Relu)
        case nn.Tanh():
            return PlainSpec(Tanh)
        case nn.Sigmoid():
            return PlainSpec(Sigmoid)
        case nn.Flatten(start_dim=1, end_dim=-1):
            return PlainSpec(Flatten)
        case nn.Dropout(p=rate):
            return PlainSpec(partial(Dropout, rate))
    raise NotReadableError(f"a {type(module).__name__} with these settings has no hand-written form")


def _convolution(module: nn.Conv1d | nn.Conv2d, places: _Places) -> ConvolutionSpec:
    if module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise NotReadableError(f"a {type(module).__name__} has groups, or padding that is not zeros or named")
    outputs, inputs, *kernel = module.weight.shape
    window = Window(
        _pair(tuple(kernel), 1), _pair(module.stride, 1), _pair(module.padding, 0), _pair(module.dilation, 1)
    )
    weight = places.place(module.weight, (outputs, inputs, *window.kernel), (0, 2, 3, 1))
    return ConvolutionSpec(weight, places.vector(module.bias), window)


def _pool(module: nn.MaxPool1d | nn.MaxPool2d) -> Spec:
    if module.ceil_mode or module.return_indices:
        raise NotReadableError(f"a {type(module).__name__} has ceil_mode or returns indices")
    sizes = [module.kernel_size, module.stride, module.padding, module.dilation]
    if isinstance(module, nn.MaxPool2d):
        window = Window(*((size, size) if isinstance(size, int) else _pair(tuple(size), 1) for size in sizes))
    else:
        window = Window(
            *(
                _pair(size if isinstance(size, tuple) else (size,), rest)
                for size, rest in zip(sizes, (1, 1, 0, 1), strict=True)
            )
        )
    return PlainSpec(partial(MaxPool, window))


def _frozen_batch_norm(module: nn.BatchNorm1d | nn.BatchNorm2d, places: _Places) -> Spec:
    if module.running_mean is None or module.running_var is None:
        raise NotReadableError("a frozen BatchNorm has no statistics")
    affine = places.vector(module.weight), places.vector(module.bias)
    mean, variance = module.running_mean.clone(), module.running_var.clone()
    return PlainSpec(partial(FrozenBatchNorm, *affine, mean=mean, variance=variance, eps=module.eps))


def _pooled_first(specs: list[Spec]) -> list[Spec]:
    """Max-pooling before ReLU instead of after it: the same numbers, and a quarter of the ReLU's work."""
    ordered = list(specs)
    for number in range(len(ordered) - 1):
        if _builds(ordered[number], Relu) and _builds(ordered[number + 1], MaxPool):
            ordered[number], ordered[number + 1] = ordered[number + 1], ordered[number]
    return ordered


def _builds(spec: Spec, kind: type) -> bool:
    return isinstance(spec, PlainSpec) and (spec.build is kind or getattr(spec.build, "func", None) is kind)


def _pair(sizes: tuple[int, ...], rest: int) -> tuple[int, int]:
    """Height and width; of one spatial dimension, a height of `rest`."""
    return (rest, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])
