"""Trials: asked of Optuna, run as experiments, told back. Processes share one storage and stop together.

Akiba et al. 2019 (arXiv:1907.10902); TPE: Bergstra et al. 2011; NSGA-II: Deb et al. 2002; successive halving: Li et al.
2020 (arXiv:1810.05934); Hyperband: Li et al. 2018 (arXiv:1603.06560).
"""

import math
import tomllib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import ExtraNotInstalledError, FleetlearnError
from simulations.experiments.errors import ExperimentError
from simulations.experiments.experiment import Experiment
from simulations.experiments.file import experiment_of
from simulations.experiments.progress import Nobody
from simulations.experiments.run import run
from simulations.results.result import Result, last_measured
from simulations.rounds.record import RoundRecord
from simulations.sweeps.settings import Sweep
from simulations.sweeps.suggest import suggested, with_values

if TYPE_CHECKING:
    import optuna

STUDY = "sweep"


def optuna_module() -> Any:  # untyped where it is not installed
    """Optuna, quiet. Raises ExtraNotInstalledError."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ExtraNotInstalledError("`fleetlearn simulate sweep`", extra="sweep") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def make_database(path: Path, sweep: Sweep) -> str:
    """The URL of the sweep's own SQLite file; made beside and moved, so that a kill leaves none or a whole one."""
    if not path.is_file():
        beside = path.with_name(f".{path.name}.new")
        beside.unlink(missing_ok=True)
        study = Search(sweep, f"sqlite:///{beside.resolve()}").study()
        study._storage.remove_session()
        beside.replace(path)
    return f"sqlite:///{path.resolve()}"


@dataclass(frozen=True)
class Search:
    """A sweep, and where its trials are remembered."""

    sweep: Sweep
    storage: str
    """URL of a database."""

    def study(self, *, worker: int = 0) -> "optuna.Study":
        """The study, made where there is none; each worker draws from a seed of its own."""
        library, sweep = optuna_module(), self.sweep
        study: optuna.Study = library.create_study(
            study_name=STUDY,
            storage=self.storage,
            load_if_exists=True,
            directions=["minimize" if objective.startswith("-") else "maximize" for objective in sweep.objectives],
            sampler=_sampler(library, sweep, seed=sweep.seed + worker),
            pruner=_pruner(library, sweep, rounds=self.base_experiment().rounds),
        )
        return study

    def document(self) -> dict[str, Any]:
        """The experiment's file."""
        return tomllib.loads(self.sweep.experiment.read_text(encoding="utf-8"))

    def base_experiment(self) -> Experiment:
        return experiment_of(self.document())

    def abandon_unfinished(self) -> None:
        """Trials of workers that are gone count as failed, and are tried again with other values."""
        optuna, study = optuna_module(), self.study()
        for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def work(self, *, worker: int) -> None:
        """Runs trials until the sweep has all of them, whoever ran the others."""
        optuna = optuna_module()
        states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
        enough = optuna.study.MaxTrialsCallback(self.sweep.trials, states=states)
        study = self.study(worker=worker)
        if len(study.get_trials(deepcopy=False, states=states)) < self.sweep.trials:
            # A trial that cannot be run is told as failed, with the reason; the search goes on.
            study.optimize(
                self._objective, callbacks=[enough], catch=(FleetlearnError,), n_trials=10 * self.sweep.trials
            )

    def _objective(self, trial: "optuna.Trial") -> tuple[float, ...] | float:
        optuna = optuna_module()
        try:
            experiment = experiment_of(with_values(self.document(), suggested(self.sweep, trial)))
            watcher = _Pruning(trial) if self.sweep.pruner != "none" else Nobody()
            result = run(experiment, watcher=watcher)
        except FleetlearnError as error:
            trial.set_user_attr("refused", error.message)
            raise
        if result.interrupted:
            raise optuna.TrialPruned
        values = tuple(objective_of(result, objective) for objective in self.sweep.objectives)
        if any(math.isnan(value) for value in values):
            reason = f"Expected {', '.join(self.sweep.objectives)} to be measured, got no number"
            trial.set_user_attr("refused", reason)
            raise ExperimentError.at(("objectives",), reason)
        return values if len(values) > 1 else values[0]


def objective_of(result: Result, objective: str) -> float:
    """Mean over the seeds: sums of what a round costs, the last measured of all else."""
    column = objective.removeprefix("-")
    seeds = [result.metrics.of_seed(seed)[column] for seed in result.metrics.seeds]
    if column in ("bytes_up", "bytes_down", "seconds", "examples", "clients"):
        return sum(float(values[~(values != values)].sum()) for values in seeds) / len(seeds)
    return sum(last_measured(values) for values in seeds) / len(seeds)


class _Pruning(Nobody):
    """Tells a trial's accuracy as it grows; the pruner may end it."""

    def __init__(self, trial: "optuna.Trial") -> None:
        self._trial = trial
        self._seed: int | None = None
        self._is_pruned = False

    def finished_round(self, seed: int, record: RoundRecord) -> None:
        self._seed = seed if self._seed is None else self._seed
        # A pruner compares trials at equal steps: the first seed's rounds.
        if seed == self._seed and not math.isnan(record.test_accuracy):
            self._trial.report(record.test_accuracy, record.round)
            self._is_pruned = self._trial.should_prune()

    def wants_to_stop(self) -> bool:
        return self._is_pruned


def _sampler(optuna: Any, sweep: Sweep, *, seed: int) -> Any:
    samplers = optuna.samplers
    match sweep.sampler:
        case "tpe":
            # Several workers must not all try the same; conditions make groups of parameters.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
        case "nsga2":
            return samplers.NSGAIISampler(seed=seed, population_size=max(8, min(50, sweep.trials // 5)))
        case "random":
            return samplers.RandomSampler(seed=seed)


def _pruner(optuna: Any, sweep: Sweep, *, rounds: int) -> Any:
    pruners = optuna.pruners
    match sweep.pruner:
        case "none":
            return pruners.NopPruner()
        case "median":
            return pruners.MedianPruner()
        case "successive_halving":
            return pruners.SuccessiveHalvingPruner(min_resource=max(1, rounds // 9))
        case "hyperband":
            return pruners.HyperbandPruner(min_resource=max(1, rounds // 9), max_resource=rounds)
