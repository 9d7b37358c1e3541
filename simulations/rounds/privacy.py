"""What a run's privacy costs: planned before it, spent as it goes. Noise here is seeded: a simulation promises nothing.

Example-level: each client's own examples, against whoever sees its updates. A client pays for the rounds that it takes
part in; that it might not have been asked amplifies nothing, since the cloud, which asks, is who it protects itself
from. The figure told is that of whoever took part most often.

User-level: all that a client has, against whoever sees the models. Every round costs everybody the same, asked or not.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from shared.accountant import epsilon_of, least_noise
from shared.privacy import MechanismEvent, UserPrivacySpec
from simulations.experiments.experiment import ExamplePrivacySettings, Experiment
from simulations.populations.batches import Poisson
from simulations.populations.port import Clients
from simulations.rounds.participation import Course

_COUNTED, _TIMES = "participants", "participations"


@dataclass(frozen=True)
class ExampleAccount:
    """What examples pay."""

    settings: ExamplePrivacySettings
    work: Poisson

    def epsilon(self, rounds: int) -> float:
        """Of an example whose client took part in so many rounds."""
        return _epsilon(self.settings.noise_multiplier, self.work.rate, self.work.steps * rounds, self.settings.delta)

    def plan(self, experiment: Experiment, *, clients: int) -> str:
        """What is known before the run, in a sentence."""
        rounds = experiment.rounds
        expected = math.ceil(rounds * min(1.0, experiment.cohort.clients / clients))
        ends = "" if expected == rounds else f"; {self.epsilon(rounds):.3g} for one in all {rounds}"
        return (
            f"Planned epsilon {self.epsilon(expected):.3g} at delta {self.settings.delta:g} for each example of a "
            f"client in {expected} round{'s' if expected > 1 else ''}, as many as are expected{ends}."
        )


@dataclass(frozen=True)
class UserAccount:
    """What clients pay."""

    spec: UserPrivacySpec

    def epsilon(self, rounds: int) -> float:
        """Of a client, after so many rounds."""
        spec = self.spec
        return _epsilon(spec.noise_multiplier, spec.sampling_rate, rounds, spec.delta)

    def plan(self) -> str:
        """What is known before the run, in a sentence."""
        spec = self.spec
        return (
            f"Planned epsilon {self.epsilon(spec.rounds):.3g} at delta {spec.delta:g} for each client, from all "
            f"{spec.rounds} rounds; noise multiplier {spec.noise_multiplier:.3g}."
        )


def user_spec(experiment: Experiment, *, clients: int) -> UserPrivacySpec | None:
    """The mechanism; nothing where none was asked for. Raises PrivacyPlanError where no noise keeps the budget."""
    settings = experiment.privacy.user
    if settings is None:
        return None
    rate, rounds = experiment.cohort.clients / clients, experiment.rounds
    noise = settings.noise_multiplier
    if noise is None:
        assert settings.epsilon is not None
        noise = least_noise(epsilon=settings.epsilon, delta=settings.delta, sampling_rate=rate, steps=rounds)
    return UserPrivacySpec(
        epsilon=settings.epsilon or _epsilon(noise, rate, rounds, settings.delta),
        delta=settings.delta,
        noise_multiplier=noise,
        clip_norm=settings.clip_norm,
        adaptive=settings.adaptive,
        sampling_rate=rate,
        expected_clients=experiment.cohort.clients,
        rounds=rounds,
    )


@lru_cache(maxsize=4096)
def _epsilon(noise_multiplier: float, rate: float, steps: int, delta: float) -> float:
    if not steps:
        return 0.0
    event = MechanismEvent(
        dataset_id="client", unit="example", noise_multiplier=noise_multiplier, sampling_rate=rate, steps=steps
    )
    return epsilon_of([event], delta)


def counted(course: Course, clients: Clients) -> Course:
    """The course with these clients' participations counted; only those who ever took part are in it."""
    everyone = np.concatenate([course.get(_COUNTED, clients[:0]), clients])
    times = np.concatenate([course.get(_TIMES, clients[:0]), np.ones(len(clients), np.int64)])
    unique, place = np.unique(everyone, return_inverse=True)
    return {**course, _COUNTED: unique, _TIMES: np.bincount(place, times, len(unique)).astype(np.int64)}


def most_often(course: Course) -> int:
    """How often the most frequent client took part."""
    times = course.get(_TIMES)
    return int(times.max()) if times is not None and len(times) else 0


def without_counts(course: Course) -> Course:
    return {name: value for name, value in course.items() if name not in (_COUNTED, _TIMES)}
