"""Lies about data, told once before a run: the rows that liars hold are changed in the training data."""

from dataclasses import replace

import numpy as np
import torch

from simulations.attacks.data import Backdoor, LabelFlip
from simulations.attacks.settings import AttackSettings
from simulations.experiments.errors import ExperimentError
from simulations.populations.port import Population
from simulations.problem import Data, Problem


def poisoned(problem: Problem, population: Population, attacks: tuple[AttackSettings, ...], *, seed: int) -> Problem:
    """The problem as it is learned. Raises ExperimentError where a class is named that there is not."""
    for number, attacked in enumerate(attacks):
        if isinstance(attack := attacked.attack, LabelFlip | Backdoor):
            _check(attack, ("attacks", str(number), "attack"), problem.classes)
            everybody = np.arange(population.clients)
            liars = everybody[attacked.liars_among(everybody, seed=seed)]
            rows = torch.from_numpy(population.holdings(liars).rows)
            problem = replace(problem, train=attack.poisoned(problem.train, rows, classes=problem.classes))
    return problem


def triggered_test(problem: Problem, attacks: tuple[AttackSettings, ...]) -> Data | None:
    """What a backdoor's success is measured on; nothing where there is none."""
    for attacked in attacks:
        if isinstance(attacked.attack, Backdoor):
            return attacked.attack.triggered(problem.test)
    return None


def _check(attack: LabelFlip | Backdoor, key: tuple[str, ...], classes: int) -> None:
    for name in ("source", "target"):
        value = getattr(attack, name, None)
        if value is not None and value >= classes:
            raise ExperimentError.at((*key, name), f"Expected a class from 0 to {classes - 1}, got {value}")
