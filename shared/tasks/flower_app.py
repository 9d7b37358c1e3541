"""A task as a Flower app: a folder that `flwr run` starts on a SuperLink, with none of our coordinator or agents.

It holds no code: the ServerApp and the ClientApp are ours, installed where Flower's processes run, and so is the task.
Each SuperNode names its data: `flower-supernode --node-config 'data-dir="/data/press-07"'`.
"""

from pathlib import Path

from shared.errors import FleetlearnError
from shared.tasks.task import Task
from shared.trees.boosting import boosting_of


class NoFlowerAppError(FleetlearnError):
    """A task that cannot be a Flower app."""

    code = "no_flower_app"


_PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "{version}"
description = "The task {task} of fleetlearn as a Flower app"
license = "Apache-2.0"
dependencies = ["fleetlearn[cloud]"]

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "fleetlearn"

[tool.flwr.app.components]
serverapp = "cloud.campaigns.flower.task_app:app"
clientapp = "edge_agent.training.client_app:app"

[tool.flwr.app.config]
task = "{task}"
num-server-rounds = 3
nodes = 2
strategy = "fedavg"
# Settings of the strategy, as `fleetlearn campaigns start --set` takes them, separated by spaces.
settings = ""
# Where training starts: a file of tensors; empty: new weights.
initial = ""
seed = 0
# Where the result is written, on the machine of the ServerApp.
result = "model.safetensors"
"""
_README = """\
# {task}

The task {task} of fleetlearn as a Flower app. `flwr run .` starts it; `pip install 'fleetlearn[cloud]'` must have been
run where the SuperLink and the SuperNodes run, and each SuperNode must name its data: `--node-config 'data-dir="DIR"'`.
"""


def write_flower_app(task: Task, folder: Path) -> None:
    """Writes the app into a folder, made if absent. Raises NoFlowerAppError for a task whose model is trees."""
    if boosting_of(task):
        raise NoFlowerAppError(
            f"Expected a task whose model is one vector, got {task.name}, whose model is trees",
            hint="Rounds of trees run as a campaign: `fleetlearn campaigns start --strategy fedxgb_bagging`.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    name = f"fleetlearn-{task.name.replace('_', '-')}"
    version = task.version if "." in task.version else f"{task.version}.0.0"
    project = _PYPROJECT.format(name=name, version=version, task=task.name)
    (folder / "pyproject.toml").write_text(project, encoding="utf-8")
    (folder / "README.md").write_text(_README.format(task=task.name), encoding="utf-8")
