"""What travels between Flower's engine and its clients, and the client: one row of an assignment, with its examples."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cloud.aggregation.rule import Fold
from simulations.engines.port import Assignment, Collector, LocalTraining, Trained
from simulations.engines.reference import ReferenceEngine
from simulations.problem import Data, Losses, Problem

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.clientapp import ClientApp


def instruction(assignment: Assignment, row: int, problem: Problem, node: int) -> "Message":
    """The row as a message to a node: model, examples, and batches that count within those examples."""
    from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
    from flwr.app.message_type import MessageType

    batches = assignment.batches[row]
    used, within = torch.unique(batches[batches >= 0], return_inverse=True)
    own = torch.full_like(batches, -1)
    own[batches >= 0] = within
    arrays = {
        "start": _row(assignment.start, row),
        "inputs": problem.train.inputs[used],
        "labels": problem.train.labels[used],
        "batches": own,
    }
    if assignment.linear is not None:
        arrays["linear"] = _row(assignment.linear, row)
    config: dict[str, Any] = {  # Any: Flower's own union of plain values
        "position": row,
        "client": int(assignment.clients[row]),
        "steps": int(assignment.steps[row]),
        "learning-rate-factor": assignment.learning_rate_factor,
        "seed": int(assignment.seeds[row]) if len(assignment.seeds) else 0,
    }
    content = RecordDict({"row": ArrayRecord(_arrays(arrays)), "config": ConfigRecord(config)})
    return Message(content, dst_node_id=node, message_type=MessageType.TRAIN)


def client_app(model: Any, losses: Losses, classes: int, local: LocalTraining) -> "ClientApp":
    """Trains the row that a message brings, as the reference engine does.

    Args:
        model: `Problem.model`.
        losses: `Problem.losses`.
        classes: `Problem.classes`.
        local: How each client trains.
    """
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.train()
    def train(message: "Message", context: Any) -> "Message":  # Flower's Context; a simulated client keeps nothing
        return _train(message, model, losses, classes, local)

    return app


def _train(message: "Message", model: Any, losses: Losses, classes: int, local: LocalTraining) -> "Message":
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

    torch.set_num_threads(1)  # Ray starts one worker for each core
    arrays = {
        name: torch.from_numpy(array.numpy().copy()) for name, array in message.content.array_records["row"].items()
    }
    config: dict[str, Any] = dict(message.content.config_records["config"])
    data = Data(arrays["inputs"], arrays["labels"])
    problem = Problem("row", model, losses, data, data, classes)
    assignment = Assignment(
        clients=torch.tensor([config["client"]]),
        batches=arrays["batches"][None],
        steps=torch.tensor([config["steps"]]),
        start=arrays["start"],
        learning_rate_factor=config["learning-rate-factor"],
        linear=arrays.get("linear"),
        seeds=torch.tensor([config["seed"]]),
    )
    kept = _Kept()
    ReferenceEngine(problem, local).train(assignment, kept)
    figures = {
        "position": config["position"],
        "loss": float(kept.trained.losses[0]),
        "start-loss": float(kept.trained.start_losses[0]),
    }
    update = ArrayRecord(_arrays({"delta": kept.trained.deltas[0]}))
    return Message(RecordDict({"update": update, "figures": MetricRecord(figures)}), reply_to=message)


class _Kept(Collector):
    """Keeps the one update there is."""

    trained: Trained

    def begin(self, assignment: Assignment) -> Fold:
        return {}

    def add(self, fold: Fold, assignment: Assignment, trained: Trained) -> None:
        self.trained = trained


def _arrays(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:  # Any: Flower's Array
    from flwr.app import Array

    return {name: Array(np.ascontiguousarray(tensor.numpy())) for name, tensor in tensors.items()}


def _row(values: torch.Tensor, row: int) -> torch.Tensor:
    return values if values.dim() == 1 else values[row]
