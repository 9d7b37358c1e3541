"""From an experiment with trees and a seed to all that its rounds need; as `simulations.rounds.setup`, for trees.

Clients boost one after another, with what devices boost with, and the rule is the coordinator's: there is no engine.
"""

from dataclasses import dataclass

from cloud.aggregation.bagging import Bagging
from shared.strategies import FedXgbBaggingSettings
from shared.tasks.registry import load_task
from shared.trees.boosting import Boosting, boosting_of
from shared.trees.growing import Growth
from simulations.datasets.load import load_problem
from simulations.datasets.settings import TaskData
from simulations.experiments.checks import check
from simulations.experiments.errors import ExperimentError
from simulations.experiments.experiment import Experiment
from simulations.populations.cohorts import uniform_cohort
from simulations.populations.populate import populate
from simulations.populations.port import Clients, Population
from simulations.problem import Problem


@dataclass(frozen=True)
class TreeSetup:
    """One seed of an experiment, ready for its first round."""

    experiment: Experiment
    seed: int
    problem: Problem
    population: Population
    boosting: Boosting
    rule: Bagging

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results should know."""
        return (*self.population.notes, "XGBoost grows each client's trees, one client after another, on one thread.")

    def cohort(self, number: int) -> Clients:
        """Who takes part in this round."""
        size = self.experiment.cohort.clients
        return uniform_cohort(self.population.clients, size, seed=self.seed, round=number)

    def growth(self, number: int) -> Growth:
        """How far each client boosts in this round."""
        local = self.experiment.local
        rate = local.optimizer.learning_rate * local.learning_rate_decay ** (number - 1)
        return Growth(steps=local.epochs or 1, learning_rate=rate)

    def close(self) -> None:
        """Nothing runs beside the rounds."""


def set_up_trees(experiment: Experiment, seed: int) -> TreeSetup:
    """Loads the data and deals them. Raises ExperimentError, or another FleetlearnError where the data are at fault."""
    experiment = experiment.resolved()
    check(experiment)
    assert isinstance(experiment.data, TaskData)
    assert isinstance(experiment.strategy, FedXgbBaggingSettings)
    populated = populate(load_problem(experiment.data, seed=seed, model=None), experiment.population, seed=seed)
    if experiment.cohort.clients > (clients := populated.population.clients):
        raise ExperimentError.at(
            ("cohort", "clients"), f"Expected at most {clients}, the number of clients, got {experiment.cohort.clients}"
        )
    boosting = boosting_of(load_task(experiment.data.name))
    assert boosting is not None
    rule = Bagging(experiment.strategy.is_averaged)
    return TreeSetup(experiment, seed, populated.problem, populated.population, boosting, rule)
