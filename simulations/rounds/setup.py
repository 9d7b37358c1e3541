"""From an experiment and a seed to all that its rounds need, checked together before the first of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from cloud.aggregation.rule import Vector
from edge_agent.training.algorithms.algorithm import ClientAlgorithm
from edge_agent.training.algorithms.choice import algorithm_of
from edge_agent.training.algorithms.personal import LocalParameters
from shared.layout import Layout
from shared.strategies import FedBuffSettings
from simulations.attacks.data import Backdoor, LabelFlip
from simulations.behaviour.behave import behave
from simulations.behaviour.settings import BehaviourSettings
from simulations.datasets.load import load_problem
from simulations.engines.port import Engine, ExamplePrivacy, LocalTraining
from simulations.engines.processes import ALONE, Processes
from simulations.experiments.checks import check
from simulations.experiments.errors import ExperimentError
from simulations.experiments.experiment import Experiment
from simulations.populations.batches import Poisson, Shuffled
from simulations.populations.cohorts import poisson_cohort, uniform_cohort
from simulations.populations.held_out import HeldOutPopulation
from simulations.populations.populate import populate
from simulations.populations.port import Clients, Population
from simulations.problem import Data, Problem
from simulations.rounds.aggregation import Aggregation, aggregation_of
from simulations.rounds.by_utility import ByUtility
from simulations.rounds.engines import make_engine
from simulations.rounds.participation import Async, Drawn, InSync, Participants
from simulations.rounds.personal import PersonalSample
from simulations.rounds.poisoning import poisoned, triggered_test
from simulations.rounds.privacy import ExampleAccount, UserAccount, user_spec
from simulations.rounds.sending import Channel, Lie
from simulations.virtual_time.asynchronous import AsynchronousRounds
from simulations.virtual_time.synchronous import Patience, SynchronousRounds

_DEADLINE_S = 3600.0
_SIZES_LOOKED_AT_MAX = 100_000
_CPU = torch.device("cpu")


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
    channel: Channel
    participants: Participants
    work: Shuffled | Poisson
    engines: tuple[Engine, ...]
    """One for each training of a client's round."""
    device: torch.device = _CPU
    """Where models are: the engine's."""
    bytes_down: int = 0
    """To one client: the model, and what is sent beside it."""
    bytes_up: int = 0
    """From one client."""
    lies: Callable[[Clients], tuple[Lie, ...]] = lambda clients: ()
    """Who of a cohort changes its update, and how."""
    triggered: Data | None = None
    """What a backdoor's success is measured on."""
    personal: PersonalSample | None = None
    """Clients whose own models are measured."""
    examples: ExampleAccount | None = None
    users: UserAccount | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results should know."""
        planned = []
        if self.examples is not None:
            planned.append(self.examples.plan(self.experiment, clients=self.population.clients))
        if self.users is not None:
            planned.append(self.users.plan())
        return (
            *planned,
            *self.population.notes,
            *self.participants.notes,
            *(note for engine in self.engines for note in engine.notes),
        )

    def close(self) -> None:
        for engine in self.engines:
            engine.close()


def set_up(experiment: Experiment, seed: int, processes: Processes = ALONE) -> Setup:
    """Loads the data, deals them, and starts the engines, which these processes share; the caller closes the setup.

    Raises:
        ExperimentError: What the experiment asks for does not go together.
        FleetlearnError: Data, partition, strategy or engine are at fault; the error says which.
    """
    experiment = experiment.resolved()
    check(experiment)
    problem = load_problem(experiment.data, seed=seed, model=experiment.model)
    populated = populate(problem, experiment.population, seed=seed)
    population, personal = _holding_out(experiment, populated.population, seed)
    problem = poisoned(populated.problem, population, experiment.attacks, seed=seed)
    _check_cohort(experiment, population)
    model = problem.model(seed)
    check_layers(experiment, model)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    layout = Layout.of(trained)
    start = torch.cat([value.detach().reshape(-1) for value in trained.values()]).float()
    algorithm = algorithm_of(experiment.strategy, model, layout)
    spec = user_spec(experiment, clients=population.clients)
    aggregation = aggregation_of(
        experiment.strategy,
        population=population.clients,
        cohort=experiment.cohort.enough or experiment.cohort.clients,
        spec=spec,
        seed=seed,
    )
    channel = Channel.of(experiment.compression, layout)
    beside = [value.numel() for value in aggregation.sent(aggregation.init(start)).values()]
    # What is sent beside the model comes back in kind, where it is a vector of the model's size.
    bytes_down, bytes_up = 4 * (layout.size + sum(beside)), channel.bytes_up(beside.count(layout.size))
    work = _work(experiment, population)
    engines = tuple(
        processes.sharing(make_engine(experiment.engine, problem, local, rounds=experiment.rounds))
        for local in _trainings(experiment, algorithm)
    )
    device = getattr(engines[0], "device", _CPU)
    return Setup(
        experiment=experiment,
        seed=seed,
        problem=problem,
        triggered=triggered_test(problem, experiment.attacks),
        population=population,
        personal=personal,
        layout=layout,
        device=device,
        start=start.to(device),
        aggregation=aggregation,
        algorithm=_on(device, algorithm),
        channel=channel,
        participants=_participants(experiment, population, work, bytes_down, bytes_up, seed),
        work=work,
        examples=_account(experiment, work),
        users=None if spec is None else UserAccount(spec),
        lies=lambda clients: _lies(experiment, clients, seed),
        bytes_down=bytes_down,
        bytes_up=bytes_up,
        engines=engines,
    )


def _on(device: torch.device, algorithm: ClientAlgorithm) -> ClientAlgorithm:
    """Where it says which parameters stay local, it says so on the engine's device."""
    if isinstance(algorithm, LocalParameters):
        return replace(algorithm, positions=algorithm.positions.to(device))
    return algorithm


