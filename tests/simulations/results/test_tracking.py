"""MLflow, when an experiment asks for it, and not otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from simulations import Experiment, run
for tracking in ("off", "mlflow"):
    run(Experiment(rounds=2, tracking=tracking, name="tracked"), folder=f"{sys.argv[1]}/{tracking}")
    assert ("mlflow" in sys.modules) == (tracking == "mlflow")
import mlflow
(found,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
history = mlflow.MlflowClient().get_metric_history(found.info.run_id, "test_accuracy")
assert [metric.step for metric in history] == [0, 1, 2]
assert found.data.params["strategy.name"] == "fedavg"
"""


@pytest.mark.processes
def test_a_run_is_sent_to_mlflow_only_when_it_asks(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.sqlite"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
