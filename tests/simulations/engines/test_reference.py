"""The oracle against arithmetic done by hand."""

import torch

from cloud.aggregation.rule import Fold
from simulations.engines.port import Assignment, Collector, ExamplePrivacy, LocalTraining, Sgd, Trained
from simulations.engines.reference import ReferenceEngine
from simulations.problem import Data, Problem


def line() -> Problem:
    """One weight, squared loss: the gradient of `(w x - y)^2` is `2 x (w x - y)`."""

    def model(seed: int) -> torch.nn.Module:
        return torch.nn.Linear(1, 1, bias=False)

    data = Data(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([2, 2, 3]))
    return Problem("line", model, lambda outputs, labels: (outputs[:, 0] - labels) ** 2, data, data, classes=1)


class Rows(Collector):
    """Keeps every update."""

    def begin(self, assignment: Assignment) -> Fold:
        return {"deltas": torch.zeros(len(assignment), 1), "start_losses": torch.zeros(len(assignment)).double()}

    def add(self, fold: Fold, assignment: Assignment, trained: Trained) -> None:
        fold["deltas"][trained.positions] = trained.deltas
        fold["start_losses"][trained.positions] = trained.start_losses


def assignment(batches: list[list[list[int]]], steps: list[int]) -> Assignment:
    clients = len(batches)
    return Assignment(torch.arange(clients), torch.tensor(batches), torch.tensor(steps), start=torch.zeros(clients, 1))


def test_steps_and_padding_are_as_assigned() -> None:
    engine = ReferenceEngine(line(), LocalTraining(Sgd(0.1), wants_start_loss=True))
    fold = engine.train(assignment([[[0, 1], [2, -1]], [[1, -1], [0, 0]]], steps=[2, 1]), Rows())
    first = 0.1 * (4 + 8) / 2
    second = first - 0.1 * 6 * (3 * first - 3)
    torch.testing.assert_close(fold["deltas"], torch.tensor([[second], [0.1 * 8]]))
    torch.testing.assert_close(fold["start_losses"], torch.tensor([(4 + 4 + 9) / 3, 4.0]).double())


def test_each_example_is_clipped_before_the_sum() -> None:
    privacy = ExamplePrivacy(max_grad_norm=5.0, noise_multiplier=0.0, expected_batch=2.0)
    engine = ReferenceEngine(line(), LocalTraining(Sgd(0.1), privacy=privacy))
    fold = engine.train(assignment([[[0, 1]]], steps=[1]), Rows())
    torch.testing.assert_close(fold["deltas"], torch.tensor([[0.1 * (4 + 5) / 2]]))


def test_a_private_step_without_examples_is_noise_alone() -> None:
    privacy = ExamplePrivacy(max_grad_norm=5.0, noise_multiplier=1.0, expected_batch=2.0)
    engine = ReferenceEngine(line(), LocalTraining(Sgd(0.1), privacy=privacy))
    assert engine.train(assignment([[[-1, -1]]], steps=[1]), Rows())["deltas"].abs() > 0


def test_proximal_and_linear_terms_join_the_gradient() -> None:
    engine = ReferenceEngine(line(), LocalTraining(Sgd(0.1), proximal=0.5))
    plan = assignment([[[0, -1], [0, -1]]], steps=[2])
    plan = Assignment(plan.clients, plan.batches, plan.steps, plan.start, linear=torch.tensor([1.0]))
    first = -0.1 * (-4 + 1)
    second = first - 0.1 * (2 * (first - 2) + 0.5 * first + 1)
    torch.testing.assert_close(engine.train(plan, Rows())["deltas"], torch.tensor([[second]]))
