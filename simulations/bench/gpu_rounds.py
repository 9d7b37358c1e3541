"""Rounds of a workload on a GPU, the model never leaving it: `python -m simulations.bench.gpu_rounds --workload w4`."""

import argparse
import json
import time
from dataclasses import dataclass

import torch

from cloud.aggregation.averaging import FedAvg
from cloud.aggregation.rule import Fold, Rule, Updates
from simulations.engines.cuda.engine import CudaEngine, CudaOptions
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
        nobody = torch.full_like(steps, float("nan"))
        self.rule.add(fold, Updates(trained.deltas, examples, steps, nobody, torch.zeros_like(steps)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", choices=sorted(WORKLOADS), required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    load = WORKLOADS[options.workload]
    problem = load.problem()
    began = time.perf_counter()
    engine = CudaEngine(problem, load.local, CudaOptions(device=options.device))
    model = first_model(problem, engine.device)
    model = rounds(engine, load, model, first=0, count=2)
    wait(engine.device)
    start_s = time.perf_counter() - began
    began = time.perf_counter()
    model = rounds(engine, load, model, first=2, count=options.rounds)
    wait(engine.device)
    seconds = time.perf_counter() - began
    peak = torch.cuda.max_memory_reserved() if engine.device.type == "cuda" else 0
    print(
        json.dumps(
            {
                "workload": load.name,
                "updates_per_s": load.cohort * options.rounds / seconds,
                "round_ms": 1000 * seconds / options.rounds,
                "start_s": start_s,
                "gpu_peak_mb": peak / 1e6,
                "accuracy": accuracy(problem, model),
            }
        ),
        flush=True,
    )


def first_model(problem: Problem, device: torch.device) -> torch.Tensor:
    """The problem's first model as one vector, on the device."""
    return torch.nn.utils.parameters_to_vector(problem.model(0).parameters()).detach().to(device)


def rounds(engine: Engine, load: Workload, model: torch.Tensor, *, first: int, count: int) -> torch.Tensor:
    """The model after so many rounds of federated averaging, whose seeds begin at `first`."""
    rule = FedAvg()
    collector, state = Averaging(rule), rule.init(model)
    for number in range(first, first + count):
        fold = engine.train(load.assignment(model, seed=number), collector)
        model, state = rule.finish(model, state, fold)
    return model


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
