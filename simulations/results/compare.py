"""Several runs side by side: one table, the same curves, one page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulations.experiments.errors import ResultsFolderError
from simulations.experiments.experiment import Experiment
from simulations.results.curves import curves
from simulations.results.folder import ResultsFolder
from simulations.results.metrics import Metrics, read_metrics
from simulations.results.page import Section, page, pictures, table
from simulations.results.report import flat_settings, size_text, time_text
from simulations.results.result import last_measured


@dataclass(frozen=True)
class Compared:
    """One run's figures; mean over its seeds, and the standard deviation between them."""

    name: str
    experiment: Experiment
    metrics: Metrics
    accuracies: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        return float(np.mean(self.accuracies))

    @property
    def deviation(self) -> float:
        """NaN with one seed."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else float("nan")


def read_runs(paths: Sequence[Path]) -> list[Compared]:
    """The runs in these folders, by short names that differ. Raises ResultsFolderError."""
    names = _names(paths)
    return [_read(path, name) for path, name in zip(paths, names, strict=True)]


def _read(path: Path, name: str) -> Compared:
    folder = ResultsFolder.open(path)
    metrics = read_metrics(folder.metrics_file)
    accuracies = tuple(last_measured(metrics.of_seed(seed)["test_accuracy"]) for seed in metrics.seeds)
    return Compared(name, folder.experiment(), metrics, accuracies)


def _names(paths: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as few as tell them apart."""
    resolved = [path.resolve() for path in paths]
    if len(set(resolved)) < len(resolved):
        raise ResultsFolderError("Expected different runs to compare, got one of them twice")
    for length in range(1, max(len(path.parts) for path in resolved) + 1):
        names = ["/".join(path.parts[-length:]) for path in resolved]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in resolved]


HEAD = ("run", "strategy", "seeds", "rounds", "accuracy", "±", "best", "sent up", "epsilon", "virtual time", "time")


def rows(runs: Sequence[Compared]) -> list[list[str]]:
    """A line of text for each run, the most accurate first."""
    return [_row(run) for run in sorted(runs, key=lambda run: -run.accuracy)]


def _row(run: Compared) -> list[str]:
    columns = run.metrics.columns
    seeds = [run.metrics.of_seed(seed) for seed in run.metrics.seeds]
    best = float(np.mean([np.nanmax(each["test_accuracy"]) for each in seeds]))
    epsilon = [each[name][-1] for each in seeds for name in ("example_epsilon", "user_epsilon")]
    clock_s = float(np.mean([each["clock_s"][-1] for each in seeds]))
    return [
        run.name,
        run.experiment.strategy.name,
        str(len(seeds)),
        f"{int(columns['round'].max()):,}",
        f"{run.accuracy:.4f}",
        "" if np.isnan(run.deviation) else f"{run.deviation:.4f}",
        f"{best:.4f}",
        size_text(float(columns["bytes_up"].sum()) / len(seeds)),
        "" if np.isnan(epsilon).all() else f"{np.nanmax(epsilon):.2f}",
        "" if np.isnan(clock_s) else time_text(clock_s),
        time_text(float(np.nansum(columns["seconds"]))),
    ]


def differences(runs: Sequence[Compared]) -> dict[str, list[str]]:
    """Settings in which the runs differ: the key, and what each run has."""
    flat = [flat_settings(run.experiment) for run in runs]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    values = {key: [settings.get(key, "") for settings in flat] for key in keys}
    return {key: each for key, each in values.items() if len(set(each)) > 1}


def comparison_page(runs: Sequence[Compared]) -> str:
    """The page."""
    best = max(runs, key=lambda run: run.accuracy)
    plots = curves({run.name: run.metrics for run in runs})
    settings = [(key, *values) for key, values in differences(runs).items() if key != "name"]
    sections = [Section("Runs", table(HEAD, rows(runs))), Section("Curves", pictures(plots))]
    if settings:
        sections.append(Section("Settings that differ", table(("setting", *(run.name for run in runs)), settings)))
    return page(
        title=f"{len(runs)} runs compared",
        lead=" · ".join(run.name for run in runs),
        tiles={"most accurate": best.name, "its accuracy": f"{best.accuracy:.4f}"},
        sections=sections,
        foot="fleetlearn simulate compare. Lines are means over seeds, bands reach from the lowest to the highest.",
    )
