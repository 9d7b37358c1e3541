"""`fleetlearn bench gpu`: cohorts on a GPU, ours beside pfl-research on the same card, and what ours is bound by.

W4 is pfl's own benchmark on images (1000 clients of 50, cohorts of 50). pfl runs with one process and with several that
share the card, and must be installed beside us: `pip install pfl==0.6.0 opacus==1.6.0`. The bound is what the card must
do at least: the products of a round at the card's own rates, and weights and activations that must travel between its
memory and its processors; both are measured in the same run.
"""

import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch

from simulations.bench.errors import BenchError
from simulations.bench.frame import BenchOptions, BenchResult, Measure, Say, interleaved
from simulations.bench.gpu_compile import compilation
from simulations.bench.gpu_growth import growth
from simulations.bench.gpu_rates import Rates, bytes_of, card_rates
from simulations.bench.machine_rates import flops_of
from simulations.bench.whole_process import run_program
from simulations.workloads.suite import WORKLOADS

PROCESSES = (1, 4, 8)
"""Of pfl, on one card."""
ROUNDS = 1500
"""Of ours: the length of pfl's benchmark; pfl itself runs for a few, its rounds are all alike."""
BARE_ROUNDS = 300
PFL_ROUNDS = {1: 6, 4: 12, 8: 16}
OTHERS = ("w1", "w3", "w5", "w6")
TIMEOUT_S = 900.0


def run(options: BenchOptions, say: Say) -> BenchResult:
    """Measures W4 beside pfl, other workloads, what compiling gains, and how cost grows. Raises BenchError."""
    if not torch.cuda.is_available():
        raise BenchError("Expected a GPU that torch can use, got none")
    if find_spec("pfl") is None:
        raise BenchError("Expected pfl beside us, got none", hint="pip install pfl==0.6.0 opacus==1.6.0")
    rounds = 20 if options.is_quick else ROUNDS
    bare = min(rounds, BARE_ROUNDS)
    # Ours runs between pfl's two best settings.
    cases: dict[str, Measure] = {"w4 pfl x4": partial(_pfl, "w4", 4), "w4 ours": partial(_ours, "w4", rounds)}
    cases |= {f"w4 pfl x{count}": partial(_pfl, "w4", count) for count in PROCESSES if count != 4}
    cases["w4 ours, engine alone"] = partial(_engine, "w4", bare, "float32")
    cases["w4 ours, engine alone, bf16x3"] = partial(_engine, "w4", bare, "bf16x3")
    if options.only != "w4":
        cases |= {f"{workload} ours, engine alone": partial(_engine, workload, bare, "float32") for workload in OTHERS}
    rows: dict[str, Mapping[str, float]] = dict(interleaved(cases, repetitions=1, say=say))
    rates = card_rates()
    if options.only != "w4":
        rows |= compilation(say, is_quick=options.is_quick) | growth(say, is_quick=options.is_quick)
    return BenchResult("gpu", rows, _ratios(rows), _figures(rows, rates), _notes(rates))


def _ours(workload: str, rounds: int) -> Mapping[str, float]:
    """In the round loop that `fleetlearn simulate` runs."""
    return _run(workload, ["-m", "simulations.bench.peers.ours", *_settings(workload, rounds), "--device", "cuda"])


def _engine(workload: str, rounds: int, precision: str) -> Mapping[str, float]:
    """The engine and the aggregation, without a loop that records every round."""
    settings = [*_settings(workload, rounds), "--device", "cuda", "--precision", precision]
    return _run(workload, ["-m", "simulations.bench.gpu_rounds", *settings])


def _pfl(workload: str, processes: int) -> Mapping[str, float]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    settings = [*_settings(workload, PFL_ROUNDS[processes]), "--device", "cuda:0"]
    return _run(workload, [*(launcher if processes > 1 else []), "-m", "simulations.bench.peers.pfl_on_gpu", *settings])


def _settings(workload: str, rounds: int) -> list[str]:
    return ["--workload", workload, "--rounds", str(rounds), "--started", "{started}"]


def _run(workload: str, program: list[str]) -> Mapping[str, float]:
    with tempfile.TemporaryDirectory(prefix="fleetlearn-bench-") as folder:
        packages = {"PYTHONPATH": ":".join(path for path in [str(Path.cwd()), *sys.path] if path)}
        command = [sys.executable, *program]
        found = run_program(command, folder=Path(folder), timeout_s=TIMEOUT_S, environment=packages)
    return {**found, "updates_per_s": WORKLOADS[workload].cohort / found["round_s"]}


def _ratios(rows: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """How many of our rounds fit into one of pfl's, at each number of processes."""
    ours = rows["w4 ours"]["round_s"]
    return {f"w4_vs_pfl_x{count}": rows[f"w4 pfl x{count}"]["round_s"] / ours for count in PROCESSES}


def _figures(rows: Mapping[str, Mapping[str, float]], rates: Rates) -> dict[str, float]:
    load, round_s = WORKLOADS["w4"], rows["w4 ours, engine alone"]["round_s"]
    flops, moved = sum(flops_of(load)), bytes_of(load)
    return {
        "w4_updates_per_s": rows["w4 ours"]["updates_per_s"],
        "w4_engine_updates_per_s": rows["w4 ours, engine alone"]["updates_per_s"],
        "w4_tflop_per_s": flops / round_s / 1e12,
        "w4_tb_per_s": moved / round_s / 1e12,
        "w4_share_of_float32_bound": max(flops / rates.float32_flops, moved / rates.bytes_per_s) / round_s,
        "w4_share_of_memory_bound": moved / rates.bytes_per_s / round_s,
    }


def _notes(rates: Rates) -> tuple[str, ...]:
    return (
        f"{torch.cuda.get_device_name()}: {rates.bytes_per_s / 1e12:.2f} TB/s copied, {rates.float32_flops / 1e12:.1f} "
        f"TFLOP/s of float32 products, {rates.tf32_flops / 1e12:.0f} of tf32, {rates.bf16_flops / 1e12:.0f} of bf16.",
        "Ours multiplies on tensor cores with the error of float32: three or six products of shorter numbers for one.",
    )
