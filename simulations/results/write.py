"""Fills a results folder at the end of a run, or where it was stopped."""

import json

from shared.files import write_atomically
from shared.tensors import encode
from simulations.partitions.picture import draw
from simulations.results.curves import Plot, curves
from simulations.results.environment import environment
from simulations.results.folder import ResultsFolder
from simulations.results.metrics import write_metrics
from simulations.results.report import report
from simulations.results.result import Result
from simulations.rounds.setup import Setup
from simulations.trees.setup import TreeSetup


def write_results(folder: ResultsFolder, result: Result, setup: Setup | TreeSetup) -> None:
    """Metrics, models, environment, plots and report.

    Args:
        folder: Where.
        result: Of the run.
        setup: Of its first seed: who has what is drawn of it.
    """
    write_metrics(folder.metrics_file, result.metrics)
    for seed, tensors in result.models.items():
        path = folder.model_file(seed, is_only=len(result.experiment.seeds) == 1)
        write_atomically(path, encode(tensors))
    machine = environment()
    write_atomically(folder.path / "environment.json", json.dumps(machine, indent=2).encode())
    plots, partition = curves({"": result.metrics}), _partition(folder, setup)
    for plot in plots:
        write_atomically(folder.plots / f"{plot.name}.svg", plot.svg.encode())
    write_atomically(folder.report_file, report(result, plots, partition, machine).encode())


def _partition(folder: ResultsFolder, setup: Setup | TreeSetup) -> Plot:
    folder.plots.mkdir(exist_ok=True)
    path = folder.plots / "partition.svg"
    labels = setup.problem.train.labels.numpy()
    draw(setup.population, labels, classes=setup.problem.classes, path=path)
    return Plot("partition", "Who has what", path.read_text(encoding="utf-8"))
