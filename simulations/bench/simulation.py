"""`fleetlearn bench simulation`: rounds of the workloads W1 to W7, ours beside pfl-research, Flower and the plain loop.

Every program runs the same workload in a process tree of its own: the same data, the same model and first weights, the
same local steps, no evaluation inside the timed rounds. Programs take turns within each repetition. Peers run at their
best settings on this machine, in an environment of their own: pfl with one process and with one process per core (the
better counts), Flower with one actor of one CPU per core.
"""

import importlib.util
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from simulations.bench.environments import environment_python
from simulations.bench.frame import BenchOptions, BenchResult, Measure, Say, interleaved
from simulations.bench.machine_rates import bound_s
from simulations.bench.whole_process import run_program
from simulations.workloads.suite import WORKLOADS

REPETITIONS = 3
TIMEOUT_S = 600.0
PEER_PACKAGES = (("torch==2.13.0",), ("flwr[simulation]==1.41.*", "pfl==0.6.0", "opacus==1.6.0"))
_PEERS = "simulations.bench.peers"
_SLOW = {"w3": 3, "w6": 3, "w7": 3}
"""Rounds of Flower where one takes up to half a minute; two of them are timed."""


@dataclass(frozen=True)
class Program:
    """One way to run a workload."""

    name: str
    module: str
    processes: int
    rounds: int
    """In a run: so many that it takes seconds."""
    rounds_of: Mapping[str, int] = field(default_factory=dict)
    """By workload, where that differs."""
    is_ours: bool = False

    def command(self, python: str, workload: str, *, is_quick: bool) -> list[str]:
        """How it is started; pfl by torchrun where it wants several processes."""
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.processes}"]
        several = self.module == "pfl_rounds" and self.processes > 1
        rounds = 3 if is_quick else self.rounds_of.get(workload, self.rounds)
        settings = ["--workload", workload, "--rounds", str(rounds), "--processes", str(self.processes)]
        program = [*(launcher if several else []), "-m", f"{_PEERS}.{self.module}", *settings]
        return [python, *program, "--started", "{started}"]


def programs(cores: int) -> list[Program]:
    """All of them, ours first."""
    several = [Program(f"pfl x{cores}", "pfl_rounds", cores, 12)] if cores > 1 else []
    return [
        Program("ours", "ours", cores, 25, is_ours=True),
        Program("plain", "plain_rounds", 1, 8),
        Program("pfl x1", "pfl_rounds", 1, 8),
        *several,
        Program("flower", "flower_rounds", cores, 6, _SLOW),
    ]


def run(options: BenchOptions, say: Say) -> BenchResult:
    """Measures the workload that the options name, or all. Raises BenchError."""
    cores = len(os.sched_getaffinity(0))
    chosen = [options.only] if options.only else list(WORKLOADS)
    say("making the peers' environment, if this is the first time")
    peers = environment_python("simulation-peers-1", installs=PEER_PACKAGES, hint="It takes 2 GB of disk and PyPI.")
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="fleetlearn-bench-") as name:
        folder = Path(name)
        links = _link_packages(folder / "packages")

        def measure(program: Program, workload: str) -> Mapping[str, float]:
            python = sys.executable if program.is_ours else str(peers)
            command = program.command(python, workload, is_quick=options.is_quick)
            environment = {"PYTHONPATH": str(links)}
            return run_program(command, folder=folder, timeout_s=TIMEOUT_S, environment=environment)

        for workload in chosen:
            cases: dict[str, Measure] = {one.name: partial(measure, one, workload) for one in programs(cores)}
            found = interleaved(cases, repetitions=1 if options.is_quick else REPETITIONS, say=_prefixed(say, workload))
            rows |= {f"{workload} {case}": figures for case, figures in found.items()}
    bounds = {workload: bound_s(WORKLOADS[workload], processes=cores) for workload in chosen}
    return BenchResult("simulation", rows, _ratios(chosen, rows), _figures(chosen, rows, bounds), _notes(cores))


def _ratios(workloads: Sequence[str], rows: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """How many of our rounds fit into one of a peer's, at its better setting."""
    ratios = {}
    for workload in workloads:
        ours = rows[f"{workload} ours"]["round_s"]
        for peer in ("pfl", "flower", "plain"):
            best = min(row["round_s"] for case, row in rows.items() if case.startswith(f"{workload} {peer}"))
            ratios[f"{workload}_vs_{peer}"] = best / ours
    return ratios


def _figures(
    workloads: Sequence[str], rows: Mapping[str, Mapping[str, float]], bounds: Mapping[str, float]
) -> dict[str, float]:
    figures = {}
    for workload in workloads:
        ours = rows[f"{workload} ours"]
        figures[f"{workload}_round_ms"] = ours["round_s"] * 1000
        figures[f"{workload}_start_s"] = ours["start_s"]
        figures[f"{workload}_share_of_bound"] = bounds[workload] / ours["round_s"]
        pfl = max(row["peak_mb"] for case, row in rows.items() if case.startswith(f"{workload} pfl"))
        figures[f"{workload}_memory_vs_pfl"] = ours["peak_mb"] / pfl
    return figures


def _notes(cores: int) -> tuple[str, ...]:
    return (
        "Ratios: a peer's median round over ours; pfl at the better of 1 and "
        f"{cores} processes. start_s: from the process' start to the end of round 1, less one round.",
        "share_of_bound: the round's arithmetic at this machine's own convolution and matrix rates (large, "
        f"{cores} processes), as a share of our round.",
    )


def _prefixed(say: Say, workload: str) -> Say:
    return lambda text: say(f"{workload}: {text}")


def _link_packages(folder: Path) -> Path:
    """A folder with links to our packages alone: peers import the workloads, and none of our dependencies."""
    folder.mkdir()
    for package in ("cloud", "edge_agent", "shared", "simulations"):
        found = importlib.util.find_spec(package)
        assert found is not None
        assert found.origin is not None
        (folder / package).symlink_to(Path(found.origin).parent)
    return folder
