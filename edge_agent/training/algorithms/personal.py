"""Models of a client's own: parts that never leave it, or a whole one beside the shared.

FedPer: Arivazhagan et al. 2019 (arXiv:1912.00818). FedRep: Collins et al. 2021 (arXiv:2102.07078).
FedBN: Li et al. 2021 (arXiv:2102.07623). Ditto: Li et al. 2021 (arXiv:2012.04221), algorithm 1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from edge_agent.training.algorithms.algorithm import Done, Start, Vector, Vectors
from edge_agent.training.algorithms.alternation import Alternation
from shared.layout import Layout

PERSONAL = "personal"


@runtime_checkable
class HasPersonalModel(Protocol):
    """An algorithm after which each client uses a model of its own."""

    def personal_model(self, model: Vector, kept: Vectors) -> Vector:
        """The model as this client uses it, `(..., parameters)`."""
        ...


@dataclass(frozen=True, eq=False)  # tensors have no one truth value
class LocalParameters:
    """Some parameters are each client's own: FedPer and FedBN train them with the base, FedRep in turns with it.

    `kept` has only these parameters, `(..., local)`; the update is zero where they are.
    """

    positions: torch.Tensor
    """Where they lie in the model, `(local,)` int64."""
    proximals: tuple[float, ...] = (0.0,)
    wants_start_loss: bool = False
    alternation: Alternation | None = None

    def init(self, model: Vector) -> Vectors:
        return {PERSONAL: model[..., self.positions]}

    def starts(self, model: Vector, received: Vectors, kept: Vectors) -> tuple[Start, ...]:
        return (Start(self.personal_model(model, kept)),)

    def finish(
        self,
        model: Vector,
        received: Vectors,
        kept: Vectors,
        deltas: Sequence[Vector],
        *,
        steps: torch.Tensor,
        learning_rate: float,
    ) -> Done:
        (delta,) = deltas
        own = kept[PERSONAL] + delta[..., self.positions]
        return Done(delta.index_fill(-1, self.positions, 0.0), {PERSONAL: own})

    def personal_model(self, model: Vector, kept: Vectors) -> Vector:
        """The model as this client uses it, `(..., parameters)`."""
        own = kept[PERSONAL]
        weights = model.expand(*own.shape[:-1], model.shape[-1]).clone()
        weights[..., self.positions] = own
        return weights


@dataclass(frozen=True)
class Ditto:
    """FedAvg, and a second training of a model of the client's own that `strength / 2 * |v - sent|^2` ties to it.

    The second training's proximal term is centred at its start; `linear` moves the centre to the model that was sent.
    """

    strength: float = 1.0
    """The paper's lambda: 0 learns alone, much of it has only the shared model."""
    wants_start_loss: bool = False
    alternation: Alternation | None = None

    @property
    def proximals(self) -> tuple[float, ...]:
        return (0.0, self.strength)

    def init(self, model: Vector) -> Vectors:
        return {PERSONAL: model}

    def starts(self, model: Vector, received: Vectors, kept: Vectors) -> tuple[Start, ...]:
        own = kept[PERSONAL]
        return Start(model), Start(own, self.strength * (own - model))

    def finish(
        self,
        model: Vector,
        received: Vectors,
        kept: Vectors,
        deltas: Sequence[Vector],
        *,
        steps: torch.Tensor,
        learning_rate: float,
    ) -> Done:
        shared, own = deltas
        return Done(shared, {PERSONAL: kept[PERSONAL] + own})

    def personal_model(self, model: Vector, kept: Vectors) -> Vector:
        """The model as this client uses it, `(..., parameters)`."""
        return kept[PERSONAL]


def positions_of(layout: Layout, names: Iterable[str]) -> torch.Tensor:
    """Where these tensors lie in the vector, `(numbers,)` int64, in the layout's order."""
    wanted, slices = set(names), layout.slices
    ranges = [torch.arange(slices[name].start, slices[name].stop) for name in layout.names if name in wanted]
    return torch.cat(ranges) if ranges else torch.zeros(0, dtype=torch.int64)


def normalization_names(model: torch.nn.Module) -> tuple[str, ...]:
    """Parameters of the model's normalization layers, which FedBN leaves on the client.

    Running means and variances are no parameters: rounds never move those anyway.
    """
    kinds = (
        torch.nn.modules.batchnorm._NormBase,  # batch and instance normalization, and their lazy kinds
        torch.nn.GroupNorm,
        torch.nn.LayerNorm,
    )
    return tuple(
        f"{layer}.{name}" if layer else name
        for layer, module in model.named_modules()
        if isinstance(module, kinds)
        for name, _ in module.named_parameters(recurse=False)
    )
