"""One device's part of a round: train a model on the device's own data, or evaluate it on what is held out.

Pure but for torch: model, data, settings and randomness come in, an update goes out. Whether the device may do this at
all is the ledger's question, asked before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import structlog
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from edge_agent.training.algorithms.algorithm import ClientAlgorithm
from edge_agent.training.algorithms.alternation import Alternation
from edge_agent.training.algorithms.choice import algorithm_of
from edge_agent.training.algorithms.personal import HasPersonalModel, positions_of
from edge_agent.training.clipping.bookkeeping import BookKeeping
from edge_agent.training.private_sgd import train_privately
from edge_agent.training.terms import LocalSgd, Terms, Turns
from shared.layout import Layout
from shared.privacy import PrivacySpec
from shared.randomness import SecureRandomness
from shared.strategies import FedAvgSettings, StrategySettings, expect_stable
from shared.tasks.task import DeviceData, Examples, LocalTraining, Task
from shared.tasks.torch_model import ModelMismatchError, load_state, trained_names
from shared.tensors import Tensors

_BATCH = 1024
_log = structlog.get_logger()


@dataclass(frozen=True)
class Part:
    """What a strategy wants of this device, and what the device knows of it from before."""

    strategy: StrategySettings = field(default_factory=FedAvgSettings)
    received: Tensors = field(default_factory=dict)
    """Vectors that were sent beside the model, `(parameters,)` float32 each."""
    kept: Tensors = field(default_factory=dict)
    """What the device kept after its last work that counted; empty the first time."""


@dataclass(frozen=True)
class Update:
    """New values of the trained parameters, and figures about them.

    With privacy, the figures are about held-out data only, and the weight is the number of units.
    """

    tensors: Tensors
    metrics: dict[str, float]
    beside: Tensors = field(default_factory=dict)
    """Vectors that are sent with it, `(parameters,)` float32 each."""
    kept: Tensors = field(default_factory=dict)
    """What this device keeps until its next round; never sent."""


def train_locally(
    task: Task,
    model_tensors: Tensors,
    data: DeviceData,
    *,
    settings: LocalTraining,
    privacy: PrivacySpec | None,
    randomness: SecureRandomness,
    part: Part | None = None,
) -> Update:
    """The device's update after a round's steps.

    Raises:
        ModelMismatchError: Weights of another model, or vectors of another length.
        StrategySettingError: The strategy does not fit the model.
    """
    part = part or Part()
    expect_stable(part.strategy, learning_rate=settings.learning_rate)
    model = _model(task, model_tensors, settings, randomness)
    layout = Layout.of({name: one for name, one in model.named_parameters() if one.requires_grad})
    algorithm = algorithm_of(part.strategy, model, layout)
    sent = _weights(model)
    received, kept = _received(part.received, like=sent), _vectors(part.kept) or algorithm.init(sent)
    trainer = _Trainer(task, model, data, settings=settings, privacy=privacy, randomness=randomness)
    metrics = trainer.start_loss() if algorithm.wants_start_loss else {}
    starts = zip(algorithm.starts(sent, received, kept), algorithm.proximals, strict=True)
    turns = _turns(algorithm.alternation, layout, steps=privacy.steps_per_round if privacy else settings.steps)
    terms = [Terms(start.weights, proximal, start.linear, turns) for start, proximal in starts]
    # The first training's update is sent; a second one's model stays here.
    first, *own = [trainer.train(each, is_sent=number == 0) for number, each in enumerate(terms)]
    done = algorithm.finish(
        sent,
        received,
        kept,
        [first.delta, *(each.delta for each in own)],
        steps=torch.tensor(first.metrics["steps"]),
        learning_rate=settings.learning_rate,
    )
    metrics |= first.metrics
    metrics |= {f"personal-{name}": value for name, value in _personal(algorithm, first, own, privacy).items()}
    trained = layout.split((sent + done.delta).numpy())
    return Update(dict(trained), metrics, beside=_arrays(done.extras), kept=_arrays(done.kept))


def _model(task: Task, tensors: Tensors, settings: LocalTraining, randomness: SecureRandomness) -> torch.nn.Module:
    """The task's model with these weights; only what rounds train requires a gradient."""
    model = task.model(seed=0)
    load_state(model, tensors)
    # What the model draws itself, for dropout and the like.
    torch.default_generator.manual_seed(int(randomness.uniform(1)[0] * 2**63))
    names = trained_names(model, settings.trained_parameters)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    return model


@dataclass(frozen=True)
class _Trained:
    delta: torch.Tensor
    metrics: dict[str, float]
    held_out: dict[str, float]


