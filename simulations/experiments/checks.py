"""What does not go together in an experiment, found without its data."""

from collections.abc import Iterator, Mapping

from shared.strategies import FedBuffSettings, FedNovaSettings, FedXgbBaggingSettings
from shared.tasks.registry import load_task
from shared.trees.boosting import boosting_of
from simulations.attacks.data import Backdoor, LabelFlip
from simulations.attacks.settings import AttackSettings
from simulations.datasets.settings import TaskData
from simulations.experiments.errors import ExperimentError, Finding
from simulations.experiments.experiment import AdamSettings, Experiment
from simulations.partitions.settings import Drawn


def check(experiment: Experiment) -> None:
    """Raises ExperimentError with all that is found."""
    findings = [*_cohort(experiment), *_strategy(experiment), *_attacks(experiment), *_privacy(experiment)]
    findings += _trees(experiment)
    if len(set(experiment.seeds)) < len(experiment.seeds):
        findings.append(Finding(("seeds",), f"Expected different seeds, got {list(experiment.seeds)}"))
    if findings:
        raise ExperimentError(findings)


def _cohort(experiment: Experiment) -> Iterator[Finding]:
    cohort, clients = experiment.cohort, experiment.population.clients
    if clients is not None and cohort.clients > clients:
        yield Finding(
            ("cohort", "clients"),
            f"Expected at most {clients}, the number of clients, got {cohort.clients}",
            f"Ask for at most {clients}, or simulate more with population.clients",
        )
    for name in ("quorum", "enough"):
        value = getattr(cohort, name)
        if value is not None and value > cohort.clients:
            yield Finding(("cohort", name), f"Expected at most the {cohort.clients} clients asked, got {value}")
    if cohort.quorum and cohort.enough and cohort.quorum > cohort.enough:
        yield Finding(("cohort", "quorum"), f"Expected at most cohort.enough = {cohort.enough}, got {cohort.quorum}")
    for name in ("quorum", "enough", "deadline_s"):
        if getattr(cohort, name) is not None and (unused := _without_use(experiment, name)):
            yield Finding(("cohort", name), f"Expected no {name} {unused}")
    is_fixed = isinstance(experiment.strategy, FedBuffSettings) or experiment.privacy.user is not None
    if cohort.draw == "utility" and is_fixed:
        yield Finding(
            ("cohort", "draw"),
            "Expected the draw 'uniform' with fedbuff and with privacy.user, whose draws are their own, got 'utility'",
        )


def _without_use(experiment: Experiment, name: str) -> str:
    if isinstance(experiment.strategy, FedBuffSettings):
        return "" if name == "deadline_s" else "with fedbuff, whose rounds wait for nobody"
    return "" if experiment.behaviour else "without [behaviour]: everybody answers at once"


def _strategy(experiment: Experiment) -> Iterator[Finding]:
    strategy, optimizer = experiment.strategy, experiment.local.optimizer
    if isinstance(strategy, FedNovaSettings) and isinstance(optimizer, AdamSettings):
        yield Finding(
            ("local", "optimizer"),
            "Expected sgd with fednova, which undoes the effect of sgd's steps, got adam",
            'Use optimizer = { name = "sgd", ... }, or another strategy',
        )


def _attacks(experiment: Experiment) -> Iterator[Finding]:
    for number, attacked in enumerate(experiment.attacks):
        if poisons(attacked) and isinstance(experiment.population.partition, Drawn):
            yield Finding(
                ("attacks", str(number)),
                f"Expected a partition that gives each example to one client with {attacked.attack.name}, got 'drawn'",
                "Liars would poison what honest clients hold too",
            )


def _privacy(experiment: Experiment) -> Iterator[Finding]:
    if experiment.privacy.user is not None and experiment.behaviour is not None:
        yield Finding(
            ("privacy", "user"),
            "Expected no [behaviour] with user-level privacy: who is there and in time is no independent coin, "
            "so that sampling amplifies nothing",
            "Remove one of them",
        )


def _trees(experiment: Experiment) -> Iterator[Finding]:
    """Trees go with one strategy, and with little of what is made for vectors."""
    data = experiment.data
    has_trees = isinstance(data, TaskData) and boosting_of(load_task(data.name)) is not None
    adds_trees = isinstance(experiment.strategy, FedXgbBaggingSettings)
    if has_trees is not adds_trees:
        wanted = "fedxgb_bagging for a task whose model is trees" if has_trees else "a task whose model is trees"
        got = experiment.strategy.name if has_trees else "other data"
        yield Finding(("strategy",), f"Expected {wanted}, got {got}", "See docs/how_to/boosted_trees.md")
    for key, reason in _WITHOUT_TREES.items():
        if adds_trees and _is_said(experiment, key):
            yield Finding(key, f"Expected no {'.'.join(key)} with fedxgb_bagging: {reason}")
    if adds_trees:
        yield from _not_for_trees(experiment)


def _not_for_trees(experiment: Experiment) -> Iterator[Finding]:
    if isinstance(experiment.local.optimizer, AdamSettings):
        yield Finding(("local", "optimizer"), "Expected sgd, whose learning_rate is boosting's, got adam")
    if not experiment.compression.is_lossless:
        why = "a tree with other splits is another tree"
        yield Finding(("compression",), f"Expected no compression with fedxgb_bagging: {why}")
    if experiment.cohort.draw == "utility":
        yield Finding(("cohort", "draw"), "Expected the draw 'uniform' with fedxgb_bagging, got 'utility'")
    if experiment.engine in ("cuda", "flower"):
        yield Finding(("engine",), f"Expected no engine with fedxgb_bagging, got {experiment.engine}: XGBoost is it")


_WITHOUT_TREES: Mapping[tuple[str, ...], str] = {
    ("model",): "it is the task's own",
    ("local", "steps"): "a step of boosting is a pass over the client's data, so say local.epochs",
    ("privacy", "example"): "example-level privacy noises gradients, and a tree's splits are values of the data",
    ("privacy", "user"): "trees are no vector that could be clipped and noised",
    ("attacks",): "they change vectors, or the batches of vectors' training",
    ("behaviour",): "virtual time counts on models of one size",
    ("evaluation", "held_out"): "no client has a model of its own",
}


def _is_said(experiment: Experiment, key: tuple[str, ...]) -> bool:
    value: object = experiment
    for part in key:
        value = getattr(value, part)
    return bool(value)


def poisons(attacked: AttackSettings) -> bool:
    """Whether the lie is in the data."""
    return isinstance(attacked.attack, LabelFlip | Backdoor)
