"""Simulated cohorts by utility: the coordinator's choice, remembered in the course alone, at the cohort's cost."""

import time

import numpy as np

from simulations.behaviour.course import ModelledBehaviour
from simulations.behaviour.settings import BehaviourSettings, Bernoulli, Devices
from simulations.experiments.file import experiment_of
from simulations.experiments.run import run
from simulations.partitions.settings import Drawn
from simulations.populations.batches import Shuffled
from simulations.populations.drawn import DrawnPopulation
from simulations.rounds.by_utility import ByUtility
from simulations.rounds.participation import Course, InSync, Turn
from simulations.virtual_time.synchronous import Patience, SynchronousRounds


def go(chooser: ByUtility, rounds: int, course: Course | None = None, first: int = 1) -> tuple[list[Turn], Course]:
    """Clients whose number is a multiple of seven have a hundred times as much to learn."""
    course, turns = course or chooser.begin(), []
    for number in range(first, first + rounds):
        turn, course = chooser.turn(number, course)
        course = chooser.learned(number, course, turn, np.where(turn.clients % 7 == 0, 100.0, 1.0))
        turns.append(turn)
    return turns, course


def rounds(clients: int, behaviour: BehaviourSettings) -> SynchronousRounds:
    population = DrawnPopulation(Drawn(examples=20), np.arange(500) % 10, clients=clients, seed=1)
    patience = Patience(asked=20, quorum=5, deadline_s=1e5)
    return SynchronousRounds(
        population, ModelledBehaviour(behaviour, seed=2), patience, Shuffled(batch=10), 1e5, 1e5, seed=3
    )


def test_who_has_most_to_teach_comes_again_and_everybody_is_tried() -> None:
    turns, course = go(ByUtility(140, 20, seed=1), 60)
    assert all(len(turn.clients) == 20 and (np.diff(turn.clients) > 0).all() for turn in turns)
    late = np.concatenate([turn.clients for turn in turns[40:]])
    assert (late % 7 == 0).mean() > 0.4  # all alike would be a seventh
    assert len(course["known_clients"]) == 140
    assert course["known_times"].sum() == 60 * 20


def test_a_run_continues_from_its_course_as_if_it_had_not_stopped() -> None:
    chooser = ByUtility(10_000_000, 20, seed=1, rounds=rounds(10_000_000, BehaviourSettings(dropout=0.1)))
    whole, _ = go(chooser, 12)
    _, middle = go(chooser, 5)
    rest, _ = go(chooser, 7, course={name: value.copy() for name, value in middle.items()}, first=6)
    for one, other in zip(whole[5:], rest, strict=True):
        assert np.array_equal(one.clients, other.clients)
        assert one.clock_s == other.clock_s


def test_slow_clients_are_asked_less_so_rounds_are_shorter() -> None:
    settings = BehaviourSettings(devices=Devices(seconds_per_example=1, sigma=1.2, jitter=0))
    in_sync = rounds(200, settings)
    by_utility, _ = go(ByUtility(200, 20, seed=1, rounds=in_sync), 60)
    uniform, course = InSync(in_sync), InSync(in_sync).begin()
    for number in range(1, 61):
        turn, course = uniform.turn(number, course)
    assert by_utility[-1].clock_s < 0.8 * turn.clock_s


def test_only_clients_that_are_there_are_chosen() -> None:
    settings = BehaviourSettings(availability=Bernoulli(chance=0.3, period_s=1e9))
    in_sync = rounds(300, settings)
    turns, _ = go(ByUtility(300, 20, seed=1, rounds=in_sync), 20)
    for turn in turns:
        assert in_sync.behaviour.is_there(turn.clients, np.zeros(len(turn.clients))).all()


def test_ten_million_clients_cost_what_a_thousand_do() -> None:
    def cost(clients: int) -> float:
        start = time.process_time()
        go(ByUtility(clients, 50, seed=1), 10)
        return time.process_time() - start

    cost(1000)
    assert min(cost(10_000_000) for _ in range(3)) < 5 * min(cost(1000) for _ in range(3)) + 0.02


def test_an_experiment_draws_by_utility() -> None:
    settings = {
        "rounds": 6,
        "population": {"clients": 8},
        "cohort": {"clients": 4, "draw": "utility"},
        "local": {"batch_size": 20, "epochs": 2},
    }
    accuracy = run(experiment_of(settings)).metrics.columns["test_accuracy"]
    assert accuracy[-1] > accuracy[0] + 0.2
