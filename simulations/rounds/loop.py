"""Rounds, one after another, as a synchronous coordinator runs them.

    for each round:                                    (McMahan et al. 2017, algorithm 1)
        cohort and batches                             a pure function of seed and round
        train, collect                                 the engine; the device's and the coordinator's functions
        model, state <- rule.finish(model, state, fold)
        keep what the accepted clients keep
        measure

All that changes is in `RunState` and in what clients keep: nothing else needs to be stored to go on later.
"""

from dataclasses import dataclass
from time import perf_counter

import torch

from cloud.aggregation.rule import Fold, State, Vector
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
from simulations.rounds.record import RoundRecord
from simulations.rounds.setup import Clients, Setup


@dataclass(frozen=True)
class RunState:
    """Between two rounds."""

    round: int
    """How many are done."""
    model: Vector
    rule: State


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
        self._evaluator = Evaluator(setup.problem)
        self.state = state or RunState(0, setup.start, setup.aggregation.init(setup.start))

    def measure_start(self) -> RoundRecord:
        """The model before the first round."""
        measured = self._evaluator.measure(self.state.model)
        return RoundRecord(0, test_loss=measured.loss, test_accuracy=measured.accuracy)

    def run_round(self) -> RoundRecord:
        """One more round; `state` is the next one when this returns."""
        began, number = perf_counter(), self.state.round + 1
        setup = self._setup
        clients = setup.cohort(number)
        plan = plan_batches(setup.population, clients, setup.work, seed=setup.seed, round=number)
        fold = self._train(clients, plan, number)
        accepted = fold[ACCEPTED] > 0
        model, rule_state = self.state.model, self.state.rule
        if bool(accepted.any()):
            model, rule_state = setup.aggregation.finish(model, rule_state, aggregated(fold))
            self._kept.write(
                clients[accepted.numpy()], {name: rows[accepted] for name, rows in kept_rows(fold).items()}
            )
        self.state = RunState(number, model, rule_state)
        return self._record(number, plan, fold, accepted, began)

    def _train(self, clients: Clients, plan: Batches, number: int) -> Fold:
        """Every training of the cohort; the last one's fold has the updates for the cloud."""
        setup, model = self._setup, self.state.model
        local = setup.experiment.local
        factor = local.learning_rate_decay ** (number - 1)
        received = setup.aggregation.sent(self.state.rule)
        kept = self._kept.read(clients, setup.algorithm.init(model))
        assignments = [
            Assignment(
                clients=torch.from_numpy(clients),
                batches=plan.batches,
                steps=plan.steps,
                start=start.weights,
                learning_rate_factor=factor,
                linear=start.linear,
                seeds=plan.seeds,
            )
            for start in setup.algorithm.starts(model, received, kept)
        ]
        others = tuple(
            engine.train(assignment, DeltaCollector())[DELTAS]
            for engine, assignment in zip(setup.engines[1:], assignments[1:], strict=True)
        )
        collector = RoundCollector(
            aggregation=setup.aggregation,
            algorithm=setup.algorithm,
            model=model,
            received=received,
            kept=kept,
            weights=self._weights(plan),
            learning_rate=local.optimizer.learning_rate * factor,
            others=others,
        )
        return setup.engines[0].train(assignments[0], collector)

    def _weights(self, plan: Batches) -> torch.Tensor:
        if self._setup.experiment.weighting == "equal":
            return torch.ones(len(plan.examples), dtype=torch.float64)
        return plan.examples.double()

    def _record(self, number: int, plan: Batches, fold: Fold, accepted: torch.Tensor, began: float) -> RoundRecord:
        experiment = self._setup.experiment
        count = int(accepted.sum())
        measured = None
        if number % experiment.evaluation.every == 0 or number == experiment.rounds:
            measured = self._evaluator.measure(self.state.model)
        return RoundRecord(
            round=number,
            clients=len(accepted),
            rejected=len(accepted) - count,
            examples=int(plan.examples.sum()),
            train_loss=float(fold[LOSSES].sum() / count) if count else float("nan"),
            update_norm=float(fold[NORMS].sum() / count) if count else float("nan"),
            test_loss=measured.loss if measured else float("nan"),
            test_accuracy=measured.accuracy if measured else float("nan"),
            seconds=perf_counter() - began,
        )
