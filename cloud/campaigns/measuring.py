"""How good a campaign's models are: the validation data is loaded once, not once a round."""

from cloud.training.evaluate import Evaluation, evaluate, evaluate_model
from shared.tasks.task import Role, Task
from shared.tasks.torch_model import load_state
from shared.tensors import Tensors


class Measuring:
    """Figures of one task's models."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._network = task.model(seed=0)
        self._validation = task.central_data(Role.VALIDATION)

    def validation(self, tensors: Tensors) -> Evaluation:
        """What rounds are judged by. Raises ModelMismatchError for weights of another model."""
        load_state(self._network, tensors)
        return evaluate_model(self._task, self._network, self._validation)

    def unseen(self, tensors: Tensors) -> Evaluation:
        """What is reported; nothing is decided by it."""
        return evaluate(self._task, tensors, role=Role.UNSEEN)
