"""How good a model is on data the cloud knows."""

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from shared.tasks.task import Examples, Role, Task
from shared.tasks.torch_model import load_state
from shared.tensors import Tensors

if TYPE_CHECKING:
    import torch

_BATCH = 1024


@dataclass(frozen=True)
class Evaluation:
    """Accuracy as a fraction, the mean loss, and on how many examples."""

    accuracy: float
    loss: float
    examples: int


def evaluate(task: Task, tensors: Tensors, *, role: Role) -> Evaluation:
    """The weights' figures on the role's data. Raises ModelMismatchError for weights of another model."""
    import torch

    torch.set_num_threads(1)
    model = task.model(seed=0)
    load_state(model, tensors)
    return evaluate_model(task, model, task.central_data(role))


def evaluate_model(task: Task, model: "torch.nn.Module", examples: Examples) -> Evaluation:
    """The model's figures on the examples, on whatever device it lies; it is left in training or evaluation mode."""
    import torch

    if len(examples) == 0:
        raise ValueError("Expected at least one example to evaluate on, got none")
    # Trees are buffers alone.
    place, was_training = next(chain(model.parameters(), model.buffers())).device, model.training
    inputs, labels = torch.from_numpy(examples.inputs), torch.from_numpy(examples.labels)
    correct, loss = 0, 0.0
    model.eval()
    with torch.no_grad():
        for batch_inputs, batch_labels in zip(torch.split(inputs, _BATCH), torch.split(labels, _BATCH), strict=True):
            targets = batch_labels.to(place)
            outputs = model(batch_inputs.to(place))
            correct += int((outputs.argmax(dim=1) == targets).sum())
            loss += float(task.loss(outputs, targets)) * len(targets)
    model.train(was_training)
    return Evaluation(accuracy=correct / len(examples), loss=loss / len(examples), examples=len(examples))
