"""`fleetlearn simulate compare RUN RUN...`."""

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shared.exit_codes import ExitCode
from shared.files import write_atomically
from simulations.experiments.errors import ResultsFolderError
from simulations.results.compare import HEAD, Compared, comparison_page, read_runs, rows


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="fleetlearn simulate compare", description="Tabulates and plots runs: mean and band over their seeds."
    )
    made.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="results folders")
    made.add_argument("--out", type=Path, metavar="FILE.html", help="the page (default: comparison.html, if it is new)")
    made.add_argument("--json", action="store_true", help="print the table as one JSON object")
    return made


def compare(options: argparse.Namespace) -> int:
    """Prints the table, and writes the page."""
    runs = read_runs(options.runs)
    path = options.out or Path("comparison.html")
    if options.out is None and path.exists():
        raise ResultsFolderError(f"Expected no {path} here, got one", hint="Name the page with --out.")
    write_atomically(path, comparison_page(runs).encode())
    if options.json:
        print(json.dumps({"page": str(path), "runs": [_document(run) for run in runs]}))
        return ExitCode.OK
    shown = Table(box=None, pad_edge=False)
    # What no run has, such as epsilon without privacy, takes no room.
    columns = [(name, cells) for name, cells in zip(HEAD, zip(*rows(runs), strict=True), strict=True) if any(cells)]
    for number, (name, _) in enumerate(columns):
        shown.add_column(name, justify="left" if number < 2 else "right", no_wrap=True)
    for row in zip(*(cells for _, cells in columns), strict=True):
        shown.add_row(*row)
    # As wide as it must be: a narrow terminal wraps lines rather than lose names.
    console = Console()
    console.width = max(console.width, console.measure(shown, options=console.options.update(width=1000)).maximum)
    console.print(shown)
    Console(stderr=True).print(f"curves in {path}", highlight=False)
    return ExitCode.OK


def _document(run: Compared) -> dict[str, object]:
    return {
        "run": run.name,
        "strategy": run.experiment.strategy.name,
        "accuracy": run.accuracy,
        "accuracies": run.accuracies,
        "deviation": None if len(run.accuracies) < 2 else run.deviation,
        "bytes_up": float(run.metrics.columns["bytes_up"].sum()) / len(run.accuracies),
    }
