"""What holds for every robust rule."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.aggregation import rows as module
from cloud.aggregation.errors import TooFewUpdatesError
from cloud.aggregation.robust.bulyan import Bulyan
from cloud.aggregation.robust.krum import Krum, MultiKrum
from cloud.aggregation.robust.median import Median
from cloud.aggregation.robust.norm_clipping import NormClipping
from cloud.aggregation.robust.trimmed_mean import TrimmedMean
from cloud.aggregation.rows import FileRows
from cloud.aggregation.rule import RobustRule
from tests.cloud.aggregation.robust.examples import LIARS, RULES, cohort, combine

every_rule = pytest.mark.parametrize("rule", RULES, ids=str)


@every_rule
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.floats(-1e6, 1e6, allow_nan=False))
def test_liars_cannot_drag_the_result_away(rule: RobustRule, seed: int, size: float) -> None:
    """The mean of all would move by a fifth of whatever the liars say."""
    deltas = cohort(seed)
    honest = deltas[LIARS:]
    deltas[:LIARS] = size * torch.randn(LIARS, deltas.shape[1], generator=torch.Generator().manual_seed(seed))
    error = (combine(rule, deltas).delta - honest.mean(dim=0)).norm()
    # Norm clipping gives each liar the length of an honest update, the others no more than the spread of the honest.
    allowed = 2 * LIARS / len(deltas) * honest[0].norm() if isinstance(rule, NormClipping) else 1.5 * _spread(honest)
    assert error < allowed


def _spread(honest: torch.Tensor) -> float:
    return float((honest - honest.mean(dim=0)).norm(dim=1).max())


@every_rule
def test_blocks_and_files_change_nothing(rule: RobustRule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deltas = cohort()
    whole = combine(rule, deltas)
    paths = [tmp_path / f"{number}" for number in range(len(deltas))]
    for path, row in zip(paths, deltas, strict=True):
        row.numpy().tofile(path)
    monkeypatch.setattr(module, "READ_NUMBERS_MAX", 7 * len(deltas))
    monkeypatch.setattr(module, "PIECE_NUMBERS_MAX", {"cpu": 3 * len(deltas)})
    pieces = rule.combine(FileRows(paths, parameters=deltas.shape[1]), torch.ones(len(deltas)).double())
    torch.testing.assert_close(pieces.delta, whole.delta, rtol=0, atol=1e-6)
    torch.testing.assert_close(pieces.scores, whole.scores)
    assert torch.equal(pieces.used, whole.used)


@every_rule
def test_the_order_of_clients_does_not_matter(rule: RobustRule) -> None:
    deltas = cohort()
    order = torch.randperm(len(deltas), generator=torch.Generator().manual_seed(3))
    straight, mixed = combine(rule, deltas), combine(rule, deltas[order])
    torch.testing.assert_close(mixed.delta, straight.delta, rtol=0, atol=1e-6)
    torch.testing.assert_close(mixed.scores, straight.scores[order])
    assert torch.equal(mixed.used, straight.used[order])


@every_rule
def test_scores_tell_liars_from_the_honest(rule: RobustRule) -> None:
    deltas = cohort()
    deltas[:LIARS] *= -5
    scores = combine(rule, deltas).scores
    assert scores[:LIARS].min() > scores[LIARS:].max()


@every_rule
def test_rows_that_are_not_finite_are_liars(rule: RobustRule) -> None:
    deltas = cohort()
    deltas[0], deltas[1, 5], deltas[2], deltas[3], deltas[4, 0] = math.nan, math.inf, -math.inf, 3e38, math.nan
    combined = combine(rule, deltas)
    assert combined.delta.isfinite().all()
    assert combined.delta.norm() < 2 * deltas[LIARS:].norm(dim=1).max()
    assert combined.scores[[0, 2]].isinf().all()
    assert not combined.used[0]


@every_rule
def test_too_many_rows_that_are_not_finite_are_refused(rule: RobustRule) -> None:
    deltas = cohort()
    deltas[: len(deltas) // 2 + 1] = math.nan
    with pytest.raises(TooFewUpdatesError, match="Expected"):
        combine(rule, deltas)


@pytest.mark.parametrize(
    ("rule", "at_least"),
    [
        (Median(), 3),
        (TrimmedMean(0.2), 5),
        (TrimmedMean(0.34), 3),
        (Krum(2), 7),
        (MultiKrum(2), 7),
        (MultiKrum(2, selected=8), 12),
        (Bulyan(2), 11),
        (NormClipping(), 3),
        (NormClipping(norm_max=1.0), 1),
    ],
    ids=str,
)
def test_fewer_updates_than_the_promise_takes_are_refused(rule: RobustRule, at_least: int) -> None:
    combine(rule, cohort(clients=at_least))
    if at_least > 1:
        with pytest.raises(
            TooFewUpdatesError, match=f"Expected at least {at_least} updates for .*, got {at_least - 1}"
        ):
            combine(rule, cohort(clients=at_least - 1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@every_rule
def test_a_gpu_computes_the_same(rule: RobustRule) -> None:
    deltas = cohort(parameters=5000)
    deltas[0], deltas[1] = math.nan, 50.0
    here, there = combine(rule, deltas), combine(rule, deltas.cuda())
    torch.testing.assert_close(there.delta.cpu(), here.delta, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(there.scores.cpu(), here.scores, rtol=1e-5, atol=1e-5)
    assert torch.equal(there.used.cpu(), here.used)
