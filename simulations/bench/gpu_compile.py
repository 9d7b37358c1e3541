"""What `torch.compile` gains: optimizers that touch whole models often, and a model without hand-written passes."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from simulations.bench.frame import Say
from simulations.bench.gpu_rounds import first_model, one_round, wait
from simulations.engines.cuda.engine import CudaEngine, CudaOptions
from simulations.engines.port import Adam, LocalTraining, Sgd
from simulations.workloads.suite import WORKLOADS, Workload

_ROUNDS = 40
_W4 = WORKLOADS["w4"]
_RATE = 0.1


class ResidualBlock(nn.Module):
    """Two convolutions with group normalization around which the input goes; He et al. 2016, Wu and He 2018."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(8, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.last_norm = nn.GroupNorm(8, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last_norm(self.second(self.norm(self.first(x)).relu()))
        return (x + y).relu()


def residual_network(seed: int) -> nn.Module:
    """Images `(n, 3, 32, 32)`; no chain of layers, so `vmap` computes it."""
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1, stride=2), nn.GroupNorm(8, 32), nn.ReLU(), ResidualBlock(32)),
        *(nn.Conv2d(32, 64, 3, padding=1, stride=2), nn.GroupNorm(8, 64), nn.ReLU(), ResidualBlock(64)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )


@dataclass(frozen=True)
class Case:
    """A workload that is run as it is, and compiled."""

    name: str
    load: Workload

    def measured(self, options: CudaOptions, rounds: int) -> Mapping[str, float]:
        torch.cuda.empty_cache()
        began = time.perf_counter()
        problem = self.load.problem()
        engine = CudaEngine(problem, self.load.local, options)
        model = one_round(engine, self.load, first_model(problem, engine.device), 0)
        wait(engine.device)
        first = time.perf_counter()
        for number in range(rounds):
            model = one_round(engine, self.load, model, number + 1)
        wait(engine.device)
        round_s = (time.perf_counter() - first) / rounds
        engine.close()
        return {"round_s": round_s, "updates_per_s": self.load.cohort / round_s, "start_s": first - began}


CASES = (
    Case("w4, momentum", replace(_W4, local=LocalTraining(Sgd(_RATE, momentum=0.9)))),
    Case("w4, proximal", replace(_W4, local=LocalTraining(Sgd(_RATE), proximal=0.01))),
    Case("w4, Adam", replace(_W4, local=LocalTraining(Adam(0.001)))),
    Case("w4, residual", replace(_W4, model=residual_network)),
)


def compilation(say: Say, *, is_quick: bool) -> dict[str, Mapping[str, float]]:
    """Rows of the bench's table, one after another in this process."""
    rows: dict[str, Mapping[str, float]] = {}
    for case in CASES[:1] if is_quick else CASES:
        say(case.name)
        rows[case.name] = case.measured(CudaOptions(), _ROUNDS)
        rows[f"{case.name}, compiled"] = case.measured(CudaOptions(compiler="inductor"), _ROUNDS)
    return rows
