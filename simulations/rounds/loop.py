"""Rounds, one after another, as the coordinator runs them.

    for each round:                                    (McMahan et al. 2017, algorithm 1)
        who takes part, and on which batches           pure functions of seed, round and client
        train, collect                                 the engine; the devices' and the coordinator's functions
        model, state <- aggregation.finish(model, state, fold)
        keep what the accepted clients keep
        measure

All that changes is in `RunState` and in what clients keep: nothing else needs to be stored to go on later.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from time import perf_counter

import numpy as np
import torch

from cloud.aggregation.errors import NothingToAggregateError
from cloud.aggregation.rule import Fold, State, Vector
from shared.tasks.torch_model import state_tensors
from shared.tensors import Tensors
from simulations.engines.port import Assignment
from simulations.populations.batches import Batches, plan_batches
from simulations.rounds.collector import (
    ACCEPTED,
    DELTAS,
    LOSSES,
    NORMS,
    DeltaCollector,
    RoundCollector,
    aggregated,
    kept_rows,
)
from simulations.rounds.evaluation import Evaluator
from simulations.rounds.kept import KeptVectors
from simulations.rounds.participation import Course, Turn
from simulations.rounds.privacy import counted, most_often, without_counts
from simulations.rounds.record import RoundRecord
from simulations.rounds.sending import RESIDUAL
from simulations.rounds.setup import Setup

_NOTHING = torch.zeros(0, dtype=torch.int64)
_NOTHING_TO_DO = Batches(_NOTHING.reshape(0, 0, 0), _NOTHING, _NOTHING, _NOTHING)


@dataclass(frozen=True)
class RunState:
    """Between two rounds."""

    round: int
    """How many are done."""
    model: Vector
    rule: State
    course: Course = field(default_factory=dict)
    """Who trains just now, and the virtual time."""
    past: Mapping[int, Vector] = field(default_factory=dict)
    """Older models that clients still train from, by the number of rounds that made them."""

    def on(self, device: torch.device) -> "RunState":
        """The same, with its tensors on this device."""
        return replace(
            self,
            model=self.model.to(device),
            rule={name: value.to(device) for name, value in self.rule.items()},
            past={version: model.to(device) for version, model in self.past.items()},
        )


@dataclass(frozen=True)
class _Measured:
    test_loss: float = float("nan")
    test_accuracy: float = float("nan")
    attack_success: float = float("nan")
    personal_accuracy: float = float("nan")
    personal_accuracy_p10: float = float("nan")


class RoundLoop:
    """Runs the rounds of one setup.

    Args:
        setup: Closed by whoever made it.
        kept: What clients kept so far; changed in place.
        state: Where to continue; nothing: before the first round.
    """

    def __init__(self, setup: Setup, kept: KeptVectors, state: RunState | None = None) -> None:
        self._setup = setup
        self._kept = kept
        self._evaluator = Evaluator(setup.problem, setup.device)
        self.state = state or _first(setup)

    @property
    def tensors(self) -> Tensors:
        """All tensors of the newest model, those that are not trained too."""
        setup = self._setup
        trained = setup.layout.split(self.state.model.cpu())
        tensors = state_tensors(setup.problem.model(setup.seed))
        return tensors | {name: value.numpy().copy() for name, value in trained.items()}

    def measure_start(self) -> RoundRecord:
        """The model before the first round."""
        return RoundRecord(0, **asdict(self._measured()))

    def run_round(self) -> RoundRecord:
        """One more round; `state` is the next one when this returns."""
        began, number = perf_counter(), self.state.round + 1
        setup = self._setup
        turn, course = setup.participants.turn(number, without_counts(self.state.course))
        if setup.examples is not None:
            course = counted({**self.state.course, **course}, turn.clients)
        plan = _NOTHING_TO_DO
        if len(turn.clients):
            plan = plan_batches(setup.population, turn.clients, setup.work, seed=setup.seed, round=turn.starts)
        fold = self._train(turn, plan, number)
        accepted = (fold[ACCEPTED] > 0).cpu()
        learning = fold[LOSSES].double().cpu().numpy() * plan.examples.numpy()
        course = setup.participants.learned(number, course, turn, np.nan_to_num(learning))
        try:
            model, rule = setup.aggregation.finish(self.state.model, self.state.rule, aggregated(fold))
        except NothingToAggregateError:
            model, rule = self.state.model, self.state.rule
        chosen = {name: rows[accepted] for name, rows in kept_rows(fold).items()}
        self._kept.write(turn.clients[accepted.numpy()], chosen)
        known = {**self.state.past, number: model}
        past = {version: known[version] for version in setup.participants.versions_needed(course)}
        self.state = RunState(number, model, rule, course, past)
        return self._record(turn, plan, fold, accepted, began)

    def _train(self, turn: Turn, plan: Batches, number: int) -> Fold:
        """Every training of the cohort; the fold has the updates for the cloud."""
        setup, model = self._setup, self.state.model
        local = setup.experiment.local
        factor = local.learning_rate_decay ** (number - 1)
        received = setup.aggregation.sent(self.state.rule)
        kept = self._kept.read(turn.clients, kept_defaults(setup, model))
        own = {name: rows for name, rows in kept.items() if name != RESIDUAL}
        assignments = [
            Assignment(
                clients=torch.from_numpy(turn.clients),
                batches=plan.batches,
                steps=plan.steps,
                start=start.weights,
                learning_rate_factor=factor,
                linear=start.linear,
                seeds=plan.seeds,
            )
            for start in setup.algorithm.starts(self._sent(turn), received, own)
        ]
        others = tuple(
            engine.train(assignment, DeltaCollector())[DELTAS]
            for engine, assignment in zip(setup.engines[1:], assignments[1:], strict=True)
            if len(turn.clients)
        )
        collector = RoundCollector(
            aggregation=setup.aggregation,
            algorithm=setup.algorithm,
            channel=setup.channel,
            model=model,
            received=received,
            kept=kept,
            weights=self._weights(plan),
            staleness=_staleness(turn, number),
            learning_rate=local.optimizer.learning_rate * factor,
            lies=setup.lies(turn.clients),
            others=others,
        )
        if not len(turn.clients):
            return collector.begin(assignments[0])
        fold = setup.engines[0].train(assignments[0], collector)
        collector.complete(fold, assignments[0])
        return fold

    def _sent(self, turn: Turn) -> Vector:
        """The model that was sent: to all, `(parameters,)`, or to each, `(K, parameters)`."""
        if turn.versions is None:
            return self.state.model
        return torch.stack([self.state.past[version] for version in turn.versions.tolist()])

    def _weights(self, plan: Batches) -> torch.Tensor:
        if self._setup.experiment.weighting == "equal":
            return torch.ones(len(plan.examples), dtype=torch.float64)
        return plan.examples.double()

    def _record(self, turn: Turn, plan: Batches, fold: Fold, accepted: torch.Tensor, began: float) -> RoundRecord:
        setup, number = self._setup, self.state.round
        experiment, count = setup.experiment, max(1, int(accepted.sum()))
        is_measured = number % experiment.evaluation.every == 0 or number == experiment.rounds
        most = most_often(self.state.course)
        # One transfer from a GPU instead of two.
        losses, norms = torch.stack([fold[LOSSES].sum(), fold[NORMS].sum()]).div(count).tolist()
        measured = self._measured() if is_measured else _Measured()
        return RoundRecord(
            round=number,
            asked=turn.asked,
            clients=len(turn.clients),
            late=turn.late,
            lost=turn.lost,
            rejected=len(accepted) - int(accepted.sum()),
            examples=int(plan.examples.sum()),
            bytes_down=setup.bytes_down * turn.asked,
            bytes_up=setup.bytes_up * (turn.asked - turn.lost),
            clock_s=turn.clock_s if self.state.course.get("clock_s") is not None else float("nan"),
            train_loss=losses if bool(accepted.any()) else float("nan"),
            update_norm=norms if bool(accepted.any()) else float("nan"),
            example_epsilon=float("nan") if setup.examples is None else setup.examples.epsilon(most),
            user_epsilon=float("nan") if setup.users is None else setup.users.epsilon(number),
            **asdict(measured),
            seconds=perf_counter() - began,
        )

    def _measured(self) -> _Measured:
        """The newest model on the test data."""
        setup, model = self._setup, self.state.model
        measured = self._evaluator.measure(model, setup.problem.test)
        success = float("nan")
        if setup.triggered is not None:
            success = self._evaluator.measure(model, setup.triggered).accuracy
        return _Measured(measured.loss, measured.accuracy, success, *self._personal())

    def _personal(self) -> tuple[float, float]:
        """The clients' own models on what they hold out: the mean, and what a tenth of them have less than."""
        setup, model = self._setup, self.state.model
        if setup.personal is None:
            return float("nan"), float("nan")
        defaults = {name: value for name, value in kept_defaults(setup, model).items() if name != RESIDUAL}
        found = setup.personal.accuracies(
            self._evaluator,
            setup.problem.train,
            setup.algorithm,
            model,
            lambda clients: self._kept.read(clients, defaults),
        )
        return (float(found.mean()), float(np.quantile(found, 0.1))) if len(found) else (float("nan"), float("nan"))


def kept_defaults(setup: Setup, model: Vector) -> dict[str, torch.Tensor]:
    """What a client has kept that never took part."""
    defaults = dict(setup.algorithm.init(model))
    if setup.channel.keeps_residual:
        defaults[RESIDUAL] = torch.zeros_like(model)
    return defaults


def _first(setup: Setup) -> RunState:
    course = setup.participants.begin()
    past = dict.fromkeys(setup.participants.versions_needed(course), setup.start)
    return RunState(0, setup.start, setup.aggregation.init(setup.start), course, past)


def _staleness(turn: Turn, number: int) -> torch.Tensor:
    versions = np.full(len(turn.clients), number - 1) if turn.versions is None else turn.versions
    return torch.from_numpy((number - 1) - versions).double()
