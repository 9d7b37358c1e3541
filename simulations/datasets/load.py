"""From settings to a problem, ready to be dealt; whatever is wrong with the data is said here, before any round.

problem = load_problem(SyntheticData(shape=(28, 28), classes=10), seed=1)
"""

from dataclasses import replace

import torch

from simulations.datasets.errors import DatasetError
from simulations.datasets.files import load_file
from simulations.datasets.hugging_face import load_hugging_face
from simulations.datasets.settings import Dataset, FileData, HuggingFaceData, SyntheticData, TaskData
from simulations.datasets.synthetic import make
from simulations.datasets.tasks import load_task_problem
from simulations.models.families import Model, build, model_for
from simulations.problem import Data, Problem, cross_entropy


def load_problem(settings: Dataset, *, seed: int, model: Model | None = None) -> Problem:
    """The problem that the settings name.

    Args:
        settings: Of the data.
        seed: Of synthetic data, and of the split of a file; nothing else draws.
        model: Nothing: the task's own, or one that suits the inputs' shape.

    Raises:
        ExperimentError: The model does not suit the data.
        DatasetError: The data are missing, damaged, or not what the settings say.
        ExtraNotInstalledError: They need a package that is not there.
    """
    if isinstance(settings, TaskData):
        problem = load_task_problem(settings)
        if model is not None:
            shape = tuple(problem.train.inputs.shape[1:])
            problem = replace(problem, model=build(model, shape=shape, classes=problem.classes))
        return _checked(problem)
    match settings:
        case SyntheticData():
            raw = make(settings, seed=seed)
        case FileData():
            raw = load_file(settings, seed=seed)
        case HuggingFaceData():
            raw = load_hugging_face(settings)
    shape = tuple(raw.train.inputs.shape[1:])
    built = build(model or model_for(shape), shape=shape, classes=raw.classes)
    return _checked(Problem(raw.name, built, cross_entropy, raw.train, raw.test, raw.classes, raw.groups))


def _checked(problem: Problem) -> Problem:
    for name, data in (("training", problem.train), ("test", problem.test)):
        _check(problem.name, name, data, problem.classes)
    return problem


def _check(name: str, which: str, data: Data, classes: int) -> None:
    if len(data) == 0:
        raise DatasetError(f"Expected {which} examples in {name}, got none")
    if len(data.inputs) != len(data):
        raise DatasetError(f"Expected one label for each of {len(data.inputs)} {which} inputs, got {len(data)}")
    if not bool(torch.isfinite(data.inputs).all()):
        bad = int((~torch.isfinite(data.inputs.flatten(1)).all(dim=1)).nonzero()[0])
        raise DatasetError(
            f"Expected finite {which} inputs in {name}, got NaN or infinity in example {bad}",
            hint="Clean the data first: a single NaN would end up in every weight.",
        )
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= classes:
        raise DatasetError(f"Expected {which} labels from 0 to {classes - 1} in {name}, got {low} to {high}")
