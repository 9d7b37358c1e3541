"""Our accountant agrees with Google's dp-accounting, at equal orders of Rényi DP."""

import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from opacus.accountants import RDPAccountant

from shared.accountant import epsilon_of, least_noise, tight_epsilon_of
from shared.privacy import MechanismEvent

DELTA = 1e-5
ORDERS = tuple(float(order) for order in range(2, 64))
"""Whole ones: at some fractional orders dp-accounting's series does not converge, and it leaves them out."""


def event(*, noise: float, rate: float, steps: int, dataset_id: str = "data") -> MechanismEvent:
    return MechanismEvent(
        dataset_id=dataset_id, unit="recording", noise_multiplier=noise, sampling_rate=rate, steps=steps
    )


def _dp_accounting(events: list[MechanismEvent]) -> float:
    accountant = RdpAccountant(orders=ORDERS)
    for one in events:
        mechanism = PoissonSampledDpEvent(one.sampling_rate, GaussianDpEvent(one.noise_multiplier))
        accountant.compose(mechanism, one.steps)
    return float(accountant.get_epsilon(DELTA))


@pytest.mark.parametrize(
    "events",
    [
        [event(noise=2.02, rate=1.0, steps=10)],
        [event(noise=1.1, rate=0.1, steps=200)],
        [event(noise=0.87, rate=0.01, steps=50)],
        [
            event(noise=1.5, rate=0.5, steps=5),
            event(noise=2.0, rate=0.25, steps=40),
            event(noise=4.0, rate=1.0, steps=3),
        ],
    ],
)
def test_agrees_with_dp_accounting(events: list[MechanismEvent]) -> None:
    assert epsilon_of(events, DELTA, orders=ORDERS) == pytest.approx(_dp_accounting(events), rel=1e-6)


def test_takes_opacus_own_orders_and_composes_as_its_accountant_does() -> None:
    events = [event(noise=1.5, rate=0.5, steps=5), event(noise=2.0, rate=1.0, steps=2)]
    accountant = RDPAccountant()
    accountant.history = [(one.noise_multiplier, one.sampling_rate, one.steps) for one in events]
    assert epsilon_of(events, DELTA) == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-12)


def test_rounds_charged_one_by_one_cost_what_they_cost_together() -> None:
    apart = [event(noise=2.02, rate=1.0, steps=1)] * 10
    assert epsilon_of(apart, DELTA) == pytest.approx(epsilon_of([event(noise=2.02, rate=1.0, steps=10)], DELTA))


def test_nothing_costs_nothing_and_less_noise_costs_more() -> None:
    assert epsilon_of([], DELTA) == 0
    quiet, loud = event(noise=0.5, rate=0.5, steps=3), event(noise=2.0, rate=0.5, steps=3)
    assert epsilon_of([quiet], DELTA) > epsilon_of([loud], DELTA)


@pytest.mark.parametrize(("noise", "rate", "steps"), [(1.0, 0.05, 100), (3.0, 1.0, 10)])
def test_the_tight_epsilon_agrees_with_googles_pld_and_is_below_renyis(noise: float, rate: float, steps: int) -> None:
    pld = PLDAccountant()
    pld.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), steps)
    tight = tight_epsilon_of([event(noise=noise, rate=rate, steps=steps)], DELTA)
    assert tight == pytest.approx(pld.get_epsilon(DELTA), rel=0.01)
    assert tight < epsilon_of([event(noise=noise, rate=rate, steps=steps)], DELTA)


def test_the_comparison_would_notice_five_per_cent_less_noise() -> None:
    pld = PLDAccountant()
    pld.compose(PoissonSampledDpEvent(0.1, GaussianDpEvent(1.0)), 20)
    assert tight_epsilon_of([event(noise=0.95, rate=0.1, steps=20)], DELTA) > 1.03 * pld.get_epsilon(DELTA)
    assert tight_epsilon_of([], DELTA) == 0


@pytest.mark.parametrize(("epsilon", "rate", "steps"), [(8.0, 1.0, 10), (1.0, 0.01, 500)])
def test_the_least_noise_keeps_the_budget_barely(epsilon: float, rate: float, steps: int) -> None:
    noise = least_noise(epsilon=epsilon, delta=DELTA, sampling_rate=rate, steps=steps)
    assert 0.98 * epsilon < epsilon_of([event(noise=noise, rate=rate, steps=steps)], DELTA) <= epsilon
    assert epsilon_of([event(noise=0.95 * noise, rate=rate, steps=steps)], DELTA) > epsilon
