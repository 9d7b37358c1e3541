"""Every engine, and every way of the vector engine, gives what the reference gives."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn

from edge_agent.training.algorithms.alternation import Alternation
from simulations.engines.errors import UnsupportedModelError
from simulations.engines.port import Adam, Assignment, Engine, ExamplePrivacy, LocalTraining, Sgd
from simulations.engines.reference import ReferenceEngine
from simulations.engines.vector.choice import Choice, Way
from simulations.engines.vector.engine import VectorEngine, VectorSettings
from simulations.engines.vector.layers.kernel import Convolve, Form, Weights
from simulations.problem import Problem
from tests.simulations.engines.problems import (
    Residual,
    Rows,
    convolutional,
    dense,
    dropping,
    frozen_statistics,
    partly_frozen,
    problem,
    sensor,
    start_of,
    uneven,
)

Make = Callable[[Problem, LocalTraining], Engine]


def forced(choice: Choice, *, processes: int = 1) -> Make:
    settings = VectorSettings(processes=processes, choice=choice, cache_folder=None)
    return lambda problem, local: VectorEngine(problem, local, settings)


def layers(weights: Weights, convolve: Convolve, chunk: int) -> Make:
    return forced(Choice(Way.LAYERS, chunk, Form(weights, convolve)))


ENGINES: dict[str, Make] = {
    "chosen": lambda problem, local: VectorEngine(problem, local, VectorSettings(1, trial_s=0.01, cache_folder=None)),
    "in two processes": lambda problem, local: VectorEngine(
        problem, local, VectorSettings(2, trial_s=0.01, cache_folder=None)
    ),
    "in place": forced(Choice(Way.IN_PLACE, 3)),
    "stacked": forced(Choice(Way.STACKED, 3)),
    "layers, shared, each": layers(Weights.SHARED, Convolve.EACH, 3),
    "layers, shared, unfolded": layers(Weights.SHARED, Convolve.UNFOLDED, 100),
    "layers, own, each": layers(Weights.OWN, Convolve.EACH, 100),
    "layers, own, unfolded": layers(Weights.OWN, Convolve.UNFOLDED, 2),
}

LOCAL: dict[str, LocalTraining] = {
    "sgd": LocalTraining(Sgd(0.3), wants_start_loss=True),
    "momentum": LocalTraining(Sgd(0.3, momentum=0.9)),
    "everything": LocalTraining(Sgd(0.3, momentum=0.8, weight_decay=0.05), proximal=0.4),
    "adam": LocalTraining(Adam(0.02, weight_decay=0.05), proximal=0.4),
    "clipped": LocalTraining(Sgd(0.3), ExamplePrivacy(0.5, 0.0, expected_batch=4.0)),
    "private": LocalTraining(Adam(0.02), ExamplePrivacy(0.5, 0.7, expected_batch=4.0), proximal=0.4),
}


@pytest.fixture(params=ENGINES)
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    opened: list[Engine] = []

    def opening(problem: Problem, local: LocalTraining) -> Engine:
        try:
            opened.append(ENGINES[request.param](problem, local))
            return opened[-1]
        except UnsupportedModelError:
            pytest.skip("refused, with a reason")

    yield opening
    for engine in opened:
        engine.close()


class EngineContract:
    """What every engine keeps."""

    @pytest.mark.parametrize("local", LOCAL.values(), ids=LOCAL)
    @pytest.mark.parametrize("build", [dense, convolutional, sensor, Residual, partly_frozen])
    def test_every_client_gets_the_update_of_the_reference(
        self, make: Make, build: Callable[[], nn.Module], local: LocalTraining
    ) -> None:
        subject = problem(build)
        same(make, subject, local, uneven(start_of(subject)))

    @pytest.mark.parametrize("build", [dense, convolutional])
    def test_starts_and_corrections_may_be_each_clients_own(self, make: Make, build: Callable[[], nn.Module]) -> None:
        subject = problem(build)
        assignment = uneven(start_of(subject))
        each = assignment.start + 0.1 * torch.randn(
            7, len(assignment.start), generator=torch.Generator().manual_seed(1)
        )
        for local in (LOCAL["sgd"], LOCAL["everything"], LOCAL["adam"]):
            same(make, subject, local, replace(assignment, start=each, learning_rate_factor=0.5))
            same(make, subject, local, replace(assignment, linear=0.1 * each[0]))
            same(make, subject, local, replace(assignment, start=each.flip(0), linear=0.1 * each))

    @pytest.mark.parametrize("name", ["everything", "adam", "private"])
    def test_head_and_body_take_turns_where_the_engine_can(self, make: Make, name: str) -> None:
        subject = problem(dense)
        head = tuple(name for name, _ in subject.model(0).named_parameters())[-2:]
        local = replace(LOCAL[name], alternation=Alternation(head, 0.6))
        alone = same(make, subject, local, uneven(start_of(subject)))
        together = referenced(subject, LOCAL[name], uneven(start_of(subject)))
        assert not torch.allclose(alone["deltas"], together["deltas"], atol=1e-4)

    def test_frozen_batch_norm_keeps_its_statistics(self, make: Make) -> None:
        subject = problem(frozen_statistics)
        same(make, subject, LOCAL["everything"], uneven(start_of(subject)))

    def test_a_client_that_diverges_harms_no_other(self, make: Make) -> None:
        subject = problem(dense)
        subject.train.inputs[0] = float("nan")
        assignment = uneven(start_of(subject))
        assignment.batches[assignment.batches == 0] = 1
        assignment.batches[4, 1, 0] = 0
        fold = same(make, subject, LOCAL["sgd"], assignment)
        assert fold["deltas"].isnan().any(dim=1).tolist() == [False] * 4 + [True] + [False] * 2

    def test_a_private_step_without_examples_is_noise_alone(self, make: Make) -> None:
        subject = problem(dense)
        assignment = uneven(start_of(subject))
        assignment.batches[1, 2] = -1
        assignment.batches[5] = -1
        same(make, subject, LOCAL["private"], assignment)

    def test_an_engine_trains_round_after_round(self, make: Make) -> None:
        subject = problem(dense)
        engine, reference = make(subject, LOCAL["momentum"]), ReferenceEngine(subject, LOCAL["momentum"])
        assignment = uneven(start_of(subject))
        for _ in range(3):
            fold = trained(engine, assignment)
            close(fold["deltas"], reference.train(assignment, Rows())["deltas"])
            assignment = replace(assignment, start=assignment.start + fold["deltas"].mean(dim=0))

    def test_dropout_keeps_the_mean(self, make: Make) -> None:
        subject = problem(dropping)
        start = start_of(subject)
        clients = 150
        assignment = Assignment(
            clients=torch.arange(clients),
            batches=torch.arange(8).expand(clients, 1, 8).contiguous(),
            steps=torch.ones(clients, dtype=torch.int64),
            start=start,
            seeds=torch.arange(clients),
        )
        deltas = trained(make(subject, LOCAL["sgd"]), assignment)["deltas"]
        expected = ReferenceEngine(subject, LOCAL["sgd"]).train(assignment, Rows())["deltas"]
        spread = expected.std(dim=0) / clients**0.5
        assert ((deltas.mean(dim=0) - expected.mean(dim=0)).abs() <= 5 * spread * 2**0.5 + 1e-6).all()
        assert len(set(deltas[:50, 0].tolist())) > 10  # clients draw their own


class TestEngines(EngineContract):
    pass


def same(make: Make, subject: Problem, local: LocalTraining, assignment: Assignment) -> dict[str, torch.Tensor]:
    """The engine's fold, which is the reference's."""
    fold = trained(make(subject, local), assignment)
    expected = referenced(subject, local, assignment)
    close(fold["deltas"], expected["deltas"])
    torch.testing.assert_close(fold["losses"], expected["losses"], rtol=1e-4, atol=1e-5, equal_nan=True)
    assert (fold["times"] == 1).all()
    if local.wants_start_loss:
        busy = assignment.steps > 0
        one = [position for position in range(len(assignment)) if busy[position]]
        some = Assignment(
            assignment.clients[one],
            assignment.batches[one],
            assignment.steps[one],
            assignment.start if assignment.start.dim() == 1 else assignment.start[one],
        )
        known = ReferenceEngine(subject, local).train(some, Rows())["start_losses"]
        torch.testing.assert_close(fold["start_losses"][busy], known, rtol=1e-4, atol=1e-5, equal_nan=True)
    return fold


_KNOWN: dict[str, dict[str, torch.Tensor]] = {}


def referenced(subject: Problem, local: LocalTraining, assignment: Assignment) -> dict[str, torch.Tensor]:
    """What the slow reference gives: the same for all engines, so computed once."""
    key = hashlib.sha256(repr((subject.name, local, str(assignment))).encode()).hexdigest()
    if key not in _KNOWN:
        _KNOWN[key] = ReferenceEngine(subject, replace(local, wants_start_loss=False)).train(assignment, Rows())
    return _KNOWN[key]


def trained(engine: Engine, assignment: Assignment) -> dict[str, torch.Tensor]:
    try:
        return engine.train(assignment, Rows())
    except UnsupportedModelError:
        pytest.skip("refused, with a reason")


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    scale = float(expected.nan_to_num().abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-5 * max(1.0, scale), equal_nan=True)
