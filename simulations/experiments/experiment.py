"""An experiment as one frozen value: all that decides what a run computes, and nothing else.

    Experiment(data="digits", population={"clients": 100}, cohort={"clients": 10}, strategy="fedadam", rounds=200)

A TOML file says the same; `docs/reference/experiment.md` has every key. The same experiment and seed give the same
results, to the last bit on one machine and to float tolerance in every engine.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from shared.compression.settings import Compression
from shared.privacy import AdaptiveClipping
from shared.strategies import FedAvgSettings, PersonalSettings, StrategySettings
from simulations.attacks.settings import AttackSettings
from simulations.behaviour.settings import BehaviourSettings
from simulations.datasets.settings import Dataset, TaskData
from simulations.engines.port import Adam, Sgd
from simulations.experiments.section import Section, short
from simulations.models.families import Model
from simulations.populations.populate import PopulationSettings

_HELD_OUT = 0.2


class SgdSettings(Section):
    """Stochastic gradient descent."""

    name: Literal["sgd"] = "sgd"
    learning_rate: PositiveFloat = 0.1
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: NonNegativeFloat = 0.0

    def value(self) -> Sgd:
        return Sgd(self.learning_rate, self.momentum, self.weight_decay)


class AdamSettings(Section):
    """Adam; its moments are fresh in every round."""

    name: Literal["adam"] = "adam"
    learning_rate: PositiveFloat = 0.001
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.0

    def value(self) -> Adam:
        return Adam(self.learning_rate, self.beta1, self.beta2, self.eps, self.weight_decay)


Optimizer = Annotated[SgdSettings | AdamSettings, Field(discriminator="name"), short("name", name="sgd")]


class CohortSettings(Section):
    """Who takes part in a round."""

    clients: PositiveInt = 10
    """Asked in each round, drawn anew; with `fedbuff`, how many train at any time."""
    draw: Literal["uniform", "utility"] = "uniform"
    """All alike; or, as the coordinator does (Oort), who has most to teach in the least time, and some unknown."""
    quorum: PositiveInt | None = None
    """Fewest updates that make a model; with fewer, the round is tried again with others (virtual time only)."""
    enough: PositiveInt | None = None
    """Updates after which nobody is waited for (virtual time only)."""
    deadline_s: PositiveFloat | None = None
    """After which nobody is waited for; an hour unless said (virtual time, and each client of `fedbuff`)."""


class LocalSettings(Section):
    """How each client trains in a round: `epochs` passes over its data, or `steps` batches."""

    optimizer: Optimizer = SgdSettings()
    epochs: PositiveInt | None = None
    """Passes over the client's own data; 1 where neither `epochs` nor `steps` is said."""
    steps: PositiveInt | None = None
    """Batches, going round the data as often as needed."""
    batch_size: PositiveInt = 10
    """Examples in a batch; a pass's last may be smaller. With example-level privacy, the mean of Poisson batches."""
    learning_rate_decay: float = Field(default=1.0, gt=0, le=1)
    """What the learning rate is multiplied by after each round."""

    @model_validator(mode="after")
    def _one_length(self) -> "LocalSettings":
        if self.epochs is not None and self.steps is not None:
            raise ValueError("expected `epochs` or `steps`, got both: remove one")
        return self


class ExamplePrivacySettings(Section):
    """Example-level DP-SGD inside each client (Abadi et al. 2016): every example of a client is protected."""

    max_grad_norm: PositiveFloat = 1.0
    """L2 bound of one example's gradient."""
    noise_multiplier: PositiveFloat = 1.0
    """Standard deviation of the noise on a sum of gradients, in units of the bound."""
    delta: float = Field(default=1e-5, gt=0, lt=1)
    """At which epsilon is told."""


class UserPrivacySettings(Section):
    """User-level central DP (McMahan et al. 2018): all that one client has is protected from whoever sees the models.

    Each client is in a round by a coin of its own, so a cohort's size varies around `cohort.clients`.
    """

    clip_norm: PositiveFloat = 1.0
    """L2 bound of one client's update; with `adaptive`, that of the first round."""
    noise_multiplier: PositiveFloat | None = None
    """Standard deviation of the noise on a sum of updates, in units of the bound."""
    epsilon: PositiveFloat | None = None
    """Instead of the noise: what all rounds may cost; the least noise is found that keeps it."""
    delta: float = Field(default=1e-5, gt=0, lt=1)
    adaptive: AdaptiveClipping | None = None
    """Lets the bound follow a quantile of the updates' norms (Andrew et al. 2021)."""

    @model_validator(mode="after")
    def _one_of_two(self) -> "UserPrivacySettings":
        if (self.noise_multiplier is None) == (self.epsilon is None):
            raise ValueError("expected either `noise_multiplier` or `epsilon`")
        return self


