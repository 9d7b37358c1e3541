"""When clients are there: the same from wherever one looks, and as often as the settings say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations.behaviour.availability import next_available, presence, stays
from simulations.behaviour.settings import Always, Availability, Bernoulli, Diurnal, OnOff

MODELS: tuple[Availability, ...] = (
    Always(),
    Bernoulli(chance=0.3, period_s=100),
    Diurnal(),
    OnOff(on_s=300, off_s=900),
)


@settings(max_examples=80, deadline=None)
@given(
    model=st.sampled_from(MODELS),
    seed=st.integers(0, 1000),
    at_s=st.floats(0, 3e7),
    ahead=st.floats(0, 0.999),
)
def test_a_state_holds_until_the_moment_it_names(model: Availability, seed: int, at_s: float, ahead: float) -> None:
    there, clients = presence(model, seed=seed), np.arange(20)
    now_s = np.full(20, at_s)
    is_there, until_s = there.state(clients, now_s)
    assert (until_s > now_s).all()
    between_s = now_s + ahead * (np.minimum(until_s, now_s + 1e6) - now_s)
    between_s = np.where(between_s < until_s, between_s, now_s)
    assert np.array_equal(there.state(clients, between_s)[0], is_there)
    alone, _ = there.state(clients[7:8], now_s[:1])
    assert alone[0] == is_there[7]


@pytest.mark.parametrize(
    ("model", "share"),
    [
        (Always(), 1),
        (Bernoulli(chance=0.3, period_s=100), 0.3),
        (Diurnal(hours=6), 0.25),
        (OnOff(on_s=300, off_s=900), 0.25),
    ],
)
def test_clients_are_there_as_often_as_asked(model: Availability, share: float) -> None:
    moments = np.random.default_rng(0).uniform(0, 40 * 86_400, 40_000)
    is_there, _ = presence(model, seed=3).state(np.arange(40_000), moments)
    assert abs(is_there.mean() - share) < 0.01


def test_diurnal_clients_come_at_night() -> None:
    there, clients = presence(Diurnal(start_h=22, hours=8, spread_h=1), seed=1), np.arange(4000)
    by_hour = [there.state(clients, np.full(4000, (48 + hour) * 3600.0))[0].mean() for hour in range(24)]
    assert by_hour[2] > 0.98
    assert by_hour[14] < 0.01


def test_times_on_and_off_are_exponential() -> None:
    """Within a block of 16 cycles: the mean time to the next change is the mean of the state, wherever one looks."""
    there = presence(OnOff(on_s=300, off_s=900), seed=5)
    clients = np.arange(20_000)
    is_there, until_s = there.state(clients, np.full(20_000, 4000.0))
    left_s = until_s - 4000
    assert abs(left_s[is_there].mean() / 300 - 1) < 0.05
    assert abs(left_s[~is_there].mean() / 900 - 1) < 0.05


@pytest.mark.parametrize("model", MODELS)
def test_walking_agrees_with_looking_at_every_moment(model: Availability) -> None:
    there, clients = presence(model, seed=9), np.arange(40)
    grid_s = np.arange(0, 4000, 10.0)
    seen = np.stack([there.state(clients, np.full(40, at_s))[0] for at_s in grid_s])
    first = next_available(there, clients, np.zeros(40))
    unbroken = stays(there, clients, np.zeros(40), np.full(40, 3990.0))
    for client in range(40):
        moments = grid_s[seen[:, client]]
        if len(moments):
            assert first[client] <= moments[0]
            assert moments[0] < first[client] + 10
        # A break shorter than the grid can hide; no break that was seen is denied.
        assert not (unbroken[client] and not seen[:, client].all())
