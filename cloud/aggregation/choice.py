"""The server's half of a strategy, from its settings."""

from typing import assert_never

from cloud.aggregation.averaging import FedAvg
from cloud.aggregation.fedbuff import FedBuff
from cloud.aggregation.feddyn import FedDyn
from cloud.aggregation.fednova import FedNova
from cloud.aggregation.qfedavg import QFedAvg
from cloud.aggregation.robust.bulyan import Bulyan
from cloud.aggregation.robust.geometric_median import GeometricMedian
from cloud.aggregation.robust.krum import Krum, MultiKrum
from cloud.aggregation.robust.median import Median
from cloud.aggregation.robust.norm_clipping import NormClipping
from cloud.aggregation.robust.trimmed_mean import TrimmedMean
from cloud.aggregation.rule import RobustRule, Rule
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
    BulyanSettings,
    FedBuffSettings,
    FedDynSettings,
    FedNovaSettings,
    FedXgbBaggingSettings,
    GeometricMedianSettings,
    KrumSettings,
    MedianSettings,
    MultiKrumSettings,
    NormClippingSettings,
    QFedAvgSettings,
    RobustSettings,
    ScaffoldSettings,
    ServerAdagradSettings,
    ServerAdamSettings,
    ServerSettings,
    ServerSgdSettings,
    ServerYogiSettings,
    StrategySettings,
    TrimmedMeanSettings,
)


def rule_of(settings: StrategySettings, *, population: int) -> Rule:
    """The streaming rule.

    Args:
        settings: The strategy; a robust one has no streaming rule, but a `robust_rule_of`, and trees have `bagging`.
        population: Clients that may ever take part; SCAFFOLD and FedDyn count by it.
    """
    assert not isinstance(settings, RobustSettings), f"{settings.name} sees all updates side by side"
    assert not isinstance(settings, FedXgbBaggingSettings), f"{settings.name} appends trees: `bagging`"
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


def robust_rule_of(settings: RobustSettings) -> RobustRule:
    """The robust rule; what it combines goes to `server_optimizer_of(settings.server)`."""
    match settings:
        case MedianSettings():
            return Median()
        case TrimmedMeanSettings():
            return TrimmedMean(settings.trimmed_fraction)
        case KrumSettings():
            return Krum(settings.liars)
        case MultiKrumSettings():
            return MultiKrum(settings.liars, settings.selected)
        case BulyanSettings():
            return Bulyan(settings.liars, is_selected_at_once=settings.is_selected_at_once)
        case GeometricMedianSettings():
            return GeometricMedian(settings.smoothing)
        case NormClippingSettings():
            return NormClipping(settings.norm_max)
        case _:
            assert_never(settings)


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
