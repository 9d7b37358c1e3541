"""Federated averaging as plain loops in one process: the oracle that the distributed rounds are measured against.

McMahan et al. 2017 (arXiv:1602.05629), algorithm 1, with the devices' own ClientApp as ClientUpdate:

    w <- base model
    for each round:
        for each device k:  w_k, n_k <- ClientUpdate(k, w)
        w <- sum over k of n_k / n * w_k
        evaluate w

Nothing is sent, nothing fails, nobody keeps a ledger. Every device takes part in every round.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.clientapp import ClientApp

from cloud.training.evaluate import Evaluation, evaluate
from edge_agent.training.client_app import make_app
from edge_agent.training.flower_call import Config, call_client
from shared.messages.work import WorkKind
from shared.privacy import PrivacySpec
from shared.randomness import SecureRandomness
from shared.tasks.task import DeviceData, Role, Task
from shared.tasks.updates import apply_update
from shared.tensors import Tensors


@dataclass(frozen=True)
class Round:
    """The model after a round, on validation data, and the devices' own figures."""

    number: int
    """From 1."""
    validation: Evaluation
    devices: tuple[dict[str, float], ...]


@dataclass(frozen=True)
class Run:
    """The last model, and how every round went."""

    tensors: Tensors
    rounds: tuple[Round, ...]


@dataclass(frozen=True)
class Settings:
    """What a campaign would say."""

    rounds: int
    privacy: PrivacySpec | None = None
    config: Config = field(default_factory=dict)
    """Overrides of the task's own settings, by the names the ClientApp knows: `steps`, `learning-rate` ..."""


def federated_averaging(
    task: Task,
    base: Tensors,
    devices: Sequence[DeviceData],
    *,
    settings: Settings,
    seed: int,
    on_round: Callable[[Round], None] = lambda _: None,
) -> Run:
    """The base model after the rounds; the same seed gives the same run, noise included."""
    app = make_app(lambda _, context: devices[context.node_id], randomness=_seeded(seed))
    model = dict(base)
    rounds: list[Round] = []
    for number in range(1, settings.rounds + 1):
        replies = [_client_update(app, task, model, device, settings, number) for device in range(len(devices))]
        model = apply_update(model, average([(update, metrics["num-examples"]) for update, metrics in replies]))
        metrics = tuple(metrics for _, metrics in replies)
        rounds.append(Round(number, evaluate(task, model, role=Role.VALIDATION), metrics))
        on_round(rounds[-1])
    return Run(model, tuple(rounds))


def average(updates: Sequence[tuple[Tensors, float]]) -> Tensors:
    """The weighted mean of `(tensors, weight)`, in double precision, as the tensors' own type."""
    total = sum(weight for _, weight in updates)
    first, _ = updates[0]
    return {
        name: np.asarray(
            sum(np.asarray(update[name], np.float64) * (weight / total) for update, weight in updates)
        ).astype(value.dtype)
        for name, value in first.items()
    }


def _client_update(
    app: ClientApp, task: Task, model: Tensors, device: int, settings: Settings, number: int
) -> tuple[Tensors, dict[str, float]]:
    """What one device makes of the model: its update, and its figures."""
    config = {**settings.config, "server-round": number, "task": task.name, "task-version": task.version}
    answer = call_client(app, kind=WorkKind.TRAIN, model=model, config=config, privacy=settings.privacy, node_id=device)
    return answer.update, answer.metrics


def _seeded(seed: int) -> Callable[[], SecureRandomness]:
    """A new generator for each device's turn, all from one seed: simulation, not privacy."""
    generator = np.random.default_rng(seed)
    return lambda: SecureRandomness(generator.bytes(32))
