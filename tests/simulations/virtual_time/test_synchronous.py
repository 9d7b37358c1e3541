"""Rounds in virtual time decide as the coordinator decides."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.campaigns.rounds import Reply, RoundState, ask, hear, open_round, tick
from shared.ids import DeviceId
from simulations.behaviour.course import ModelledBehaviour
from simulations.behaviour.settings import BehaviourSettings, Bernoulli, Devices, Diurnal
from simulations.partitions.settings import Drawn
from simulations.populations.batches import Shuffled
from simulations.populations.drawn import DrawnPopulation
from simulations.virtual_time.errors import NobodyThereError
from simulations.virtual_time.synchronous import Patience, SynchronousRounds, hold


def coordinators_round(
    arrived_s: Sequence[float], *, quorum: int, enough: int | None, deadline_s: float
) -> tuple[list[int], float, bool]:
    """The coordinator's own round machine, told of each update at its moment."""
    devices = [DeviceId(f"d-{number:03}") for number in range(len(arrived_s))]
    current = ask(open_round(1, attempt=1, quorum=quorum), devices, deadline_at=deadline_s)
    now_s = 0.0
    for moment_s in sorted({*(moment for moment in arrived_s if moment < deadline_s), deadline_s}):
        for device, arrival_s in zip(devices, arrived_s, strict=True):
            if arrival_s == moment_s and moment_s < deadline_s:
                current = hear(current, device, Reply.UPDATE)
        current, now_s = tick(current, now=moment_s, enough=enough), moment_s
        if current.state is not RoundState.WAITING:
            break
    accepted = [number for number, device in enumerate(devices) if device in current.accepted]
    return accepted, now_s, current.state is RoundState.ABANDONED


@given(
    arrived_s=st.lists(st.integers(1, 20).map(float) | st.just(float("inf")), min_size=1, max_size=12),
    quorum=st.integers(1, 6),
    enough=st.none() | st.integers(1, 12),
    deadline_s=st.integers(1, 22).map(float),
)
def test_a_round_is_held_as_the_coordinator_holds_it(
    arrived_s: list[float], quorum: int, enough: int | None, deadline_s: float
) -> None:
    quorum = min(quorum, len(arrived_s))
    enough = enough and max(enough, quorum)
    patience = Patience(asked=len(arrived_s), quorum=quorum, enough=enough, deadline_s=deadline_s)
    held = hold(np.array(arrived_s), asked_s=0.0, patience=patience)
    accepted, ended_s, is_abandoned = coordinators_round(arrived_s, quorum=quorum, enough=enough, deadline_s=deadline_s)
    assert (held.accepted.tolist(), held.ended_s, held.is_abandoned) == (accepted, ended_s, is_abandoned)


def test_with_enough_updates_the_round_does_not_wait_for_the_slow() -> None:
    held = hold(
        np.array([50.0, 10.0, np.inf, 20.0]), asked_s=5.0, patience=Patience(4, quorum=1, enough=2, deadline_s=99)
    )
    assert held.accepted.tolist() == [1, 3]
    assert held.ended_s == 20


def rounds(behaviour: BehaviourSettings, patience: Patience, clients: int = 10_000_000) -> SynchronousRounds:
    population = DrawnPopulation(Drawn(examples=20, sigma=0.5), np.arange(1000) % 10, clients=clients, seed=1)
    return SynchronousRounds(
        population,
        ModelledBehaviour(behaviour, seed=2),
        patience,
        Shuffled(batch=10),
        bytes_down=4e6,
        bytes_up=1e6,
        seed=3,
    )


def test_a_round_is_a_function_of_its_number_and_its_start() -> None:
    settings = BehaviourSettings(availability=Bernoulli(chance=0.2), dropout=0.1)
    some = rounds(settings, Patience(asked=130, quorum=50, enough=100))
    first, again = (some.take_part(4, clock_s=1234.5) for _ in range(2))
    assert np.array_equal(first.clients, again.clients)
    assert first.ended_s == again.ended_s
    assert len(first.clients) == 100
    assert (np.diff(first.clients) > 0).all()
    assert first.asked == 130 == len(first.clients) + first.late + first.lost
    other = some.take_part(5, clock_s=1234.5)
    assert not np.array_equal(first.clients, other.clients)


def test_a_deadline_costs_the_slow_clients_and_a_longer_one_time() -> None:
    settings = BehaviourSettings(devices=Devices(seconds_per_example=1, sigma=1))
    patient, hasty = (rounds(settings, Patience(100, quorum=10, deadline_s=limit)) for limit in (2000.0, 30.0))
    slow, fast = patient.take_part(1, clock_s=0.0), hasty.take_part(1, clock_s=0.0)
    assert len(slow.clients) == 100
    assert 10 <= len(fast.clients) < 100
    assert fast.ended_s == 30
    assert slow.ended_s > 60
    assert set(fast.clients) < set(slow.clients)


def test_an_abandoned_round_is_tried_again_with_other_clients_and_later() -> None:
    settings = BehaviourSettings(dropout=0.5)
    part = rounds(settings, Patience(asked=10, quorum=7, deadline_s=500)).take_part(1, clock_s=0.0)
    assert part.attempts > 1
    assert part.ended_s >= 500 * (part.attempts - 1)
    assert part.asked == 10 * part.attempts
    assert len(part.clients) >= 7


def test_a_round_waits_until_its_quorum_is_there() -> None:
    night = BehaviourSettings(availability=Diurnal(start_h=20, spread_h=0.2, hours=4))
    part = rounds(night, Patience(asked=50, quorum=50), clients=200).take_part(1, clock_s=6 * 3600.0)
    assert part.started_s == 6 * 3600
    assert part.ended_s > 19 * 3600


def test_a_round_that_cannot_be_is_given_up_with_what_would_help() -> None:
    with pytest.raises(NobodyThereError, match="Expected 6 updates in round 1") as no_quorum:
        rounds(BehaviourSettings(dropout=0.9), Patience(asked=6, quorum=6)).take_part(1, clock_s=0.0)
    assert no_quorum.value.hint
    rare = BehaviourSettings(availability=Bernoulli(chance=1e-9))
    with pytest.raises(NobodyThereError, match="7 days"):
        rounds(rare, Patience(asked=6, quorum=6), clients=50).take_part(1, clock_s=0.0)
