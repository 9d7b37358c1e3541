"""What a round costs a client in time, and what is lost."""

import numpy as np
from scipy import stats

from simulations.behaviour.course import Load, ModelledBehaviour
from simulations.behaviour.settings import BehaviourSettings, Bernoulli, Devices, Network, OnOff

CLIENTS = np.arange(20_000)
EXACT = Devices(seconds_per_example=0.02, sigma=0, jitter=0, overhead_s=3)
LINE = Network(down_mbit_s=16, up_mbit_s=4, sigma=0, latency_s=0.5)


def behaviour(**changed: object) -> ModelledBehaviour:
    return ModelledBehaviour(BehaviourSettings.model_validate({"devices": EXACT, "network": LINE, **changed}), seed=4)


def load(examples: float = 100) -> Load:
    return Load(np.full(len(CLIENTS), examples), bytes_down=4e6, bytes_up=1e6)


def test_a_round_is_fetching_training_and_sending() -> None:
    seconds = behaviour().durations(CLIENTS, CLIENTS * 0, load())
    np.testing.assert_allclose(seconds, 2 * 0.5 + 32 / 16 + 8 / 4 + 3 + 100 * 0.02)


def test_fewer_bytes_take_less_time() -> None:
    full = behaviour().durations(CLIENTS[:1], CLIENTS[:1], Load(np.ones(1), 4e6, 4e6))
    compressed = behaviour().durations(CLIENTS[:1], CLIENTS[:1], Load(np.ones(1), 4e6, 1e6))
    np.testing.assert_allclose(full - compressed, 8 * 3 / 4)


def test_speeds_are_log_normal_between_clients_and_a_clients_own() -> None:
    different = behaviour(devices=Devices(sigma=0.6, jitter=0.1, overhead_s=0), network=Network(sigma=0, latency_s=0))
    rounds = np.stack(
        [different.durations(CLIENTS, np.full(20_000, n), Load(np.full(20_000, 1e5), 0, 0)) for n in (1, 2)]
    )
    logs = np.log(rounds)
    assert stats.kstest((logs[0] - np.log(1000)) / np.hypot(0.6, 0.1), "norm").pvalue > 0.001
    assert abs((logs[0] - logs[1]).std() / (0.1 * np.sqrt(2)) - 1) < 0.05


def test_stragglers_and_lost_clients_are_as_many_as_asked_and_others_each_round() -> None:
    slow = behaviour(devices=EXACT.model_copy(update={"straggler_chance": 0.1}), dropout=0.2)
    first, second = (slow.durations(CLIENTS, np.full(20_000, number), load()) for number in (1, 2))
    assert abs(np.isinf(first).mean() - 0.2) < 0.01
    finite = first[np.isfinite(first)]
    assert abs((finite > finite.min() + 1).mean() - 0.1) < 0.01
    assert 0.03 < (np.isinf(first) & np.isinf(second)).mean() < 0.05


def test_an_update_waits_for_its_client_or_is_lost_with_it() -> None:
    availability = OnOff(on_s=500, off_s=500)
    waits, lost = (behaviour(availability=availability, interrupted=what) for what in ("waits", "lost"))
    asked_s = np.full(20_000, 100.0)
    there = waits.is_there(CLIENTS, asked_s)
    clients, asked_s = CLIENTS[there], asked_s[there]
    finished_s = asked_s + 250
    late = waits.handed_in(clients, asked_s, finished_s)
    assert np.isfinite(late).all()
    assert (late >= finished_s).all()
    assert waits.is_there(clients, late).all()
    kept = np.isfinite(lost.handed_in(clients, asked_s, finished_s))
    # Exponential times have no memory.
    assert abs(kept.mean() - np.exp(-250 / 500)) < 0.02


def test_an_update_of_a_client_that_is_gone_for_good_never_comes() -> None:
    rare = behaviour(availability=Bernoulli(chance=1e-9, period_s=1))
    assert np.isinf(rare.handed_in(CLIENTS[:3], np.zeros(3), np.ones(3))).all()
