"""What growing costs: `fleetlearn bench growth` runs whole rounds while one of three sizes grows and the others stay.

Clients in the population from 100 to a million, parameters of the model from ten thousand to ten million, clients in
the cohort from 10 to 10,000. Each case is a process of its own (`python -m simulations.bench.growth CASE`), so that
memory is its own. Nothing is compared: this is the curve, and where it bends.
"""

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from simulations.bench.frame import BenchOptions, BenchResult, Measure, Say, interleaved
from simulations.bench.whole_process import run_program

FEATURES = 32
CLASSES = 10
EXAMPLES = 20
"""Of each client; a step takes 10 of them."""
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Case:
    """One point of the curve."""

    clients: int = 1_000
    width: int = 74
    """Of both hidden layers: about ten thousand parameters."""
    cohort: int = 50
    rounds: int = 8

    @property
    def parameters(self) -> int:
        return self.width * (FEATURES + 1) + self.width * (self.width + 1) + CLASSES * (self.width + 1)


POPULATIONS = tuple(Case(clients=10**power) for power in range(2, 7))
MODELS = (
    Case(cohort=10),
    Case(width=278, cohort=10),
    Case(width=976, cohort=10),
    Case(width=3137, cohort=10, rounds=4),
)
COHORTS = tuple(Case(clients=10_000, cohort=10**power) for power in range(1, 5))


def run(options: BenchOptions, say: Say) -> BenchResult:
    """Measures every case. Raises BenchError."""
    curves = {
        "clients": {f"{case.clients:,} clients": case for case in POPULATIONS},
        "parameters": {f"{case.parameters:,} parameters": case for case in MODELS},
        "cohort": {f"cohort {case.cohort:,}": case for case in COHORTS},
    }
    with tempfile.TemporaryDirectory(prefix="fleetlearn-bench-") as name:
        folder = Path(name)
        cases: dict[str, Measure] = {
            label: partial(_measure, case, folder) for curve in curves.values() for label, case in curve.items()
        }
        rows = interleaved(cases, repetitions=1 if options.is_quick else 3, say=say)
    figures = {f"round_ms_growth_{curve}": _growth(rows, list(points)) for curve, points in curves.items()}
    return BenchResult("growth", rows, {}, figures, _NOTES)


def _growth(rows: Mapping[str, Mapping[str, float]], labels: list[str]) -> float:
    """How many times a round of the largest case costs one of the smallest."""
    return rows[labels[-1]]["round_ms"] / rows[labels[0]]["round_ms"]


def _measure(case: Case, folder: Path) -> Mapping[str, float]:
    command = [sys.executable, "-m", "simulations.bench.growth", json.dumps(asdict(case))]
    return run_program(command, folder=folder, timeout_s=TIMEOUT_S)


def _experiment(case: Case) -> dict[str, Any]:  # Any: as a file would say it
    return {
        "data": {"kind": "synthetic", "shape": [FEATURES], "classes": CLASSES, "examples": 20_000},
        "model": {"kind": "mlp", "hidden": [case.width, case.width]},
        "population": {"clients": case.clients, "partition": {"kind": "drawn", "examples": EXAMPLES}},
        "cohort": {"clients": case.cohort},
        "rounds": case.rounds,
        "evaluation": {"every": case.rounds},
        "engine": "vector",
    }


def _run_case(case: Case) -> None:
    """In the case's own process."""
    # Here and not at the top: the parent only starts processes.
    from simulations.experiments.experiment import Experiment
    from simulations.rounds.kept import KeptVectors
    from simulations.rounds.loop import RoundLoop
    from simulations.rounds.setup import set_up

    setup = set_up(Experiment.model_validate(_experiment(case)), 0)
    loop, seconds = RoundLoop(setup, KeptVectors({})), []
    for _ in range(case.rounds):
        start = time.perf_counter()
        loop.run_round()
        seconds.append(time.perf_counter() - start)
    setup.close()
    print(json.dumps({"round_ms": median(seconds[1:-1]) * 1000, "updates_per_s": case.cohort / median(seconds[1:-1])}))


_NOTES = ("The first round, which chooses how to compute, and the last, which is measured on test data, do not count.",)

if __name__ == "__main__":
    _run_case(Case(**json.loads(sys.argv[1])))
