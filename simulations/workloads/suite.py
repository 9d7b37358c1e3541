"""W1 to W7: the workloads on which engines and peers are compared."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch

from simulations.engines.port import Assignment, ExamplePrivacy, LocalTraining, Sgd
from simulations.problem import Problem, cross_entropy
from simulations.workloads.data import shapes_under_noise
from simulations.workloads.models import Model, mcmahan_cnn, pfl_cnn, sensor_net, two_layer_net


@dataclass(frozen=True)
class UserPrivacy:
    """User-level central DP: each update clipped, the sum noised. The collector's business, not the engine's."""

    max_norm: float
    noise_multiplier: float


@dataclass(frozen=True)
class Workload:
    """One measured workload: clients of equal size, each taking one epoch of its data in every round it is in."""

    name: str
    summary: str
    model: Model
    shape: tuple[int, ...]
    """Of one input."""
    classes: int
    clients: int
    examples: int
    """Of each client."""
    cohort: int
    batch: int
    local: LocalTraining
    signal: float
    """See `shapes_under_noise`: chosen so that a few dozen rounds learn it, and one does not."""
    user_privacy: UserPrivacy | None = None

    @property
    def steps(self) -> int:
        """Optimizer steps of a client in a round."""
        return -(-self.examples // self.batch)

    def problem(self, *, seed: int = 0) -> Problem:
        """Model, loss and data; client k owns rows `k * examples` up to `(k + 1) * examples` of the training data."""
        examples = partial(shapes_under_noise, shape=self.shape, classes=self.classes, signal=self.signal)
        return Problem(
            name=self.name,
            model=self.model,
            losses=cross_entropy,
            train=examples(self.clients * self.examples, seed=seed),
            test=examples(2000, seed=seed + 1),
            classes=self.classes,
        )

    def assignment(self, start: torch.Tensor, *, seed: int) -> Assignment:
        """A round: a cohort drawn without replacement, each client's rows in an order of their own.

        Args:
            start: The model, `(parameters,)`.
            seed: Of the round.
        """
        generator = torch.Generator().manual_seed(seed)
        clients = torch.randperm(self.clients, generator=generator)[: self.cohort]
        order = torch.rand(self.cohort, self.examples, generator=generator).argsort(dim=1)
        rows = torch.full((self.cohort, self.steps * self.batch), -1)
        rows[:, : self.examples] = clients[:, None] * self.examples + order
        return Assignment(
            clients=clients,
            batches=rows.reshape(self.cohort, self.steps, self.batch),
            steps=torch.full((self.cohort,), self.steps),
            start=start,
            seeds=seed * self.clients + clients,
        )


_SGD = LocalTraining(Sgd(learning_rate=0.1))
_W1 = Workload(
    name="w1",
    summary="McMahan's CNN, 20 of 100 clients with 60 images each",
    model=mcmahan_cnn,
    shape=(1, 28, 28),
    classes=10,
    clients=100,
    examples=60,
    cohort=20,
    batch=10,
    local=_SGD,
    signal=0.15,
)
_W3 = replace(
    _W1,
    name="w3",
    summary="2NN, all of 1000 clients with 20 images each",
    model=two_layer_net,
    clients=1000,
    examples=20,
    cohort=1000,
)
_W5 = Workload(
    name="w5",
    summary="A small 1-D convolution on sensor windows, 50 of 1000 clients with 50 windows each",
    model=sensor_net,
    shape=(6, 64),
    classes=6,
    clients=1000,
    examples=50,
    cohort=50,
    batch=10,
    local=_SGD,
    signal=0.25,
)

WORKLOADS: Mapping[str, Workload] = {
    workload.name: workload
    for workload in (
        _W1,
        replace(_W1, name="w2", summary="2NN, 20 of 100 clients with 60 images each", model=two_layer_net),
        _W3,
        Workload(
            name="w4",
            summary="pfl-research's CIFAR-10 benchmark and its CNN, 50 of 1000 clients with 50 images each",
            model=pfl_cnn,
            shape=(3, 32, 32),
            classes=10,
            clients=1000,
            examples=50,
            cohort=50,
            batch=10,
            local=_SGD,
            signal=0.15,
        ),
        _W5,
        replace(
            _W5,
            name="w6",
            summary=f"{_W5.summary}, with example-level DP",
            local=replace(_SGD, privacy=ExamplePrivacy(max_grad_norm=1.0, noise_multiplier=1.0, expected_batch=10)),
        ),
        replace(
            _W3,
            name="w7",
            summary=f"{_W3.summary}, with user-level DP",
            user_privacy=UserPrivacy(max_norm=1.0, noise_multiplier=1.0),
        ),
    )
}
"""By name, `w1` to `w7`."""
