"""All robust rules, and cohorts to try them on."""

import torch

from cloud.aggregation.robust.bulyan import Bulyan
from cloud.aggregation.robust.geometric_median import GeometricMedian
from cloud.aggregation.robust.krum import Krum, MultiKrum
from cloud.aggregation.robust.median import Median
from cloud.aggregation.robust.norm_clipping import NormClipping
from cloud.aggregation.robust.trimmed_mean import TrimmedMean
from cloud.aggregation.rows import InMemoryRows
from cloud.aggregation.rule import Combined, RobustRule

CLIENTS, LIARS = 23, 5
RULES: tuple[RobustRule, ...] = (
    Median(),
    TrimmedMean(0.25),
    Krum(LIARS),
    MultiKrum(LIARS),
    Bulyan(LIARS),
    Bulyan(LIARS, is_selected_at_once=True),
    GeometricMedian(),
    NormClipping(),
)


def cohort(seed: int = 0, *, clients: int = CLIENTS, parameters: int = 40) -> torch.Tensor:
    """Honest updates: a common direction, and each client's own."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(parameters, generator=random) + 0.3 * torch.randn(clients, parameters, generator=random)


def combine(rule: RobustRule, deltas: torch.Tensor) -> Combined:
    return rule.combine(InMemoryRows(deltas), torch.ones(len(deltas), dtype=torch.float64))
