"""Trains a task's base model on public data, in the cloud, resuming from its newest checkpoint.

Deterministic on one machine: the same task, seed and thread count give the same weights, and a run that was killed and
resumed ends with the weights of one that was not, because each epoch's randomness is drawn from the seed and the epoch.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cloud.training.checkpoints import Checkpoint, newest_checkpoint, write_checkpoint
from cloud.training.evaluate import Evaluation, evaluate_model
from shared.tasks.task import Examples, Role, Task
from shared.tasks.torch_model import load_state, state_tensors
from shared.tensors import Tensors

if TYPE_CHECKING:
    import torch

THREADS_MAX = 1
"""Our models are small: more threads cost more in waiting than they gain, and starve the coordinator."""


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch achieved."""

    epoch: int
    """From 1."""
    epochs: int
    train_loss: float
    validation: Evaluation


@dataclass(frozen=True)
class TrainedModel:
    """The base model, and how it came about. Accuracy is on validation subjects; the unseen were not touched."""

    tensors: Tensors
    metrics: dict[str, float]
    history: tuple[EpochMetrics, ...] = field(default=())
    """Epochs of this run; those before a resume were reported then."""


def train_base(
    task: Task,
    *,
    seed: int,
    checkpoint_dir: Path,
    on_epoch: Callable[[EpochMetrics], None] = lambda _: None,
    device: str = "auto",
    examples: Examples | None = None,
) -> TrainedModel:
    """The task's model after `central_training.epochs` on its public data.

    Args:
        task: What to learn.
        seed: Of the initial weights and of the order of examples.
        checkpoint_dir: One checkpoint after each epoch; a later call with the same seed goes on from the newest.
        on_epoch: Called after each epoch of this run, once its checkpoint is on disk.
        device: A torch device, or `auto`: the GPU if there is one.
        examples: Instead of the public data, for comparisons where somebody may see everything.

    Raises:
        TaskDataError: The task's data is not on this machine.
        CheckpointError: The newest checkpoint is of another task, version or seed.
    """
    import torch

    torch.set_num_threads(THREADS_MAX)
    place = _device(device)
    examples = task.central_data(Role.PUBLIC) if examples is None else examples
    validation = task.central_data(Role.VALIDATION)
    model, optimizer, done = _start(task, seed=seed, checkpoint_dir=checkpoint_dir, place=place)
    history: list[EpochMetrics] = []
    for epoch in range(done + 1, task.central_training.epochs + 1):
        loss = _train_epoch(task, model, optimizer, examples, seed=seed, epoch=epoch)
        write_checkpoint(checkpoint_dir, _checkpoint(task, model, optimizer, seed=seed, epoch=epoch))
        history.append(EpochMetrics(epoch, task.central_training.epochs, loss, evaluate_model(task, model, validation)))
        on_epoch(history[-1])
    final = evaluate_model(task, model, validation)
    metrics = {"validation_accuracy": final.accuracy, "validation_loss": final.loss, "examples": float(len(examples))}
    if history:
        metrics["train_loss"] = history[-1].train_loss
    return TrainedModel(tensors=state_tensors(model), metrics=metrics, history=tuple(history))


def _device(name: str) -> "torch.device":
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _start(
    task: Task, *, seed: int, checkpoint_dir: Path, place: "torch.device"
) -> tuple["torch.nn.Module", "torch.optim.Optimizer", int]:
    """Model, optimizer and number of finished epochs, fresh or from the newest checkpoint."""
    import torch

    settings = task.central_training
    model = task.model(seed=seed).to(place)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    found = newest_checkpoint(checkpoint_dir, task=task.name, task_version=task.version, seed=seed)
    if found is None:
        return model, optimizer, 0
    load_state(model, found.model)
    _load_moments(optimizer, found.moments)
    return model, optimizer, found.epoch


def _train_epoch(
    task: Task,
    model: "torch.nn.Module",
    optimizer: "torch.optim.Optimizer",
    examples: Examples,
    *,
    seed: int,
    epoch: int,
) -> float:
    """The epoch's mean loss."""
    import torch

    place = next(model.parameters()).device
    inputs, labels = torch.from_numpy(examples.inputs).to(place), torch.from_numpy(examples.labels).to(place)
    generator = np.random.default_rng([seed, epoch])
    order = torch.from_numpy(generator.permutation(len(examples))).to(place)
    # What the model draws itself, for dropout and the like.
    torch.manual_seed(int(generator.integers(2**63)))
    model.train()
    total = 0.0
    for batch in torch.split(order, task.central_training.batch_size):
        optimizer.zero_grad()
        loss = task.loss(model(inputs[batch]), labels[batch])
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward unannotated
        optimizer.step()
        total += float(loss.detach()) * len(batch)
    return total / len(examples)


def _checkpoint(
    task: Task, model: "torch.nn.Module", optimizer: "torch.optim.Optimizer", *, seed: int, epoch: int
) -> Checkpoint:
    moments = {
        f"{index}.{name}": np.asarray(value.detach().cpu().numpy())
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }
    return Checkpoint(task.name, task.version, seed, epoch, state_tensors(model), moments)


def _load_moments(optimizer: "torch.optim.Optimizer", moments: Tensors) -> None:
    import torch

    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in moments.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = torch.from_numpy(np.array(value))
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
