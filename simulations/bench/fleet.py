"""`fleetlearn bench fleet`: ten thousand devices that check in over the hub in memory, and rounds among them.

The coordinator is the real one: events are applied to its database, devices selected from it, work and results are
durable rows, updates objects on disk, rounds the campaign's own job. A device is a coroutine that fetches and answers
through the same functions as the HTTP routes; what is left out is TLS, signatures and HTTP, which `bench round` has.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from simulations.bench.frame import BenchOptions, BenchResult, Measure, Say, interleaved
from simulations.bench.whole_process import run_program

TIMEOUT_S = 1500.0


@dataclass(frozen=True)
class Case:
    """A fleet, and how many of it each round asks."""

    devices: int = 10_000
    cohort: int = 100
    rounds: int = 5


CASES = (Case(devices=1000), Case(), Case(cohort=1000), Case(cohort=10_000, rounds=3))
QUICK = (Case(devices=200, cohort=20, rounds=3),)


def run(options: BenchOptions, say: Say) -> BenchResult:
    """Measures every case, each in a process of its own. Raises BenchError."""
    cases = {_label(case): case for case in (QUICK if options.is_quick else CASES)}
    with tempfile.TemporaryDirectory(prefix="fleetlearn-bench-") as name:
        measures: dict[str, Measure] = {label: partial(_measure, case, Path(name)) for label, case in cases.items()}
        rows = interleaved(measures, repetitions=1, say=say)
    largest = rows[list(rows)[-1]]
    figures = {
        "fleet_rounds_per_minute": rows[list(rows)[min(1, len(rows) - 1)]]["rounds/min"],
        "fleet_whole_cohort_rounds_per_minute": largest["rounds/min"],
        "fleet_check_ins_per_s": largest["check-ins/s"],
        "fleet_peak_mb": largest["peak_mb"],
    }
    return BenchResult("fleet", rows, {}, figures, _NOTES)


def _label(case: Case) -> str:
    return f"{case.cohort:,} of {case.devices:,} devices"


def _measure(case: Case, folder: Path) -> Mapping[str, float]:
    command = [sys.executable, "-m", "simulations.bench.fleet", json.dumps(asdict(case))]
    return run_program(command, folder=folder, timeout_s=TIMEOUT_S)


def _run_case(case: Case) -> None:
    """In the case's own process."""
    # Here and not at the top: the parent only starts processes.
    from simulations.bench.fleet_in_memory import figures_of

    print(json.dumps(figures_of(devices=case.devices, cohort=case.cohort, rounds=case.rounds)))


_NOTES = (
    "check-ins/s: heartbeats from the hub into the database. ms/device: of a round's time, per device that it asks; "
    "CPU ms/device: of the campaign's, its start and the simulated devices included. "
    "idle MB: of the process with fleet, coordinator and job, before the first round; peak_mb: its most.",
    "Devices and coordinator share this process, and its two cores or so.",
)

if __name__ == "__main__":
    _run_case(Case(**json.loads(sys.argv[1])))
