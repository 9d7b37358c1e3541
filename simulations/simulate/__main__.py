"""`fleetlearn simulate EXPERIMENT.toml`, and the commands beside it."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from shared.exit_codes import ExitCode
from simulations.engines.processes import Processes, joined
from simulations.experiments.errors import ExperimentError
from simulations.experiments.experiment import Experiment
from simulations.experiments.file import located, read_experiment
from simulations.experiments.progress import Nobody, Watcher
from simulations.experiments.run import resume, run
from simulations.results.folder import ResultsFolder
from simulations.results.result import Result
from simulations.simulate.watching import ProgressWatcher, progress_on, stopping_on_interrupt

Start = Callable[[Watcher, Processes], Result]
Command = tuple[Callable[[argparse.Namespace], int], Callable[[], argparse.ArgumentParser]]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the arguments name."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command, parser = _COMMANDS[arguments.pop(0)]() if arguments and arguments[0] in _COMMANDS else (_run, run_parser)
    try:
        options = parser().parse_args(arguments)
    except SystemExit as error:  # argparse has said why
        return ExitCode.OK if error.code in (0, None) else ExitCode.USAGE
    return command(options)


def _run(options: argparse.Namespace) -> int:
    experiment = read_experiment(options.experiment, options.set)
    folder = options.out or Path("results") / options.experiment.stem

    def start(watcher: Watcher, processes: Processes) -> Result:
        try:
            return run(experiment, folder=folder, overwrite=options.overwrite, watcher=watcher, processes=processes)
        except ExperimentError as error:
            raise located(error, options.experiment, options.set) from error

    return _together(experiment, start, options)


def _resume(options: argparse.Namespace) -> int:
    experiment = ResultsFolder.open(options.folder).experiment()

    def start(watcher: Watcher, processes: Processes) -> Result:
        return resume(options.folder, watcher=watcher, processes=processes)

    return _together(experiment, start, options)


def _together(experiment: Experiment, start: Start, options: argparse.Namespace) -> int:
    """In this process, or in each of those that torchrun started, of which the first alone speaks."""
    with joined() as processes:
        if processes.is_first:
            return _watched(experiment, lambda watcher: start(watcher, processes), options)
        result = start(Nobody(), processes)
    return ExitCode.INTERRUPTED if result.interrupted else ExitCode.OK


def _watched(experiment: Experiment, start: Callable[[Watcher], Result], options: argparse.Namespace) -> int:
    console = Console(stderr=True)
    with progress_on(console) as progress:
        watcher = ProgressWatcher(progress, rounds=experiment.rounds)
        with stopping_on_interrupt(watcher, console):
            result = start(watcher)
        # How an engine computes it may know only after the first round.
        watcher.tell(result.notes)
    print(_json(result) if options.json else _told(result))
    if result.interrupted:
        console.print(f"Stopped. Go on with: fleetlearn simulate resume {result.folder}", highlight=False)
        return ExitCode.INTERRUPTED
    return ExitCode.OK


def _told(result: Result) -> str:
    return f"accuracy {result.accuracy:.4f} on test data; results in {result.folder}"


def _json(result: Result) -> str:
    return json.dumps(
        {
            "accuracy": result.accuracy,
            "accuracy_by_seed": {str(seed): accuracy for seed, accuracy in result.accuracies.items()},
            "rounds": int(result.metrics.columns["round"].max()),
            "folder": str(result.folder),
            "interrupted": result.interrupted,
            "notes": result.notes,
        }
    )


def run_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fleetlearn simulate",
        description="Runs an experiment: federated rounds on this machine, into one results folder.",
        epilog="commands beside:\n"
        "  fleetlearn simulate resume FOLDER      go on with a run that was stopped\n"
        "  fleetlearn simulate compare RUN RUN    runs side by side, in a table and a page\n"
        "  fleetlearn simulate sweep SWEEP.toml   search for better settings",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("experiment", type=Path, metavar="EXPERIMENT.toml")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="instead of what the file says; strategy.name=fedadam, rounds=50; may be repeated",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="results (default: results/ and the file's name)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run's results in that folder")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return parser


def resume_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fleetlearn simulate resume",
        description="Goes on with a run that was stopped, to the same results as if it had not been.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return parser


def _compare_command() -> Command:
    from simulations.simulate.compare import compare, parser

    return compare, parser


def _sweep_command() -> Command:
    # Optuna waits for who searches.
    from simulations.simulate.sweep import parser, sweep

    return sweep, parser


_COMMANDS: dict[str, Callable[[], Command]] = {
    "resume": lambda: (_resume, resume_parser),
    "compare": _compare_command,
    "sweep": _sweep_command,
}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