def _holding_out(experiment: Experiment, population: Population, seed: int) -> tuple[Population, PersonalSample | None]:
    evaluation = experiment.evaluation
    if not evaluation.held_out:
        return population, None
    holding = HeldOutPopulation(population, evaluation.held_out, seed=seed)
    return holding, PersonalSample.draw(holding, evaluation.personal_clients, seed=seed)


def _check_cohort(experiment: Experiment, population: Population) -> None:
    """Where the file does not say how many clients there are."""
    if experiment.cohort.clients > population.clients:
        raise ExperimentError.at(
            ("cohort", "clients"),
            f"Expected at most {population.clients}, the number of clients, got {experiment.cohort.clients}",
        )


def check_layers(experiment: Experiment, model: torch.nn.Module) -> None:
    if experiment.privacy.example is None:
        return
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            raise ExperimentError.at(
                ("model",),
                f"Expected layers whose examples have gradients of their own under privacy.example, got {name!r}, "
                f"a {type(module).__name__}: a batch's statistics mix its examples",
                hint="Use GroupNorm.",
            )


def _work(experiment: Experiment, population: Population) -> Shuffled | Poisson:
    local = experiment.local
    if experiment.privacy.example is None:
        return Shuffled(batch=local.batch_size, epochs=local.epochs, steps=local.steps)
    some = np.arange(min(population.clients, _SIZES_LOOKED_AT_MAX))
    rate = min(1.0, local.batch_size / float(population.sizes(some).mean()))
    return Poisson(rate, local.steps or max(1, round((local.epochs or 1) / rate)))


def _trainings(experiment: Experiment, algorithm: ClientAlgorithm) -> list[LocalTraining]:
    local, example = experiment.local, experiment.privacy.example
    private = None
    if example is not None:
        private = ExamplePrivacy(example.max_grad_norm, example.noise_multiplier, expected_batch=local.batch_size)
    return [
        LocalTraining(
            local.optimizer.value(),
            private,
            proximal=proximal,
            alternation=algorithm.alternation,
            wants_start_loss=algorithm.wants_start_loss,
        )
        for proximal in algorithm.proximals
    ]


def _account(experiment: Experiment, work: Shuffled | Poisson) -> ExampleAccount | None:
    example = experiment.privacy.example
    return ExampleAccount(example, work) if example is not None and isinstance(work, Poisson) else None


def _participants(
    experiment: Experiment,
    population: Population,
    work: Shuffled | Poisson,
    bytes_down: int,
    bytes_up: int,
    seed: int,
) -> Participants:
    cohort, strategy = experiment.cohort, experiment.strategy
    if experiment.privacy.user is not None:
        rate = cohort.clients / population.clients
        return Drawn(lambda number: poisson_cohort(population.clients, rate, seed=seed, round=number))
    behaviour = behave(experiment.behaviour or BehaviourSettings(), seed=seed)
    if isinstance(strategy, FedBuffSettings):
        rounds = AsynchronousRounds(
            population,
            behaviour,
            strategy.buffer,
            cohort.clients,
            work,
            bytes_down,
            bytes_up,
            seed,
            timeout_s=cohort.deadline_s or _DEADLINE_S,
        )
        return Async(rounds, strategy.staleness_max)
    by_utility = ByUtility(population.clients, cohort.clients, seed)
    if experiment.behaviour is None and cohort.draw == "utility":
        return by_utility
    if experiment.behaviour is None:
        return Drawn(lambda number: uniform_cohort(population.clients, cohort.clients, seed=seed, round=number))
    patience = Patience(
        asked=cohort.clients,
        quorum=cohort.quorum or 1,
        enough=cohort.enough,
        deadline_s=cohort.deadline_s or _DEADLINE_S,
    )
    in_sync = SynchronousRounds(population, behaviour, patience, work, bytes_down, bytes_up, seed)
    return replace(by_utility, rounds=in_sync) if cohort.draw == "utility" else InSync(in_sync)


def _lies(experiment: Experiment, clients: Clients, seed: int) -> tuple[Lie, ...]:
    return tuple(
        Lie(attacked.attack, torch.from_numpy(attacked.liars_among(clients, seed=seed)))
        for attacked in experiment.attacks
        if not isinstance(attacked.attack, LabelFlip | Backdoor)
    )
