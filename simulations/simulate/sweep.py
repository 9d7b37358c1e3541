"""`fleetlearn simulate sweep SWEEP.toml`: searches with worker processes, and goes on where it was stopped."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from shared.exit_codes import ExitCode
from shared.files import write_atomically
from simulations.experiments.errors import ResultsFolderError, RunError
from simulations.experiments.file import experiment_of
from simulations.experiments.text import toml_of
from simulations.sweeps.page import best_trials, sweep_page
from simulations.sweeps.search import Search, make_database, optuna_module
from simulations.sweeps.settings import read_sweep
from simulations.sweeps.suggest import suggested, with_values

_LOOK_S = 0.5
_STOP_S = 30.0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="fleetlearn simulate sweep",
        description="Searches an experiment's settings. The same command again goes on where it was stopped.",
    )
    made.add_argument("sweep", type=Path, metavar="SWEEP.toml")
    made.add_argument("--out", type=Path, metavar="FOLDER", help="results (default: results/ and the file's name)")
    made.add_argument("--json", action="store_true", help="print the best trials as one JSON object")
    made.add_argument("--worker", type=int, default=None, help=argparse.SUPPRESS)
    return made


def sweep(options: argparse.Namespace) -> int:
    """Runs the search, or one of its workers."""
    settings = read_sweep(options.sweep)
    folder: Path = options.out or Path("results") / options.sweep.stem
    if options.worker is None:
        _open(folder, options.sweep)
    search = Search(settings, settings.database or make_database(folder / "trials.sqlite", settings))
    if options.worker is not None:
        search.work(worker=options.worker)
        return ExitCode.OK
    search.abandon_unfinished()
    is_over = _searched(search, options.sweep, folder)
    return _told(search, folder, as_json=options.json, is_over=is_over)


def _open(folder: Path, path: Path) -> None:
    """The folder of this very sweep, new or from before."""
    copy, text = folder / "sweep.toml", path.read_text(encoding="utf-8")
    if folder.is_dir() and any(folder.iterdir()) and not copy.is_file():
        raise ResultsFolderError(f"Expected a new folder or this sweep's at {folder}, got another's", hint="Use --out.")
    if copy.is_file() and copy.read_text(encoding="utf-8") != text:
        raise ResultsFolderError(
            f"Expected the sweep that {folder} was made by, got one that changed", hint="Name a new folder with --out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(copy, text.encode())


def _searched(search: Search, path: Path, folder: Path) -> bool:
    """Starts the workers and watches them; False where somebody stopped them."""
    command = [sys.executable, "-m", "simulations.simulate", "sweep", str(path), "--out", str(folder), "--worker"]
    # Processes share the cores; a second thread in each would only make them wait for each other.
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    logs = [(folder / f"worker-{number}.log").open("ab") for number in range(search.sweep.workers)]
    workers = [
        subprocess.Popen([*command, str(number)], stdout=log, stderr=log, env=environment, start_new_session=True)
        for number, log in enumerate(logs)
    ]
    try:
        _watch(search, workers)
        return True
    except KeyboardInterrupt:
        return False
    finally:
        _stop(workers)
        for log in logs:
            log.close()
        failed = [number for number, worker in enumerate(workers) if (worker.returncode or 0) > 0]
        if len(failed) == len(workers):
            raise RunError(
                "Expected workers that run trials, got none", hint=f"Read {folder / f'worker-{failed[0]}.log'}."
            )


def _watch(search: Search, workers: Sequence[subprocess.Popen[bytes]]) -> None:
    columns = (TextColumn("trials"), BarColumn(), TextColumn("{task.completed}/{task.total} {task.fields[shown]}"))
    console = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("", total=search.sweep.trials, shown="")
        study = search.study()
        is_over = False
        while not is_over:
            is_over = all(worker.poll() is not None for worker in workers)
            done = [t for t in study.get_trials(deepcopy=False) if t.state.name in ("COMPLETE", "PRUNED")]
            best = best_trials(study)
            shown = f"best {best[0].values[0]:.4f}" if best else ""
            progress.update(task, completed=min(len(done), search.sweep.trials), shown=shown)
            if not is_over:
                time.sleep(_LOOK_S)


def _stop(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        worker.terminate()
    for worker in workers:
        try:
            worker.wait(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _told(search: Search, folder: Path, *, as_json: bool, is_over: bool) -> int:
    study = search.study()
    best = best_trials(study)
    if not best:
        reasons = [trial.user_attrs["refused"] for trial in study.trials if "refused" in trial.user_attrs]
        raise RunError("Expected a trial that ends, got none", hint=reasons[0] if reasons else "")
    toml = _best_toml(search, best[0].number)
    write_atomically(folder / "best.toml", toml.encode())
    write_atomically(folder / "report.html", sweep_page(search.sweep, study, toml).encode())
    if as_json:
        found = [{"trial": trial.number, "values": trial.values, "parameters": trial.params} for trial in best]
        print(json.dumps({"folder": str(folder), "objectives": search.sweep.objectives, "best": found}))
    else:
        values = ", ".join(f"{n} {v:.4g}" for n, v in zip(search.sweep.objectives, best[0].values, strict=True))
        print(f"best trial {best[0].number}: {values}; its experiment is {folder / 'best.toml'}")
    if not is_over:
        print("Stopped. The same command goes on.", file=sys.stderr)
    return ExitCode.OK if is_over else ExitCode.INTERRUPTED


def _best_toml(search: Search, number: int) -> str:
    optuna = optuna_module()
    trial = optuna.trial.FixedTrial(search.study().get_trials(deepcopy=False)[number].params)
    return toml_of(experiment_of(with_values(search.document(), suggested(search.sweep, trial))).resolved())
