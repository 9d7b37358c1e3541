"""A round on Flower's simulation engine is the reference's round. Needs the extra `ray`; starting Ray takes seconds."""

from collections.abc import Iterator

import pytest
import torch

from simulations.engines.errors import EngineStoppedError
from simulations.engines.flower import FlowerEngine, FlowerOptions
from simulations.engines.port import Adam, LocalTraining
from tests.simulations.engines.cuda.cohorts import Rows, assert_same, image_net, problem, reference, unequal_round

pytest.importorskip("ray", reason="the extra `ray` is not installed")

# Ray and Flower leave files open, and Flower warns that its simulation will one day only start from its own command.
pytestmark = [
    pytest.mark.timeout(170),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

SMALL = problem(image_net)
LOCAL = LocalTraining(Adam(0.01), proximal=0.2, wants_start_loss=True)


@pytest.fixture(scope="module")
def engine() -> Iterator[FlowerEngine]:
    started = FlowerEngine(SMALL, LOCAL, FlowerOptions(silence_max_s=120.0))
    yield started
    started.close()


def test_rounds_of_unequal_clients_are_the_references(engine: FlowerEngine) -> None:
    for seed in (0, 1):
        plan = unequal_round(SMALL, seed=seed)
        assert_same(engine, reference(SMALL, LOCAL, plan), plan)


def test_a_client_that_fails_ends_the_round_with_its_reason(engine: FlowerEngine) -> None:
    plan = unequal_round(SMALL)
    wrong = torch.zeros(3)
    with pytest.raises(EngineStoppedError, match="error of a client"):
        engine.train(type(plan)(plan.clients, plan.batches, plan.steps, wrong), Rows())
