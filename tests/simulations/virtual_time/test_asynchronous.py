"""Asynchronous steps in virtual time: as FedBuff's algorithm, replayed event by event."""

import heapq
from dataclasses import replace

import numpy as np
import pytest

from simulations.behaviour.course import Load, ModelledBehaviour
from simulations.behaviour.settings import BehaviourSettings, Bernoulli, Devices, Diurnal
from simulations.keyed import Stream
from simulations.partitions.settings import Drawn
from simulations.populations.batches import Shuffled
from simulations.populations.drawn import DrawnPopulation
from simulations.populations.errors import CohortTooLargeError
from simulations.virtual_time.asynchronous import AsynchronousRounds, InFlight
from simulations.virtual_time.errors import NobodyThereError
from simulations.virtual_time.synchronous import Participation


def rounds(behaviour: BehaviourSettings | None = None, *, clients: int = 10_000_000) -> AsynchronousRounds:
    population = DrawnPopulation(Drawn(examples=20, sigma=1), np.arange(1000) % 10, clients=clients, seed=1)
    return AsynchronousRounds(
        population,
        ModelledBehaviour(behaviour or BehaviourSettings(devices=Devices(sigma=1)), seed=2),
        buffer=4,
        concurrency=20,
        work=Shuffled(batch=10),
        bytes_down=4e6,
        bytes_up=1e6,
        seed=3,
        timeout_s=600,
    )


def run(some: AsynchronousRounds, steps: int, state: InFlight | None = None) -> tuple[list[Participation], InFlight]:
    state = state or some.begin()
    parts = []
    for _ in range(steps):
        part, state = some.fill(state)
        parts.append(part)
    return parts, state


def test_the_order_of_events_is_that_of_a_plain_event_loop() -> None:
    """Every client always there, nobody lost: the paper's algorithm 1 in ten lines."""
    some = rounds()
    order, number, version, clock_s = Stream.named(3, "asynchronous"), 0, 0, 0.0
    queue: list[tuple[float, int, int, int]] = []

    def start() -> None:
        nonlocal number
        client = np.array([int(order.uniform(number)[()] * some.population.clients)])
        load = Load(some.population.sizes(client).astype(float), some.bytes_down, some.bytes_up)
        seconds = some.behaviour.durations(client, np.array([number]), load)[0]
        heapq.heappush(queue, (clock_s + float(seconds), number, int(client[0]), version))
        number += 1

    for _ in range(some.concurrency):
        start()
    for part in run(some, 30)[0]:
        expected = []
        for position in range(some.buffer):
            done = heapq.heappop(queue)
            clock_s = done[0]
            expected.append(done)
            version += position == some.buffer - 1
            start()
        assert part.clients.tolist() == [client for _, _, client, _ in expected]
        assert part.starts.tolist() == [start for _, start, _, _ in expected]
        assert part.versions is not None
        assert part.versions.tolist() == [started for _, _, _, started in expected]
        assert part.ended_s == clock_s


def test_a_run_continues_from_its_state_as_if_it_had_not_stopped() -> None:
    some = rounds(BehaviourSettings(availability=Bernoulli(chance=0.5), dropout=0.2, devices=Devices(sigma=1)))
    whole, end = run(some, 25)
    _, middle = run(some, 10)
    rest, again = run(some, 15, replace(middle))
    for one, other in zip(whole[10:], rest, strict=True):
        assert np.array_equal(one.clients, other.clients)
        assert one.ended_s == other.ended_s
    assert np.array_equal(end.done_s, again.done_s)
    assert end.candidate == again.candidate


def test_concurrency_is_kept_and_nobody_trains_twice_at_once() -> None:
    some = rounds(clients=25)
    state = some.begin()
    for step in range(1, 40):
        part, state = some.fill(state)
        assert len(part.clients) == some.buffer
        assert len(set(state.clients.tolist()) - {-1}) == (state.clients >= 0).sum() <= some.concurrency
        assert len(state.clients) == some.concurrency
        assert state.version == step
        assert part.versions is not None
        assert set(part.versions) <= set(range(step))
        assert state.versions_needed()[-1] == step


def test_a_lost_client_frees_its_place_when_patience_ends() -> None:
    some = rounds(BehaviourSettings(dropout=0.3))
    parts, _ = run(some, 60)
    lost = sum(part.lost for part in parts)
    assert 0.2 < lost / (lost + 60 * some.buffer) < 0.4


def test_time_stands_still_for_nobody() -> None:
    night = BehaviourSettings(availability=Diurnal(start_h=12, spread_h=0.1, hours=4))
    some = rounds(night, clients=200)
    parts, _ = run(some, 3)
    assert parts[0].ended_s > 10 * 3600
    with pytest.raises(NobodyThereError, match="7 days"):
        run(rounds(BehaviourSettings(availability=Bernoulli(chance=1e-9)), clients=200), 1)


def test_asynchronous_steps_take_less_time_than_rounds_that_wait_for_stragglers() -> None:
    """Nguyen et al.'s point: updates an hour do not depend on the slowest."""
    slow = BehaviourSettings(devices=Devices(seconds_per_example=1, straggler_chance=0.1, straggler_factor=20))
    parts, _ = run(rounds(slow), 50)
    per_update_s = parts[-1].ended_s / (50 * 4)
    load = Load(np.full(20, 20.0), 4e6, 1e6)
    waits_s = np.mean(
        [rounds(slow).behaviour.durations(np.arange(20), np.full(20, n), load).max() / 20 for n in range(50)]
    )
    assert waits_s > 2 * per_update_s


def test_more_at_once_than_there_are_is_refused() -> None:
    with pytest.raises(CohortTooLargeError):
        rounds(clients=19).begin()
