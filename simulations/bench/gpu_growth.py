"""What a round on a GPU costs as clients, parameters and cohort grow; all else as in the middle of each range."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from cloud.aggregation.averaging import FedAvg
from simulations.bench.frame import Say
from simulations.bench.gpu_rounds import Averaging, first_model, wait
from simulations.engines.cuda.engine import CudaEngine, CudaOptions
from simulations.engines.port import Assignment, LocalTraining, Sgd
from simulations.populations.cohorts import uniform_cohort
from simulations.problem import Data, Problem

CLIENTS = (100, 10_000, 1_000_000)
HIDDEN = (128, 1280, 12_800, 128_000)
"""Widths of the hidden layer: about 1e4, 1e5, 1e6 and 1e7 parameters."""
COHORTS = (10, 100, 1000, 10_000)
_INPUTS, _CLASSES, _BATCH, _STEPS, _ROUNDS = 64, 10, 10, 2, 10
_POOL = 60_000
"""Examples on the card; clients hold some of them."""


@dataclass(frozen=True)
class Case:
    """One point of a curve."""

    clients: int = 10_000
    hidden: int = 128
    cohort: int = 100

    @property
    def parameters(self) -> int:
        return (_INPUTS + 1) * self.hidden + (self.hidden + 1) * _CLASSES

    def problem(self) -> Problem:
        data = Data(torch.randn(_POOL, _INPUTS), torch.randint(_CLASSES, (_POOL,)))
        return Problem("growth", self._model, _cross_entropy, data, data, _CLASSES)

    def assignment(self, model: torch.Tensor, number: int) -> Assignment:
        """A round's work: who, by the product's own draw, and which examples."""
        clients = torch.from_numpy(uniform_cohort(self.clients, self.cohort, seed=0, round=number))
        batches = torch.randint(_POOL, (self.cohort, _STEPS, _BATCH))
        return Assignment(clients, batches, torch.full((self.cohort,), _STEPS), start=model, seeds=clients)

    def _model(self, seed: int) -> nn.Module:
        return nn.Sequential(nn.Linear(_INPUTS, self.hidden), nn.ReLU(), nn.Linear(self.hidden, _CLASSES))


def growth(say: Say, *, is_quick: bool) -> dict[str, Mapping[str, float]]:
    """Rows of the bench's table, one after another in this process."""
    cases = {f"{clients:,} clients": Case(clients=clients) for clients in CLIENTS}
    cases |= {f"{Case(hidden=hidden).parameters:,} parameters": Case(hidden=hidden) for hidden in HIDDEN}
    cases |= {f"cohort of {cohort:,}": Case(cohort=cohort) for cohort in COHORTS}
    rows: dict[str, Mapping[str, float]] = {}
    for name, case in list(cases.items())[: 2 if is_quick else None]:
        say(name)
        rows[name] = _measure(case)
    return rows


def _measure(case: Case) -> Mapping[str, float]:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    problem = case.problem()
    engine = CudaEngine(problem, LocalTraining(Sgd(learning_rate=0.1)), CudaOptions())
    rule, model = FedAvg(), first_model(problem, engine.device)
    start = 0.0
    for number in range(_ROUNDS + 2):
        if number == 2:
            wait(engine.device)
            start = time.perf_counter()
        fold = engine.train(case.assignment(model, number), Averaging(rule))
        model, _ = rule.finish(model, {}, fold)
    wait(engine.device)
    round_s = (time.perf_counter() - start) / _ROUNDS
    engine.close()
    peak_mb = torch.cuda.max_memory_allocated() / 1e6
    return {"round_s": round_s, "updates_per_s": case.cohort / round_s, "gpu_peak_mb": peak_mb}


def _cross_entropy(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs, labels, reduction="none")
