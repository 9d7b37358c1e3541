"""`fleetlearn bench population`: what a round's planning costs as the population grows from a thousand to ten million.

A round is: draw a cohort of 1,000, compute what each holds (log-normal sizes, Dirichlet mixtures), plan every batch.
Each case runs in a process of its own, so that its memory is its own. The baseline writes the clients down, as
simulators do that keep a list of them: it is measured up to a hundred thousand.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from functools import partial

from simulations.bench.errors import BenchError
from simulations.bench.frame import BenchOptions, BenchResult, Measure, Say, interleaved

SIZES = (1_000, 100_000, 10_000_000)
LISTED_MAX = 100_000
COHORT = 1_000

_CASE = """
import json, resource, sys, time
import numpy as np
from simulations.partitions.settings import Drawn
from simulations.populations.batches import Shuffled, plan_batches
from simulations.populations.cohorts import uniform_cohort
from simulations.populations.dealt import DealtPopulation
from simulations.populations.drawn import DrawnPopulation
from simulations.partitions.shares import shares_by_size

clients, is_listed, rounds = int(sys.argv[1]), sys.argv[2] == "listed", int(sys.argv[3])
labels = np.arange(60_000) % 10
settings = Drawn(examples=20, sigma=0.5, alpha=0.3)

def plan(population, number):
    cohort = uniform_cohort(clients, COHORT, seed=1, round=number)
    return plan_batches(population, cohort, Shuffled(batch=10), seed=1, round=number)

plan(DrawnPopulation(settings, labels, clients=1000, seed=1), 0) if clients >= 1000 else None
before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.process_time()
population = DrawnPopulation(settings, labels, clients=clients, seed=1)
if is_listed:
    everybody = population.holdings(np.arange(clients))
    population = DealtPopulation(shares_by_size(everybody.rows, everybody.sizes))
set_up_s = time.process_time() - start
costs = []
for number in range(rounds):
    start = time.process_time()
    plan(population, number)
    costs.append(time.process_time() - start)
grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
print(json.dumps({"set_up_ms": set_up_s * 1e3, "round_ms": float(np.median(costs)) * 1e3, "grown_mb": grown_kb / 1024}))
""".replace("COHORT", str(COHORT))


def run(options: BenchOptions, say: Say) -> BenchResult:
    """Measures each size. Raises BenchError."""
    rounds = 3 if options.is_quick else 50
    cases: dict[str, Measure] = {f"{size:,} clients": partial(_case, size, "lazy", rounds) for size in SIZES}
    cases |= {f"{size:,}, listed": partial(_case, size, "listed", rounds) for size in SIZES if size <= LISTED_MAX}
    rows = interleaved(cases, repetitions=1 if options.is_quick else 3, say=say)
    smallest, largest, listed = (
        rows[f"{SIZES[0]:,} clients"],
        rows[f"{SIZES[-1]:,} clients"],
        rows[f"{LISTED_MAX:,}, listed"],
    )
    ratios = {"set_up_1e7_vs_listed_1e5": listed["set_up_ms"] / largest["set_up_ms"]}
    figures = {
        "round_ms_1e3": smallest["round_ms"],
        "round_ms_1e7": largest["round_ms"],
        "growth_1e3_to_1e7": largest["round_ms"] / smallest["round_ms"],
    }
    return BenchResult("population", rows, ratios, figures, (f"A round plans a cohort of {COHORT:,}; CPU time.",))


def _case(clients: int, kind: str, rounds: int) -> Mapping[str, float]:
    command = [sys.executable, "-c", _CASE, str(clients), kind, str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise BenchError(f"Expected figures for {clients:,} clients, got: {done.stderr[-400:]}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures
