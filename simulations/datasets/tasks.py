"""The product's tasks as problems: what would be learned on the fleet, learned in a simulation."""

import numpy as np
import torch

from shared.tasks.registry import load_task
from shared.tasks.task import Examples, Role, Task
from simulations.datasets.errors import DatasetError
from simulations.datasets.settings import TaskData
from simulations.problem import Data, Losses, Problem, cross_entropy


def load_task_problem(settings: TaskData) -> Problem:
    """Natural devices' training data, pooled; each device is a group.

    Raises:
        DatasetError: The task has no natural devices.
        UnknownTaskError: No task of this name is installed.
    """
    task = load_task(settings.name)
    slices = task.device_slices()
    if not slices:
        raise DatasetError(
            f"Expected natural devices of the task {task.name!r}, got none",
            hint="Give the task `device_slices`, or simulate its data from a file.",
        )
    sizes = [len(data.train) for data in slices.values()]
    inputs = np.concatenate([data.train.inputs for data in slices.values()])
    labels = np.concatenate([data.train.labels for data in slices.values()])
    return Problem(
        name=task.name,
        model=lambda seed: _model(task, seed, private=settings.private),
        losses=_losses(task),
        train=Data(torch.from_numpy(inputs), torch.from_numpy(labels)),
        test=_data(task.central_data(Role(settings.measured_on))),
        classes=len(task.schema.classes),
        groups=torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes)),
    )


def _data(examples: Examples) -> Data:
    return Data(torch.from_numpy(examples.inputs), torch.from_numpy(examples.labels))


def _model(task: Task, seed: int, *, private: bool) -> torch.nn.Module:
    """The task's model, with what rounds do not train frozen."""
    model = task.model(seed=seed)
    prefixes = task.local_training.chosen(private=private).trained_parameters
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not prefixes or name.startswith(prefixes))
    return model


def _losses(task: Task) -> Losses:
    """Each example's loss; the well-known function where it is that, since engines have fast paths for it."""
    outputs = torch.linspace(-3, 3, 4 * len(task.schema.classes)).reshape(4, -1).sin() * 5
    labels = torch.arange(4) % len(task.schema.classes)
    if torch.allclose(task.loss(outputs, labels), cross_entropy(outputs, labels).mean()):
        return cross_entropy
    return torch.func.vmap(lambda output, label: task.loss(output[None], label[None]))
