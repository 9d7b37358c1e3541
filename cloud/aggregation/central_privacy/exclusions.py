"""Which strategies user-level privacy goes with: those whose server half is a mean, and whatever follows from it.

The others release more of a client than one clipped update; making them private needs an analysis of their own. Light:
an API checks a request without torch.
"""

from collections.abc import Mapping
from typing import Any

from cloud.aggregation.errors import PrivacyExcludesError
from shared.strategies import (
    FedBuffSettings,
    FedDynSettings,
    FedNovaSettings,
    FedXgbBaggingSettings,
    QFedAvgSettings,
    RobustSettings,
    ScaffoldSettings,
    StrategySettings,
)

# Any: a kind, or a union of kinds.
EXCLUDED: Mapping[Any, str] = {
    ScaffoldSettings: "its clients also send control variates, which are not clipped",
    FedDynSettings: "its server keeps a sum over all clients that have ever taken part",
    FedNovaSettings: "it weighs updates by steps, which depend on how much data a client has",
    QFedAvgSettings: "it weighs updates by losses, which are data",
    FedBuffSettings: "who is in a step depends on speed, so that sampling amplifies nothing",
    FedXgbBaggingSettings: "trees are no vector that could be clipped and noised",
    RobustSettings: "no single client's part in what it combines is bounded by clipping",
}
"""Why not, by the kind of strategy."""


def check_private(settings: StrategySettings) -> None:
    """Raises PrivacyExcludesError where the strategy is not a mean."""
    for kind, reason in EXCLUDED.items():
        if isinstance(settings, kind):
            raise PrivacyExcludesError(
                f"Expected a strategy that user-level privacy goes with, got {settings.name}: {reason}",
                hint="Use fedavg, fedprox, fedavgm, fedadagrad, fedadam, fedyogi, fedper, fedrep, fedbn or ditto.",
            )
