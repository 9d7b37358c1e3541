"""Rounds of trees, one after another, as the coordinator runs them; as `simulations.rounds.loop`, for trees.

Margins of all examples are kept from round to round, and only new trees are added to them: a round costs its own trees,
not those of all rounds before it. The last bits are those of a device that adds up all trees anew, in the same order.
"""

from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from shared.tasks.task import Inputs
from shared.tensors import Tensors, decode, encode
from shared.trees.ensemble import NOTHING, Ensemble, Margins, joined, read_ensemble
from shared.trees.growing import grow_onto
from simulations.problem import Data
from simulations.rounds.loop import RunState
from simulations.rounds.record import RoundRecord
from simulations.trees.setup import TreeSetup


class TreeLoop:
    """Runs the rounds of one setup.

    Args:
        setup: The experiment's.
        state: Where to continue; nothing: before the first round. Its model is the ensemble's bytes.
    """

    def __init__(self, setup: TreeSetup, state: RunState | None = None) -> None:
        self._setup = setup
        self._ensemble = NOTHING if state is None else _unpacked(state, setup)
        self.state = state or RunState(0, _packed(NOTHING), {})
        self._train = self._added(setup.problem.train, self._ensemble)
        self._test = self._added(setup.problem.test, self._ensemble)

    @property
    def tensors(self) -> Tensors:
        """The ensemble so far."""
        return self._ensemble.tensors

    def measure_start(self) -> RoundRecord:
        """No trees."""
        loss, accuracy = self._measured()
        return RoundRecord(0, test_loss=loss, test_accuracy=accuracy)

    def run_round(self) -> RoundRecord:
        """One more round; `state` is the next one when this returns."""
        began, setup, number = perf_counter(), self._setup, self.state.round + 1
        clients = setup.cohort(number)
        holdings = setup.population.holdings(clients)
        rows = np.split(holdings.rows, np.cumsum(holdings.sizes)[:-1])
        train_loss = float(np.mean([self._loss(setup.problem.train, self._train, each) for each in rows]))
        grown = [self._grown(each, number) for each in rows]
        bytes_down = _bytes(self._ensemble) * len(clients)
        self._append(setup.rule.appended(grown), number)
        experiment = setup.experiment
        is_measured = number % experiment.evaluation.every == 0 or number == experiment.rounds
        loss, accuracy = self._measured() if is_measured else (float("nan"), float("nan"))
        return RoundRecord(
            round=number,
            asked=len(clients),
            clients=len(clients),
            examples=len(holdings.rows),
            bytes_down=bytes_down,
            bytes_up=sum(_bytes(each) for each in grown),
            train_loss=train_loss,
            test_loss=loss,
            test_accuracy=accuracy,
            seconds=perf_counter() - began,
        )

    def _grown(self, rows: NDArray[np.int64], number: int) -> Ensemble:
        """One client's new trees."""
        train = self._setup.problem.train
        inputs, labels = train.inputs.numpy()[rows], train.labels.numpy()[rows]
        return grow_onto(self._setup.boosting, self._train[rows], inputs, labels, self._setup.growth(number))

    def _append(self, new: Ensemble, number: int) -> None:
        self._ensemble = joined([self._ensemble, new])
        self._train = self._added(self._setup.problem.train, new, self._train)
        self._test = self._added(self._setup.problem.test, new, self._test)
        self.state = RunState(number, _packed(self._ensemble), {})

    def _added(self, data: Data, trees: Ensemble, onto: Margins | None = None) -> Margins:
        return trees.margins(_inputs(data), self._setup.boosting, onto=onto)

    def _measured(self) -> tuple[float, float]:
        """Mean loss and accuracy on the test data."""
        test = self._setup.problem.test
        right = self._test.argmax(axis=1) == test.labels.numpy()
        return self._loss(test, self._test, slice(None)), float(right.mean())

    def _loss(self, data: Data, margins: Margins, rows: NDArray[np.int64] | slice) -> float:
        losses = self._setup.problem.losses(torch.from_numpy(margins[rows]), data.labels[rows])
        return float(losses.double().mean())


def _inputs(data: Data) -> Inputs:
    inputs: Inputs = data.inputs.numpy()
    return inputs


def _bytes(ensemble: Ensemble) -> int:
    return sum(value.nbytes for value in ensemble.tensors.values())


def _packed(ensemble: Ensemble) -> torch.Tensor:
    """As a run's state has models: one vector, here of bytes."""
    return torch.from_numpy(np.frombuffer(encode(ensemble.tensors), np.uint8).copy())


def _unpacked(state: RunState, setup: TreeSetup) -> Ensemble:
    return read_ensemble(decode(state.model.numpy().tobytes()), setup.boosting)
