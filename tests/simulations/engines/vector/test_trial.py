"""A trial measures no more than it must."""

import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from simulations.engines.port import Assignment, LocalTraining, Sgd, Trained
from simulations.engines.vector.choice import Choice, Way
from simulations.engines.vector.layers.kernel import Convolve, Form, Weights
from simulations.engines.vector.training import Training
from simulations.engines.vector.trial import Measured, Trial, promising
from tests.simulations.engines.problems import dense, problem, start_of

FORMS = [Form(weights, convolve) for convolve in Convolve for weights in Weights]
STEPS = 40
WAYS = [Choice(Way.STACKED, 1), Choice(Way.IN_PLACE, 1)]


class Slow(Training):
    """Takes so long for each step, and counts them."""

    def __init__(self, step_s: float, *, in_place_s: float | None = None) -> None:
        super().__init__(problem(dense), LocalTraining(Sgd(0.1)), None)
        self._step_s, self._in_place_s = step_s, step_s if in_place_s is None else in_place_s
        self.steps = 0

    def updates(self, assignment: Assignment, positions: torch.Tensor, choice: Choice) -> Iterator[Trained]:
        taken = int(assignment.steps[positions].sum())
        self.steps += taken
        ends = time.thread_time() + taken * (self._in_place_s if choice.way is Way.IN_PLACE else self._step_s)
        while time.thread_time() < ends:
            pass
        return super().updates(assignment, positions, choice)


def assignment() -> Assignment:
    subject = problem(dense)
    batches = torch.zeros(8, STEPS, 1, dtype=torch.int64)
    return Assignment(torch.arange(8), batches, torch.full((8,), STEPS), start_of(subject), seeds=torch.arange(8))


def test_of_a_large_model_two_clients_are_trained_in_each_way_that_its_first_steps_leave() -> None:
    training = Slow(step_s=0.002)
    verdict = Trial(training, assignment(), share=8, budget_s=1.0, has_draws=False).run(WAYS)
    # Two steps of one client to compare with, of each way, and once more; then whole clients.
    assert training.steps <= 2 + 2 * len(WAYS) + 2 + (2 + 1) * STEPS
    best = verdict.best
    assert best is not None
    assert best.client_s > STEPS * 0.002


def test_of_a_large_model_whose_clients_take_few_steps_the_first_steps_tell() -> None:
    training = Slow(step_s=0.01, in_place_s=0.02)
    few = replace(assignment(), steps=torch.full((8,), 5))
    verdict = Trial(training, few, share=8, budget_s=1.0, has_draws=False).run(WAYS)
    # Two steps to compare with, of each way twice, since the first run loads it; and once to see that it is large.
    assert training.steps <= 2 + 2 * 2 * len(WAYS) + 2
    best = verdict.best
    assert best is not None
    assert best.choice == Choice(Way.STACKED, 4)


def test_of_ways_that_take_nearly_the_same_it_takes_the_best_guess() -> None:
    few = replace(assignment(), steps=torch.full((8,), 5))
    for ways in (WAYS, WAYS[::-1]):
        best = Trial(Slow(step_s=0.05), few, share=8, budget_s=1.0, has_draws=False).run(ways).best
        assert best is not None
        assert best.choice.way is ways[0].way


def test_a_way_whose_first_steps_take_much_longer_is_not_measured_further() -> None:
    training = Slow(step_s=0.002, in_place_s=0.01)
    verdict = Trial(training, assignment(), share=8, budget_s=10.0, has_draws=False).run(WAYS)
    assert {each.choice.way for each in verdict.measured} == {Way.STACKED}
    assert training.steps <= 2 + 2 * len(WAYS) + 2 + 2 * STEPS


def test_a_small_models_chunks_are_measured_whole() -> None:
    training = Slow(step_s=0.0)
    short = replace(assignment(), steps=torch.full((8,), 3))
    verdict = Trial(training, short, share=8, budget_s=1.0, has_draws=False).run(WAYS)
    assert max(each.choice.chunk for each in verdict.measured) == 8


def left(client_ms: dict[Form, float]) -> list[Form | None]:
    alone = [Measured(Choice(Way.LAYERS, 1, form), 1e-3 * ms) for form, ms in client_ms.items()]
    return [choice.form for choice in promising(alone)]


def test_convolutions_that_lose_by_far_in_the_first_steps_are_not_measured_further_with_any_weights() -> None:
    each = {Form(weights, Convolve.EACH): 100.0 for weights in Weights}
    unfolded = {Form(weights, Convolve.UNFOLDED): 125.0 for weights in Weights}
    assert left(each | unfolded) == list(each)
    assert left(each | dict.fromkeys(unfolded, 115.0)) == [*each, *unfolded]


def test_weights_that_lose_in_the_first_steps_are_measured_on_whole_clients() -> None:
    client_ms = {Form(Weights.SHARED, Convolve.EACH): 100.0, Form(Weights.OWN, Convolve.EACH): 140.0}
    assert left(client_ms) == list(client_ms)


@given(st.lists(st.floats(0.01, 1000.0), min_size=len(FORMS), max_size=len(FORMS)))
def test_what_is_fastest_in_the_first_steps_is_measured_further(client_ms: list[float]) -> None:
    assert FORMS[client_ms.index(min(client_ms))] in left(dict(zip(FORMS, client_ms, strict=True)))