@dataclass(frozen=True)
class _Trainer:
    """Trains one model on the device's data, from wherever it is told to start."""

    task: Task
    model: torch.nn.Module
    data: DeviceData
    settings: LocalTraining
    privacy: PrivacySpec | None
    randomness: SecureRandomness

    def train(self, terms: Terms, *, is_sent: bool) -> _Trained:
        """What training changed. What is not sent needs no noise, and costs no privacy."""
        trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        vector_to_parameters(terms.start.clone(), trainable)
        metrics = self._train_plainly(terms) if self.privacy is None or not is_sent else self._train_privately(terms)
        held_out = figures(self.task, self.model, self.data.held_out)
        metrics |= {f"held-out-{name}": value for name, value in held_out.items()}
        return _Trained(_weights(self.model) - terms.start, metrics, held_out)

    def start_loss(self) -> dict[str, float]:
        """The loss of the model as it was sent; with privacy on held-out data, like every figure."""
        examples = self.data.train if self.privacy is None else self.data.held_out
        found = figures(self.task, self.model, examples)
        return {"start-loss": found["loss"]} if found else {}

    def _train_plainly(self, terms: Terms) -> dict[str, float]:
        losses = _train_plainly(
            self.task, self.model, self.data.train, settings=self.settings, randomness=self.randomness, terms=terms
        )
        return {
            "num-examples": float(len(self.data.train)),
            "steps": float(len(losses)),
            "train-loss": float(np.mean(losses)) if losses else 0.0,
        }

    def _train_privately(self, terms: Terms) -> dict[str, float]:
        assert self.privacy is not None
        engine = train_privately(
            self.task,
            self.model,
            self.data.train,
            spec=self.privacy,
            learning_rate=self.settings.learning_rate,
            randomness=self.randomness,
            terms=terms,
        )
        _log.info("privately_trained", clipping_engine=engine.name, notes=engine.notes)
        return {
            "num-examples": float(len(np.unique(self.data.train.units))),
            "steps": float(self.privacy.steps_per_round),
            "clipped-by-book-keeping": float(engine.name == BookKeeping.name),
        }


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
    task: Task,
    model: torch.nn.Module,
    examples: Examples,
    *,
    settings: LocalTraining,
    randomness: SecureRandomness,
    terms: Terms,
) -> list[float]:
    """Plain SGD on Poisson-sampled units; returns each step's loss. A step that drew nobody is none."""
    units = np.unique(examples.units)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = LocalSgd(trainable, learning_rate=settings.learning_rate, terms=terms)
    losses: list[float] = []
    model.train()
    for _ in range(settings.steps):
        sampled = units[randomness.uniform(len(units)) < settings.sampling_rate]
        chosen = np.flatnonzero(np.isin(examples.units, sampled))
        if not len(chosen):
            optimizer.skip()
            continue
        optimizer.zero_grad()
        outputs = model(torch.from_numpy(examples.inputs[chosen]))
        loss = task.loss(outputs, torch.from_numpy(examples.labels[chosen]))
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward unannotated
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def _personal(
    algorithm: ClientAlgorithm, first: _Trained, own: Sequence[_Trained], privacy: PrivacySpec | None
) -> dict[str, float]:
    """What the device's own model achieves on held-out data, where it has one and may tell."""
    if not isinstance(algorithm, HasPersonalModel):
        return {}
    if not own:
        return first.held_out
    # A second model is trained without noise: with privacy, what it achieves is not told either.
    return own[-1].held_out if privacy is None else {}


def _turns(alternation: Alternation | None, layout: Layout, *, steps: int) -> Turns | None:
    if alternation is None:
        return None
    is_head = torch.zeros(layout.size)
    is_head[positions_of(layout, alternation.head)] = 1
    return Turns(alternation, is_head, steps)


def _weights(model: torch.nn.Module) -> torch.Tensor:
    """The trained parameters as one vector."""
    return parameters_to_vector([one.detach() for one in model.parameters() if one.requires_grad])


def _received(tensors: Tensors, *, like: torch.Tensor) -> dict[str, torch.Tensor]:
    for name, value in tensors.items():
        if value.shape != like.shape or not np.isfinite(value).all():
            raise ModelMismatchError(f"Expected {name!r} as {len(like)} finite numbers, got {value.shape}")
    return _vectors(tensors)


def _vectors(tensors: Tensors) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(value, np.float32)) for name, value in tensors.items()}


def _arrays(vectors: Mapping[str, torch.Tensor]) -> Tensors:
    return {name: vector.numpy() for name, vector in vectors.items()}
