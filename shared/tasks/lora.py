"""LoRA: dense and convolutional layers get thin factors, and rounds train and send those alone.

Hu et al. 2021 (arXiv:2106.09685): `layer(x) + alpha / rank * up(down(x))`, with `down` random and `up` zero, so that an
adapted model starts as the one it adapts. Factors are plain layers, so whatever gives each example a gradient of its
own (Opacus, book-keeping, vmap) works unchanged; fewer trained parameters also carry less noise.

    TASK = AdaptedTask(MyTask(), rank=4)     # rounds train and send the factors of its layers
    model = add_adapters(model, rank=4)      # the same for a simulation's model
    plain = merged(model)                    # layers as they were, factors added in; exports are merged first

Import it where torch may be imported.
"""

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from shared.tasks.task import (
    CentralTraining,
    DeviceData,
    Examples,
    Inputs,
    LocalTraining,
    Role,
    Schema,
    Task,
    Tolerance,
)

Layer = nn.Linear | nn.Conv1d | nn.Conv2d


class Adapted(nn.Module):
    """One layer and its factors."""

    down: Layer
    up: Layer

    def __init__(self, base: Layer, *, rank: int, scale: float) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = _factors(base, rank)
        self.scale = scale
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.base(inputs) + self.scale * self.up(self.down(inputs))
        return outputs

    def merged(self) -> nn.Module:
        """A plain layer that computes the same."""
        layer = copy.deepcopy(self.base)
        with torch.no_grad():
            product = self.up.weight.flatten(1) @ self.down.weight.flatten(1)
            layer.weight += self.scale * product.view_as(layer.weight)
        return layer


def add_adapters(model: nn.Module, *, rank: int, alpha: float | None = None) -> nn.Module:
    """The model, changed in place: each layer that its factors make smaller is adapted, and all else is frozen.

    Args:
        model: Of any architecture; dense and ungrouped convolutional layers are adapted.
        rank: Of the factors.
        alpha: Scale of what they add, times the rank; by default the rank itself.
    """
    model.requires_grad_(False)
    scale = (rank if alpha is None else alpha) / rank
    for parent, name, layer in list(_layers(model)):
        if isinstance(layer, Layer) and _is_smaller(layer, rank):
            setattr(parent, name, Adapted(layer, rank=rank, scale=scale))
    return model


def merged(model: nn.Module) -> nn.Module:
    """A copy with plain layers in place of adapted ones; the model itself where it has none."""
    if not any(isinstance(layer, Adapted) for _, _, layer in _layers(model)):
        return model
    plain = copy.deepcopy(model)
    for parent, name, layer in list(_layers(plain)):
        if isinstance(layer, Adapted):
            setattr(parent, name, layer.merged())
    return plain


def factor_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the factors' weights: what rounds train."""
    found = [name for name, layer in model.named_modules() if isinstance(layer, Adapted)]
    return tuple(f"{name}.{factor}.weight" for name in found for factor in ("down", "up"))


class AdaptedTask:
    """A task whose rounds train low-rank factors of its model's layers. Central training trains all of the model.

    Args:
        task: What is learned.
        rank: Of the factors.
    """

    def __init__(self, task: Task, *, rank: int) -> None:
        self._task = task
        self._rank = rank
        self.name = f"{task.name}-lora"
        self.version = f"{task.version}-rank{rank}"

    def model(self, *, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # not CUDA's: forking leaves that as it is
            return add_adapters(self._task.model(seed=seed), rank=self._rank).requires_grad_(True)

    @property
    def local_training(self) -> LocalTraining:
        names, plain = factor_names(self.model(seed=0)), self._task.local_training
        without = plain.without_privacy
        return dataclasses.replace(
            plain,
            trained_parameters=names,
            without_privacy=without and dataclasses.replace(without, trained_parameters=names),
        )

    @property
    def schema(self) -> Schema:
        return self._task.schema

    @property
    def privacy_unit(self) -> str:
        return self._task.privacy_unit

    @property
    def central_training(self) -> CentralTraining:
        return self._task.central_training

    @property
    def tolerance(self) -> Tolerance:
        return self._task.tolerance

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self._task.loss(outputs, labels)

    def features(self, inputs: Inputs) -> NDArray[np.float32]:
        return self._task.features(inputs)

    def central_data(self, role: Role) -> Examples:
        return self._task.central_data(role)

    def device_data(self, data_dir: Path) -> DeviceData:
        return self._task.device_data(data_dir)

    def device_slices(self) -> Mapping[str, DeviceData]:
        return self._task.device_slices()

    def write_device_data(self, data_dir: Path, slices: tuple[str, ...]) -> None:
        self._task.write_device_data(data_dir, slices)


def _layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Every module below the model with its parent, but for the insides of adapted layers."""
    for name, child in model.named_children():
        yield model, name, child
        if not isinstance(child, Adapted):
            yield from _layers(child)


def _is_smaller(layer: Layer, rank: int) -> bool:
    columns = layer.weight.numel() // layer.weight.shape[0]
    is_grouped = not isinstance(layer, nn.Linear) and layer.groups > 1
    return not is_grouped and rank * (layer.weight.shape[0] + columns) < layer.weight.numel()


def _factors(base: Layer, rank: int) -> tuple[Layer, Layer]:
    """Untrained layers whose composition has the shape of the base; the first one has its geometry."""
    if isinstance(base, nn.Linear):
        return nn.Linear(base.in_features, rank, bias=False), nn.Linear(rank, base.out_features, bias=False)
    # `Any`: a kernel of one dimension or of two, as the layer has it.
    kind: Any = type(base)
    geometry = {name: getattr(base, name) for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")}
    return kind(base.in_channels, rank, bias=False, **geometry), kind(rank, base.out_channels, 1, bias=False)
