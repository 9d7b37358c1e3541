"""The client's half of a strategy, from its settings."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from edge_agent.training.algorithms.algorithm import ClientAlgorithm
from edge_agent.training.algorithms.alternation import Alternation
from edge_agent.training.algorithms.feddyn import FedDyn
from edge_agent.training.algorithms.personal import Ditto, LocalParameters, normalization_names, positions_of
from edge_agent.training.algorithms.plain import Plain
from edge_agent.training.algorithms.scaffold import Scaffold
from shared.layout import Layout
from shared.strategies import (
    DittoSettings,
    FedBnSettings,
    FedDynSettings,
    FedNovaSettings,
    FedPerSettings,
    FedProxSettings,
    FedRepSettings,
    QFedAvgSettings,
    ScaffoldSettings,
    StrategySettings,
    kept_on_clients,
)


def algorithm_of(settings: StrategySettings, model: torch.nn.Module, layout: Layout) -> ClientAlgorithm:
    """The algorithm.

    Args:
        settings: The strategy.
        model: Any with the right layers; its weights do not matter.
        layout: Of the parameters that are trained: what FedPer, FedRep and FedBN keep local lies in it.

    Raises:
        StrategySettingError: A parameter that should stay local is not among those trained, or all are.
    """
    match settings:
        case FedProxSettings() | FedNovaSettings():
            return Plain(proximal=settings.proximal)
        case QFedAvgSettings():
            return Plain(wants_start_loss=True)
        case ScaffoldSettings():
            return Scaffold()
        case FedDynSettings():
            return FedDyn(settings.strength)
        case DittoSettings():
            return Ditto(settings.strength)
        case FedPerSettings():
            return _local(layout, [name for name in layout.names if name.startswith(settings.local)], settings)
        case FedRepSettings():
            head = tuple(name for name in layout.names if name.startswith(settings.local))
            return replace(_local(layout, head, settings), alternation=Alternation(head, settings.head_share))
        case FedBnSettings():
            return _local(layout, normalization_names(model), settings)
        case _:
            return Plain()


def _local(
    layout: Layout, names: Sequence[str], settings: FedPerSettings | FedRepSettings | FedBnSettings
) -> LocalParameters:
    return LocalParameters(positions_of(layout, kept_on_clients(settings, names, layout.names)))
