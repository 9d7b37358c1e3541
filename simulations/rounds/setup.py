"""From an experiment and a seed to all that its rounds need, checked together before the first of them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cloud.aggregation.rule import Vector
from edge_agent.training.algorithms.algorithm import ClientAlgorithm
from edge_agent.training.algorithms.choice import algorithm_of
from shared.layout import Layout
from simulations.datasets.load import load_problem
from simulations.engines.port import Engine, LocalTraining
from simulations.experiments.errors import ExperimentError
from simulations.experiments.experiment import Experiment, LocalSettings
from simulations.populations.batches import Poisson, Shuffled
from simulations.populations.cohorts import uniform_cohort
from simulations.populations.populate import populate
from simulations.populations.port import Population
from simulations.problem import Problem
from simulations.rounds.aggregation import Aggregation, aggregation_of
from simulations.rounds.engines import make_engine

Clients = NDArray[np.int64]


@dataclass(frozen=True)
class Setup:
    """One seed of an experiment, ready for its first round."""

    experiment: Experiment
    seed: int
    problem: Problem
    population: Population
    layout: Layout
    """Of the trained parameters."""
    start: Vector
    """The model before the first round."""
    aggregation: Aggregation
    algorithm: ClientAlgorithm
    cohort: Callable[[int], Clients]
    """Who takes part in a round."""
    work: Shuffled | Poisson
    engines: tuple[Engine, ...]
    """One for each training of a client's round."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results should know."""
        return (*self.population.notes, *(note for engine in self.engines for note in engine.notes))

    def close(self) -> None:
        for engine in self.engines:
            engine.close()


def set_up(experiment: Experiment, seed: int) -> Setup:
    """Loads the data, deals them, and starts the engines; the caller closes the setup.

    Raises:
        ExperimentError: What the experiment asks for does not go together.
        FleetlearnError: Data, partition or strategy are at fault; the error says which.
    """
    problem = load_problem(experiment.data, seed=seed, model=experiment.model)
    populated = populate(problem, experiment.population, seed=seed)
    problem, population = populated.problem, populated.population
    size = experiment.cohort.clients
    if size > population.clients:
        raise ExperimentError.at(
            ("cohort", "clients"),
            f"Expected at most {population.clients}, the number of clients, got {size}",
            hint=f"Ask for at most {population.clients}, or simulate more clients with population.clients.",
        )
    model = problem.model(seed)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    layout = Layout.of(trained)
    algorithm = algorithm_of(experiment.strategy, model, layout)
    return Setup(
        experiment=experiment,
        seed=seed,
        problem=problem,
        population=population,
        layout=layout,
        start=torch.cat([value.detach().reshape(-1) for value in trained.values()]).float(),
        aggregation=aggregation_of(experiment.strategy, population=population.clients, cohort=size),
        algorithm=algorithm,
        cohort=lambda number: uniform_cohort(population.clients, size, seed=seed, round=number),
        work=_work(experiment.local),
        engines=tuple(
            make_engine(experiment.engine, problem, local) for local in _trainings(experiment.local, algorithm)
        ),
    )


def _work(local: LocalSettings) -> Shuffled:
    epochs = 1 if local.epochs is None and local.steps is None else local.epochs
    return Shuffled(batch=local.batch_size, epochs=epochs, steps=local.steps)


def _trainings(local: LocalSettings, algorithm: ClientAlgorithm) -> list[LocalTraining]:
    return [
        LocalTraining(local.optimizer.value(), proximal=proximal, wants_start_loss=algorithm.wants_start_loss)
        for proximal in algorithm.proximals
    ]
