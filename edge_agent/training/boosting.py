"""One device's part of a round of trees: it boosts from the ensemble that was sent, on its own data, and sends its own.

As `local`, for tasks with trees. A split's threshold is a value, or nearly one, of this device's data, and no noise
hides it: the owner allows such work as any without privacy, and work that asks for privacy here is refused.
"""

from edge_agent.training.local import Update, figures
from shared.randomness import SecureRandomness
from shared.tasks.task import DeviceData, LocalTraining, Task
from shared.tasks.torch_model import ModelMismatchError
from shared.tensors import Tensors
from shared.trees.boosting import Boosting
from shared.trees.ensemble import MalformedEnsembleError, joined, read_ensemble
from shared.trees.growing import Growth, grow
from shared.trees.model import TreeModel

_SEED_BITS = 31


def boost_locally(
    task: Task,
    boosting: Boosting,
    sent: Tensors,
    data: DeviceData,
    *,
    settings: LocalTraining,
    randomness: SecureRandomness,
) -> Update:
    """The device's new trees after a round's steps, and figures about the ensemble with them.

    Raises:
        ModelMismatchError: What was sent is no ensemble of this task.
        ExtraNotInstalledError: There is no XGBoost here.
    """
    try:
        start = read_ensemble(sent, boosting)
    except MalformedEnsembleError as error:
        raise ModelMismatchError(error.message) from error
    seed = int(randomness.uniform(1)[0] * 2**_SEED_BITS)
    growth = Growth(settings.steps, settings.learning_rate, sampling_rate=settings.sampling_rate, seed=seed)
    grown = grow(boosting, start, data.train, growth)
    model = TreeModel(boosting)
    model.take_tensors(joined([start, grown]).tensors)
    held_out = {f"held-out-{name}": value for name, value in figures(task, model, data.held_out).items()}
    train_loss = figures(task, model, data.train)["loss"]
    metrics = {"num-examples": float(len(data.train)), "steps": float(settings.steps), "train-loss": train_loss}
    return Update(grown.tensors, metrics | held_out)
