"""The workloads are what their names promise."""

import pytest
import torch

from simulations.workloads.data import shapes_under_noise
from simulations.workloads.suite import WORKLOADS, Workload

PARAMETERS = {
    "w1": 1_663_370,
    "w2": 199_210,
    "w3": 199_210,
    "w4": 1_626_442,
    "w5": 9_406,
    "w6": 9_406,
    "w7": 199_210,
}


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS.keys())
def test_a_model_has_the_published_number_of_parameters(workload: Workload) -> None:
    model = workload.model(0)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[workload.name]
    assert model.eval()(torch.zeros(2, *workload.shape)).shape == (2, workload.classes)


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS.keys())
def test_a_round_gives_every_client_each_of_its_own_rows_once(workload: Workload) -> None:
    assignment = workload.assignment(torch.zeros(3), seed=1)
    rows = assignment.batches.flatten(1).sort(dim=1).values
    own = assignment.clients[:, None] * workload.examples + torch.arange(workload.examples)
    torch.testing.assert_close(rows[:, -workload.examples :], own)
    assert len(set(assignment.clients.tolist())) == workload.cohort


def test_same_seed_same_round_and_other_seed_another() -> None:
    first, again, other = (WORKLOADS["w2"].assignment(torch.zeros(3), seed=seed).batches for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_classes_have_the_same_shapes_in_training_and_test_data() -> None:
    train, test = (shapes_under_noise(3000, shape=(6, 64), classes=3, signal=1.0, seed=seed) for seed in (0, 1))
    means = [
        torch.stack([data.inputs[data.labels == label].mean(dim=0) for label in range(3)]) for data in (train, test)
    ]
    torch.testing.assert_close(means[0], means[1], atol=0.2, rtol=0)