class PrivacySettings(Section):
    """What is noised; nothing where nothing is said."""

    example: ExamplePrivacySettings | None = None
    user: UserPrivacySettings | None = None


class EvaluationSettings(Section):
    """When models are measured, and on what: the shared one on the test data, clients' own on what they hold out."""

    every: PositiveInt = 1
    """Rounds between two measurements; after the last round there always is one."""
    held_out: float | None = Field(default=None, ge=0, le=0.9)
    """Share of its examples that each client is measured on and never trains on; where nothing is said, 0.2 with
    strategies that keep a model on each client, and else 0."""
    personal_clients: PositiveInt = 100
    """Clients that are measured on what they hold out, at most; the same in every round."""


class CheckpointSettings(Section):
    """What a resumed run can start from."""

    every: PositiveInt = 100
    """Rounds from one checkpoint to the next."""
    seconds: PositiveFloat = 30.0
    """Or so many seconds, where rounds are slow."""


Engine = Literal["reference", "vector", "cuda", "flower"]


class Experiment(Section):
    """What is learned, by whom, how, and how it is measured."""

    name: str = Field(default="", max_length=100)
    """For people: the title of the report."""
    data: Annotated[Dataset, short("name", kind="task")] = TaskData(name="digits")
    """A task by its name (`fleetlearn task list`), or data of another kind."""
    model: Model | None = None
    """The task's own, or one that suits the inputs' shape, where nothing is said."""
    population: PopulationSettings = PopulationSettings(clients=10)
    """Who the clients are, and how the data are dealt to them."""
    cohort: CohortSettings = CohortSettings()
    """Who takes part in a round, and how long it waits."""
    rounds: PositiveInt = 100
    strategy: Annotated[StrategySettings, short("name", name="fedavg")] = FedAvgSettings()
    """How updates become a model, and what clients do for it."""
    weighting: Literal["examples", "equal"] = "examples"
    """What an update counts: the client's number of examples, or one."""
    local: LocalSettings = LocalSettings()
    """How each client trains."""
    privacy: PrivacySettings = PrivacySettings()
    """What is noised, and against whom."""
    compression: Compression = Compression()
    """Of updates, in words: `int8`, `top-k=0.01+int8`, `low-rank=4`."""
    attacks: tuple[AttackSettings, ...] = ()
    """What dishonest clients do."""
    behaviour: BehaviourSettings | None = None
    """How clients come, go, compute and send, in virtual time; nothing: all are there, and rounds take no time."""
    engine: Engine = "vector"
    """What computes; all give the same result, to float tolerance. `vector` is the fastest that this machine has."""
    seeds: tuple[NonNegativeInt, ...] = Field(default=(0,), min_length=1)
    """One run for each; a seed decides the model's first weights, the partition, cohorts, batches and noise."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """When models are measured, and on what."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    """How much a killed run has to do again."""
    tracking: Literal["off", "mlflow"] = "off"
    """Where a finished run is sent beside its folder; `mlflow` goes to the environment's `MLFLOW_TRACKING_URI`."""

    def but(self, **changed: Any) -> "Experiment":  # Any: what a file may say
        """The same with some keys replaced; raises ValidationError as the constructor does."""
        return Experiment.model_validate({**self.model_dump(exclude_unset=True), **changed})

    def resolved(self) -> "Experiment":
        """With what follows from other settings filled in, so that nothing in a results folder is left to guess."""
        local = self.local
        if local.epochs is None and local.steps is None:
            local = local.model_copy(update={"epochs": 1})
        follows = {
            "client_learning_rate": local.optimizer.learning_rate,
            "momentum": getattr(local.optimizer, "momentum", 0.0),
        }
        strategy = self.strategy
        unsaid = {
            name: value
            for name, value in follows.items()
            if name in type(strategy).model_fields and name not in strategy.model_fields_set
        }
        evaluation = self.evaluation
        if evaluation.held_out is None:
            held_out = _HELD_OUT if isinstance(strategy, PersonalSettings) else 0.0
            evaluation = evaluation.model_copy(update={"held_out": held_out})
        return self.model_copy(
            update={"local": local, "strategy": strategy.model_copy(update=unsaid), "evaluation": evaluation}
        )
