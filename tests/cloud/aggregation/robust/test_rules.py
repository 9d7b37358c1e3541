"""Each rule against its paper's definition, computed the slow way."""

from itertools import combinations

import pytest
import torch

from cloud.aggregation.robust.bulyan import Bulyan
from cloud.aggregation.robust.geometric_median import GeometricMedian
from cloud.aggregation.robust.krum import Krum, MultiKrum
from cloud.aggregation.robust.norm_clipping import NormClipping
from cloud.aggregation.robust.trimmed_mean import TrimmedMean
from tests.cloud.aggregation.robust.examples import cohort, combine


def krum_scores(deltas: torch.Tensor, liars: int) -> torch.Tensor:
    """Blanchard et al. 2017, section 4, as it is written."""
    distances = torch.cdist(deltas.double(), deltas.double()).square()
    neighbours = max(1, len(deltas) - liars - 2)
    return torch.stack([row.sort().values[1 : 1 + neighbours].sum() for row in distances])


def test_krum_takes_the_update_nearest_to_its_neighbours() -> None:
    deltas = cohort()
    scores, combined = krum_scores(deltas, 5), combine(Krum(5), deltas)
    torch.testing.assert_close(combined.scores, scores)
    torch.testing.assert_close(combined.delta, deltas[scores.argmin()])
    assert combined.used.nonzero()[:, 0].tolist() == [int(scores.argmin())]


def test_multi_krum_takes_the_mean_of_the_best_whatever_they_weigh() -> None:
    deltas = cohort()
    best = krum_scores(deltas, 5).argsort()[:4]
    torch.testing.assert_close(combine(MultiKrum(5, selected=4), deltas).delta, deltas[best].mean(dim=0))


@pytest.mark.parametrize("liars", [0, 1, 3])
def test_bulyan_selects_one_by_one_and_averages_near_the_median(liars: int) -> None:
    deltas = cohort(clients=15)
    left, selected = list(range(15)), []
    for _ in range(15 - 2 * liars):
        position = int(krum_scores(deltas[left], liars).argmin()) if len(left) > 1 else 0
        selected.append(left.pop(position))
    chosen = deltas[selected]
    median = chosen.quantile(0.5, dim=0)
    nearest = (chosen - median).abs().argsort(dim=0)[: 15 - 4 * liars]
    combined = combine(Bulyan(liars), deltas)
    assert sorted(selected) == combined.used.nonzero()[:, 0].tolist()
    torch.testing.assert_close(combined.delta, chosen.gather(0, nearest).mean(dim=0))


def test_the_geometric_median_has_the_least_sum_of_distances() -> None:
    deltas = cohort(clients=9, parameters=6)
    found = combine(GeometricMedian(), deltas).delta

    def cost(point: torch.Tensor) -> float:
        return float((deltas - point).double().norm(dim=1).sum())

    random = torch.Generator().manual_seed(0)
    for size in (1e-1, 1e-2, 1e-3):
        assert all(cost(found) <= cost(found + size * torch.randn(6, generator=random)) for _ in range(200))


def test_the_geometric_median_of_a_majority_at_one_point_is_that_point() -> None:
    deltas = torch.cat([torch.full((6, 3), 2.0), torch.randn(5, 3, generator=torch.Generator().manual_seed(0)) * 100])
    torch.testing.assert_close(combine(GeometricMedian(), deltas).delta, torch.full((3,), 2.0), rtol=0, atol=1e-4)


def test_norm_clipping_shortens_only_what_is_longer_than_the_bound() -> None:
    deltas = torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]])
    combined = combine(NormClipping(norm_max=2.0), deltas)
    torch.testing.assert_close(combined.delta, torch.tensor([1.2, 1.6 + 1.0]) / 3)
    torch.testing.assert_close(combined.scores, torch.tensor([2.5, 0.5, 0.0]).double())


def test_who_is_always_cut_is_not_used() -> None:
    deltas = torch.tensor([[9.0, -9.0], [1.0, 1.0], [2.0, 2.0], [3.0, 0.0]])
    combined = combine(TrimmedMean(0.25), deltas)
    assert combined.used.tolist() == [False, True, True, True]
    assert combined.delta.tolist() == [2.5, 0.5]


def test_a_krum_winner_is_nearest_among_all_choices_of_neighbours() -> None:
    """The definition without sorting: the least sum over all sets of neighbours."""
    deltas, liars = cohort(clients=7, parameters=3), 2
    distances = torch.cdist(deltas.double(), deltas.double()).square()
    scores = [
        min(float(distances[i, list(others)].sum()) for others in combinations(set(range(7)) - {i}, 3))
        for i in range(7)
    ]
    torch.testing.assert_close(combine(Krum(liars), deltas).scores, torch.tensor(scores).double())
