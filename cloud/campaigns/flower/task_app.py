"""Our ServerApp for Flower's own SuperLink: any task of ours, any strategy of ours, on SuperNodes with our ClientApp.

`fleetlearn task flower-app` writes the folder that names it. Unlike a campaign it has no journal: what Flower's
SuperLink loses with a run is lost.
"""

import sys
from pathlib import Path

from flwr.app import ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from cloud.campaigns.flower.records import array_record, tensors_of
from cloud.campaigns.flower.strategy import RuleStrategy
from cloud.campaigns.measuring import Measuring
from shared.files import write_atomically
from shared.strategies import FedXgbBaggingSettings, assignments, strategy
from shared.tasks.flower_app import NoFlowerAppError
from shared.tasks.registry import load_task
from shared.tasks.torch_model import state_tensors, trained_names
from shared.tensors import decode, encode

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Rounds of the run configuration's task; the result is written as tensors."""
    config = context.run_config
    task, nodes = load_task(str(config["task"])), int(config["nodes"])
    settings = strategy(str(config["strategy"]), assignments(str(config["settings"]).split()))
    if isinstance(settings, FedXgbBaggingSettings):
        raise NoFlowerAppError(
            "Expected a strategy that works on vectors, got fedxgb_bagging",
            hint="Rounds of trees run as a campaign: `fleetlearn campaigns start --strategy fedxgb_bagging`.",
        )
    initial = Path(str(config["initial"]))
    start = (
        decode(initial.read_bytes()) if str(config["initial"]) else state_tensors(task.model(seed=int(config["seed"])))
    )
    measuring = Measuring(task)
    rules = RuleStrategy(
        settings,
        population=nodes,
        trained=trained_names(task.model(seed=0), task.local_training.trained_parameters),
        min_train_nodes=nodes,
        min_available_nodes=nodes,
        fraction_evaluate=0.0,
    )
    asked = ConfigRecord({"task": task.name, "task-version": task.version})
    result = rules.start(grid, array_record(start), num_rounds=int(config["num-server-rounds"]), train_config=asked)
    made = tensors_of(result.arrays)
    figures = measuring.validation(made)
    print(f"validation accuracy {figures.accuracy:.4f}, loss {figures.loss:.4f}", file=sys.stderr)
    write_atomically(Path(str(config["result"])), encode(made))
