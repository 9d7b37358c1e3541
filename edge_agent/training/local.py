"""One device's part of a round: train a model on the device's own data, or evaluate it on what is held out.

Pure but for torch: model, data, settings and randomness come in, an update goes out. Whether the device may do this at
all is the ledger's question, asked before.
"""

from dataclasses import dataclass

import numpy as np
import structlog
import torch

from edge_agent.training.clipping.bookkeeping import BookKeeping
from edge_agent.training.private_sgd import train_privately
from shared.privacy import PrivacySpec
from shared.randomness import SecureRandomness
from shared.tasks.task import DeviceData, Examples, LocalTraining, Task
from shared.tasks.torch_model import load_state, state_tensors, trained_names
from shared.tensors import Tensors

_BATCH = 1024
_log = structlog.get_logger()


@dataclass(frozen=True)
class Update:
    """New values of the trained parameters, and figures about them.

    With privacy, the figures are about held-out data only, and the weight is the number of units.
    """

    tensors: Tensors
    metrics: dict[str, float]


def train_locally(
    task: Task,
    model_tensors: Tensors,
    data: DeviceData,
    *,
    settings: LocalTraining,
    privacy: PrivacySpec | None,
    randomness: SecureRandomness,
) -> Update:
    """The device's update after a round's steps. Raises ModelMismatchError for weights of another model."""
    model = task.model(seed=0)
    load_state(model, model_tensors)
    # What the model draws itself, for dropout and the like.
    torch.manual_seed(int(randomness.uniform(1)[0] * 2**63))
    names = trained_names(model, settings.trained_parameters)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    if privacy is None:
        loss = _train_plainly(task, model, data.train, settings=settings, randomness=randomness)
        metrics = {"num-examples": float(len(data.train)), "train-loss": loss}
    else:
        engine = train_privately(
            task, model, data.train, spec=privacy, learning_rate=settings.learning_rate, randomness=randomness
        )
        _log.info("privately_trained", clipping_engine=engine.name, notes=engine.notes)
        metrics = {
            "num-examples": float(len(np.unique(data.train.units))),
            "clipped-by-book-keeping": float(engine.name == BookKeeping.name),
        }
    metrics |= {f"held-out-{name}": value for name, value in figures(task, model, data.held_out).items()}
    tensors = state_tensors(model)
    return Update({name: tensors[name] for name in names}, metrics)


def evaluate_locally(task: Task, model_tensors: Tensors, data: DeviceData) -> dict[str, float]:
    """`num-examples`, `loss` and `accuracy` on the device's held-out data."""
    model = task.model(seed=0)
    load_state(model, model_tensors)
    return {"num-examples": float(len(data.held_out)), **figures(task, model, data.held_out)}


def figures(task: Task, model: torch.nn.Module, examples: Examples) -> dict[str, float]:
    """Mean loss and accuracy, or nothing where there are no examples."""
    if not len(examples):
        return {}
    correct, loss = 0, 0.0
    model.eval()
    with torch.no_grad():
        for batch in np.array_split(np.arange(len(examples)), -(-len(examples) // _BATCH)):
            outputs = model(torch.from_numpy(examples.inputs[batch]))
            labels = torch.from_numpy(examples.labels[batch])
            correct += int((outputs.argmax(dim=1) == labels).sum())
            loss += float(task.loss(outputs, labels)) * len(batch)
    return {"loss": loss / len(examples), "accuracy": correct / len(examples)}


def _train_plainly(
    task: Task, model: torch.nn.Module, examples: Examples, *, settings: LocalTraining, randomness: SecureRandomness
) -> float:
    """Plain SGD on Poisson-sampled units; returns the mean loss of its steps."""
    units = np.unique(examples.units)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=settings.learning_rate)
    losses: list[float] = []
    model.train()
    for _ in range(settings.steps):
        sampled = units[randomness.uniform(len(units)) < settings.sampling_rate]
        chosen = np.flatnonzero(np.isin(examples.units, sampled))
        if not len(chosen):
            continue
        optimizer.zero_grad()
        outputs = model(torch.from_numpy(examples.inputs[chosen]))
        loss = task.loss(outputs, torch.from_numpy(examples.labels[chosen]))
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward unannotated
        optimizer.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses)) if losses else 0.0
