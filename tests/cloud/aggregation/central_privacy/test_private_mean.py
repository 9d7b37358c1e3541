"""User-level privacy: what one client can change, and the noise that hides it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cloud.aggregation.central_privacy.noise import Noise, SecureNoise, SeededNoise
from cloud.aggregation.central_privacy.private_mean import BOUND, WITHIN, PrivateMean
from cloud.aggregation.errors import TooFewUpdatesError
from cloud.aggregation.rule import Fold, State, Updates, Vector
from shared.accountant import epsilon_of
from shared.privacy import AdaptiveClipping, MechanismEvent, NoiseBy, UserPrivacySpec
from shared.user_privacy import clipped_with_noise
from tests.cloud.aggregation.rounds import updates

EXPECTED, CLIP, MULTIPLIER = 20.0, 0.5, 2.0


def spec(*, adaptive: AdaptiveClipping | None = None, noise_by: NoiseBy = NoiseBy.SERVER) -> UserPrivacySpec:
    return UserPrivacySpec(
        epsilon=1,
        delta=1e-5,
        noise_multiplier=MULTIPLIER,
        clip_norm=CLIP,
        adaptive=adaptive,
        sampling_rate=0.01,
        expected_clients=EXPECTED,
        rounds=10,
        noise_by=noise_by,
        noise_clients_min=8,
    )


@dataclass(frozen=True)
class Silence:
    """No noise, to see the rest."""

    def normal(self, count: int, *, round_number: int, device: torch.device) -> torch.Tensor:
        return torch.zeros(count, device=device)


@dataclass(frozen=True)
class Scaled:
    """The wrong answer: a source whose numbers are not standard."""

    factor: float

    def normal(self, count: int, *, round_number: int, device: torch.device) -> torch.Tensor:
        return self.factor * SeededNoise(0).normal(count, round_number=round_number, device=device)


def folded(rule: PrivateMean, model: Vector, state: State, *blocks: Updates) -> Fold:
    fold = rule.begin(model, rule.sent(state))
    for block in blocks:
        rule.add(fold, block)
    return fold


def one_round(rule: PrivateMean, model: Vector, *blocks: Updates) -> tuple[Vector, State]:
    state = rule.init(model)
    return rule.finish(model, state, folded(rule, model, state, *blocks))


anything = arrays.arrays(np.float32, (6, 4), elements=st.floats(width=32, allow_nan=True, allow_infinity=True))


@given(deltas=anything, left_out=st.integers(0, 5))
def test_one_client_changes_the_sum_by_the_bound_at_most_and_the_count_by_half(
    deltas: np.ndarray, left_out: int
) -> None:
    rule, model = PrivateMean(spec(), Silence()), torch.zeros(4)
    rows = torch.from_numpy(deltas)
    everybody = folded(rule, model, rule.init(model), updates(rows))
    without = folded(rule, model, rule.init(model), updates(torch.cat([rows[:left_out], rows[left_out + 1 :]])))
    # Sums of single products in float32 are themselves exact to one part in 2^24 only.
    assert (everybody["sum"] - without["sum"]).norm() <= CLIP * (1 + 1e-6)
    assert (everybody["within"] - without["within"]).abs() == 0.5


@given(deltas=anything)
def test_a_lone_clients_part_is_within_the_bound_exactly(deltas: np.ndarray) -> None:
    rule, model = PrivateMean(spec(), Silence()), torch.zeros(4)
    for row in torch.from_numpy(deltas):
        assert folded(rule, model, rule.init(model), updates(row[None]))["sum"].norm() <= CLIP


def test_short_updates_are_averaged_over_the_expected_clients_whatever_they_weigh() -> None:
    deltas = torch.tensor([[0.1, 0.2], [0.3, 0.0]])
    moved, _ = one_round(PrivateMean(spec(), Silence()), torch.ones(2), updates(deltas, weights=[1, 1000]))
    torch.testing.assert_close(moved, 1 + deltas.sum(dim=0) / EXPECTED)


def test_folds_of_several_processes_add_up() -> None:
    rule, model = PrivateMean(spec(adaptive=AdaptiveClipping(count_noise=0.1)), Silence()), torch.zeros(4)
    deltas, state = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), rule.init(model)
    whole = folded(rule, model, state, updates(deltas))
    parts = [folded(rule, model, state, updates(part)) for part in (deltas[:4], deltas[4:])]
    summed = {name: sum((part[name] for part in parts), torch.zeros(())) for name in whole}
    rule.add(summed, updates(deltas[:2]))
    rule.add(whole, updates(deltas[:2]))
    for found, expected in zip(rule.finish(model, state, summed), rule.finish(model, state, whole), strict=True):
        torch.testing.assert_close(found, expected)


def deviation(source: Noise, size: int = 100_000) -> float:
    """Of the noise in the sum, in units of the bound."""
    model, _ = one_round(PrivateMean(spec(), source), torch.zeros(size))
    return float(model.double().std() * EXPECTED / CLIP)


def is_promised(found: float, size: int = 100_000) -> bool:
    """Whether a standard deviation is the promised one, in four of its own standard errors."""
    return abs(found / MULTIPLIER - 1) < 4 / math.sqrt(2 * size)


@pytest.mark.parametrize("source", [SecureNoise(), SeededNoise(7)], ids=lambda source: type(source).__name__)
def test_the_noise_has_the_promised_deviation_and_a_round_without_clients_is_noise_alone(source: Noise) -> None:
    assert is_promised(deviation(source))


def test_two_per_cent_too_little_or_too_much_noise_is_noticed() -> None:
    assert not is_promised(deviation(Scaled(0.98)))
    assert not is_promised(deviation(Scaled(1.02)))


def test_no_two_rounds_have_the_same_noise_and_a_resumed_simulation_repeats_its_own() -> None:
    rule, model = PrivateMean(spec(), SeededNoise(3)), torch.zeros(50)
    first, state = one_round(rule, model)
    second, _ = rule.finish(model, state, folded(rule, model, state))
    again, _ = rule.finish(model, dict(state), folded(rule, model, state))
    assert not torch.equal(first, second)
    assert torch.equal(second, again)
    assert torch.equal(first, one_round(rule, model)[0])
    assert not torch.equal(*(one_round(PrivateMean(spec(), SecureNoise()), model)[0] for _ in range(2)))


def test_the_bound_finds_the_quantile_of_the_norms() -> None:
    adaptive = AdaptiveClipping(quantile=0.8, count_noise=0.3)
    rule, model = PrivateMean(spec(adaptive=adaptive), SeededNoise(1)), torch.zeros(3)
    norms = torch.linspace(1, 11, 20)
    block, state = updates(norms[:, None] * torch.tensor([[0.6, 0.8, 0.0]])), rule.init(model)
    found: list[float] = []
    for _ in range(400):
        _, state = rule.finish(model, state, folded(rule, model, state, block))
        found.append(float(state[BOUND]))
    assert np.mean(found[200:]) == pytest.approx(float(norms.quantile(0.8)), rel=0.1)


def test_sum_and_count_together_cost_what_the_multiplier_says() -> None:
    adaptive = AdaptiveClipping(count_noise=0.1)
    rule, model = PrivateMean(spec(adaptive=adaptive), SeededNoise(1)), torch.zeros(100_000)
    moved, _ = one_round(rule, model)
    of_sum = float(moved.double().std() * EXPECTED / CLIP)

    def event(noise: float) -> MechanismEvent:
        return MechanismEvent(dataset_id="d", unit="device", noise_multiplier=noise, sampling_rate=1.0, steps=1)

    both = epsilon_of([event(of_sum), event(2 * 0.1 * EXPECTED)], 1e-5)
    assert both == pytest.approx(epsilon_of([event(MULTIPLIER)], 1e-5), rel=0.01)
    assert epsilon_of([event(MULTIPLIER), event(2 * 0.1 * EXPECTED)], 1e-5) > 1.05 * both


def test_a_count_that_would_cost_the_budget_is_refused() -> None:
    with pytest.raises(ValueError, match=r"count_noise above 0.05"):
        spec(adaptive=AdaptiveClipping(count_noise=0.04))


def noised_by_clients(clients: int, size: int, *, adaptive: AdaptiveClipping | None = None) -> Updates:
    """What clients with updates of nothing send."""
    normal = SeededNoise(0).normal(clients * (size + 1), round_number=0, device=torch.device("cpu"))
    asked = spec(noise_by=NoiseBy.CLIENTS, adaptive=adaptive)
    rows = torch.zeros(clients, size)
    sent, within = clipped_with_noise(rows, CLIP, asked, normal=normal.view(clients, size + 1))
    return replace(updates(sent), extras={WITHIN: within})


def test_the_shares_of_just_enough_clients_are_all_of_the_noise() -> None:
    rule, model = PrivateMean(spec(noise_by=NoiseBy.CLIENTS), Silence()), torch.zeros(100_000)
    moved, _ = one_round(rule, model, noised_by_clients(8, len(model)))
    assert is_promised(float(moved.double().std() * EXPECTED / CLIP))
    with pytest.raises(TooFewUpdatesError, match="at least 8 clients in the sum, got 7"):
        one_round(rule, model, noised_by_clients(7, len(model)))


def test_clients_clip_before_they_add_their_share() -> None:
    rows = torch.tensor([[3.0, 4.0], [math.nan, 1.0], [0.1, 0.0]])
    sent, within = clipped_with_noise(rows, CLIP, spec(noise_by=NoiseBy.CLIENTS), normal=torch.zeros(3, 3))
    torch.testing.assert_close(sent, torch.tensor([[0.3, 0.4], [0.0, 0.0], [0.1, 0.0]]))
    assert within[:, 0].tolist() == [-0.5, -0.5, 0.5]


def shift_in_deviations(row: Sequence[float]) -> float:
    """How far a client moves the noised model, along its own direction, in deviations of the noise there."""
    model = torch.zeros(2)
    with_it, _ = one_round(PrivateMean(spec(), Silence()), model, updates(torch.tensor([row])))
    noises = [float(one_round(PrivateMean(spec(), SeededNoise(seed)), model)[0][0]) for seed in range(2000)]
    return float(with_it.norm()) / float(np.std(noises))


def test_an_observer_who_knows_the_client_gains_no_more_than_one_multiplier() -> None:
    """The whole of the promise, measured: the two models differ as two Gaussians at most 1 / multiplier apart do."""
    assert shift_in_deviations([1e9, 0.0]) == pytest.approx(1 / MULTIPLIER, rel=0.07)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_computes_the_same_and_makes_its_own_noise() -> None:
    deltas = torch.randn(9, 4000, generator=torch.Generator().manual_seed(0))
    here, _ = one_round(PrivateMean(spec(), Silence()), torch.zeros(4000), updates(deltas))
    there, _ = one_round(PrivateMean(spec(), Silence()), torch.zeros(4000).cuda(), updates(deltas.cuda()))
    torch.testing.assert_close(there.cpu(), here)
    for source in (SecureNoise(), SeededNoise(0)):
        model, _ = one_round(PrivateMean(spec(), source), torch.zeros(100_000).cuda())
        assert is_promised(float(model.double().std() * EXPECTED / CLIP))
