"""The server's half of a strategy, from its settings."""

from typing import assert_never

from cloud.aggregation.averaging import FedAvg
from cloud.aggregation.fedbuff import FedBuff
from cloud.aggregation.feddyn import FedDyn
from cloud.aggregation.fednova import FedNova
from cloud.aggregation.qfedavg import QFedAvg
from cloud.aggregation.rule import Rule
from cloud.aggregation.scaffold import Scaffold
from cloud.aggregation.server_optimizers import (
    Optimized,
    ServerAdagrad,
    ServerAdam,
    ServerOptimizer,
    ServerSgd,
    ServerYogi,
)
from shared.strategies import (
    FedBuffSettings,
    FedDynSettings,
    FedNovaSettings,
    QFedAvgSettings,
    ScaffoldSettings,
    ServerAdagradSettings,
    ServerAdamSettings,
    ServerSettings,
    ServerSgdSettings,
    ServerYogiSettings,
    StrategySettings,
)


def rule_of(settings: StrategySettings, *, population: int) -> Rule:
    """The rule.

    Args:
        settings: The strategy.
        population: Clients that may ever take part; SCAFFOLD and FedDyn count by it.
    """
    match settings:
        case ScaffoldSettings():
            return Scaffold(population, settings.server_learning_rate)
        case FedDynSettings():
            return FedDyn(population, settings.strength)
        case FedNovaSettings():
            mean: Rule = FedNova(settings.momentum, settings.proximal * settings.client_learning_rate)
        case QFedAvgSettings():
            mean = QFedAvg(settings.q, settings.client_learning_rate)
        case FedBuffSettings():
            mean = FedBuff(settings.buffer, staleness_exponent=settings.staleness_exponent)
        case _:
            mean = FedAvg()
    if settings.server == ServerSgdSettings():
        return mean
    return Optimized(mean, server_optimizer_of(settings.server))


def server_optimizer_of(settings: ServerSettings) -> ServerOptimizer:
    """What the server does with a mean update, or with what a robust rule combined."""
    match settings:
        case ServerSgdSettings():
            return ServerSgd(settings.learning_rate, settings.momentum)
        case ServerAdagradSettings():
            return ServerAdagrad(settings.learning_rate, settings.adaptivity)
        case ServerAdamSettings():
            return ServerAdam(settings.learning_rate, settings.beta1, settings.beta2, settings.adaptivity)
        case ServerYogiSettings():
            return ServerYogi(settings.learning_rate, settings.beta1, settings.beta2, settings.adaptivity)
        case _:
            assert_never(settings)
