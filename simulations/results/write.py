"""Fills a results folder at the end of a run, or where it was stopped."""

import json

from shared.files import write_atomically
from shared.tensors import encode
from simulations.results.environment import environment
from simulations.results.folder import ResultsFolder
from simulations.results.metrics import write_metrics
from simulations.results.result import Result


def write_results(folder: ResultsFolder, result: Result) -> None:
    """Metrics, models, environment, plots and report."""
    write_metrics(folder.metrics_file, result.metrics)
    for seed, tensors in result.models.items():
        path = folder.model_file(seed, is_only=len(result.experiment.seeds) == 1)
        write_atomically(path, encode(tensors))
    text = json.dumps({**environment(), "notes": result.notes}, indent=2)
    write_atomically(folder.path / "environment.json", text.encode())
