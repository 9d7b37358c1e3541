"""Our series of the subsampled Gaussian agrees with Opacus' at every order, wherever noise and sampling are."""

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants.analysis import rdp

from shared.renyi import ORDERS, divergences, epsilon_at

RATES = st.just(1.0) | st.floats(1e-5, 0.999) | st.floats(-5, -0.01).map(lambda power: 10.0**power)


@settings(max_examples=40, deadline=None)
@given(noise=st.floats(-0.6, 1.7).map(lambda power: 10.0**power), rate=RATES, steps=st.sampled_from([1, 10, 1000]))
def test_agrees_with_opacus_at_every_order_and_in_epsilon(noise: float, rate: float, steps: int) -> None:
    ours = divergences(noise, rate)
    theirs = rdp.compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=list(ORDERS))
    # Both lose digits where a moment is 1 to the last of them.
    assert ours == pytest.approx(list(theirs), rel=1e-6, abs=1e-11)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the")
        epsilon, _ = rdp.get_privacy_spent(orders=list(ORDERS), rdp=theirs * steps, delta=1e-6)
    assert epsilon_at(1e-6, [steps * each for each in ours]) == pytest.approx(float(epsilon), rel=1e-6, abs=1e-6)


def test_the_comparison_would_notice_a_hundredth_less_noise() -> None:
    theirs = rdp.compute_rdp(q=0.1, noise_multiplier=1.0, steps=1, orders=list(ORDERS))
    assert divergences(0.99, 0.1) != pytest.approx(list(theirs), rel=1e-3)


def test_next_to_no_noise_costs_more_than_anybody_allows() -> None:
    assert epsilon_at(1e-5, divergences(1e-6, 0.5)) > 1e9
    assert epsilon_at(1e-5, divergences(1e-6, 1.0)) > 1e9
