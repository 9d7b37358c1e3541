"""Sends a run to MLflow, where an experiment asks for it: settings, every round's figures, the report.

The server or database is the environment's (`MLFLOW_TRACKING_URI`); one MLflow run for each seed, in the experiment
named like ours. Off by default. MLflow's own usage reports are switched off.
"""

import os
from typing import Any

import numpy as np

from shared.errors import ExtraNotInstalledError
from simulations.results.report import flat_settings, title_of
from simulations.results.result import Result

_METRICS_AT_ONCE = 1000
"""MLflow takes no more in a call."""
_PARAMS_MAX = 100
_VALUE_CHARACTERS_MAX = 500


def track(result: Result) -> None:
    """Logs the run. Raises ExtraNotInstalledError without the package; MLflow's own errors are its own."""
    mlflow = _mlflow()
    client = mlflow.MlflowClient()
    name = title_of(result.experiment)
    known = client.get_experiment_by_name(name)
    experiment_id = known.experiment_id if known else client.create_experiment(name)
    for seed in result.metrics.seeds:
        run = client.create_run(experiment_id, run_name=f"seed {seed}", tags={"fleetlearn.folder": str(result.folder)})
        _log(mlflow, client, run.info.run_id, result, seed)
        client.set_terminated(run.info.run_id, status="KILLED" if result.interrupted else "FINISHED")


def _log(mlflow: Any, client: Any, run_id: str, result: Result, seed: int) -> None:  # Any: an untyped library
    settings, entities = {**flat_settings(result.experiment), "seed": str(seed)}, mlflow.entities
    params = [entities.Param(key, value[:_VALUE_CHARACTERS_MAX]) for key, value in settings.items()]
    client.log_batch(run_id, params=params[:_PARAMS_MAX])
    columns = result.metrics.of_seed(seed)
    rounds = columns["round"].astype(int).tolist()
    metrics = [
        entities.Metric(name, float(value), 0, number)
        for name, values in columns.items()
        if name not in ("seed", "round")
        for number, value in zip(rounds, values, strict=True)
        if not np.isnan(value)
    ]
    for start in range(0, len(metrics), _METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=metrics[start : start + _METRICS_AT_ONCE])
    if result.folder is not None:
        client.log_artifact(run_id, str(result.folder / "report.html"))


def _mlflow() -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        # Two seconds and 200 MB: only who tracks pays.
        import mlflow
    except ModuleNotFoundError as error:
        raise ExtraNotInstalledError('tracking = "mlflow"', extra="mlflow") from error
    return mlflow
