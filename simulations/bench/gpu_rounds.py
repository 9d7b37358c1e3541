"""A program of `fleetlearn bench gpu`: rounds of a workload by the stacked engine, the model never leaving the card."""

from dataclasses import dataclass

import torch

from cloud.aggregation.averaging import FedAvg
from cloud.aggregation.rule import Fold, Rule, Updates
from simulations.bench.peers.record import Record, arguments
from simulations.engines.cuda.engine import CudaEngine, CudaOptions
from simulations.engines.cuda.precision import Precision
from simulations.engines.port import Assignment, Collector, Engine, Trained
from simulations.problem import Problem
from simulations.workloads.suite import WORKLOADS, Workload


@dataclass(frozen=True)
class Averaging(Collector):
    """Every update counts by the number of examples it was trained on."""

    rule: Rule

    def begin(self, assignment: Assignment) -> Fold:
        return self.rule.begin(assignment.start)

    def add(self, fold: Fold, assignment: Assignment, trained: Trained) -> None:
        examples = (assignment.batches[trained.positions] >= 0).sum(dim=(1, 2)).double()
        steps = assignment.steps[trained.positions].double()
        nothing = torch.zeros_like(steps)
        self.rule.add(fold, Updates(trained.deltas, examples, steps, losses=nothing, staleness=nothing))


def main() -> None:
    options = arguments(__doc__)
    record, load = Record(options.started), WORKLOADS[options.workload]
    problem = load.problem()
    engine = CudaEngine(problem, load.local, CudaOptions(device=options.device, precision=Precision(options.precision)))
    model = first_model(problem, engine.device)
    for number in range(options.rounds):
        model = one_round(engine, load, model, number)
        if number in (0, 1, options.rounds - 1):
            # The rounds between are not waited for: the next is made ready while the card works.
            wait(engine.device)
            record.mark()
    print(record.whole(accuracy=accuracy(problem, model), rounds=options.rounds - 2), flush=True)


def first_model(problem: Problem, device: torch.device) -> torch.Tensor:
    """The problem's first model as one vector, on the device."""
    return torch.nn.utils.parameters_to_vector(problem.model(0).parameters()).detach().to(device)


def one_round(engine: Engine, load: Workload, model: torch.Tensor, number: int) -> torch.Tensor:
    """The model after a round of federated averaging, whose seed is its number."""
    rule = FedAvg()
    fold = engine.train(load.assignment(model, seed=number), Averaging(rule))
    return rule.finish(model, {}, fold)[0]


def accuracy(problem: Problem, model: torch.Tensor) -> float:
    """The share of test examples that the model names right."""
    module = problem.model(0).eval().to(model.device)
    torch.nn.utils.vector_to_parameters(model, module.parameters())
    with torch.no_grad():
        named = module(problem.test.inputs.to(model.device)).argmax(dim=1).cpu()
    return float((named == problem.test.labels).double().mean())


def wait(device: torch.device) -> None:
    """Until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
