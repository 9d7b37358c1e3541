"""A sweep's report: the best, how it was found, what mattered."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from simulations.results.curves import Plot, bars, points
from simulations.results.page import Section, bullets, code, page, pictures, table
from simulations.sweeps.search import optuna_module
from simulations.sweeps.settings import Sweep

if TYPE_CHECKING:
    import optuna

_ROWS_MAX = 20
_REFUSALS_MAX = 10


def best_trials(study: "optuna.Study") -> list["optuna.trial.FrozenTrial"]:
    """The best trial; with several objectives, those that no other beats in all of them."""
    complete = study.get_trials(deepcopy=False, states=(optuna_module().trial.TrialState.COMPLETE,))
    return sorted(study.best_trials, key=lambda trial: -trial.values[0]) if complete else []


def sweep_page(sweep: Sweep, study: "optuna.Study", best_toml: str) -> str:
    """The page."""
    trials, best = study.get_trials(deepcopy=False), best_trials(study)
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    sections = []
    if plots := _plots(sweep, study, complete, best):
        sections.append(Section("Search", pictures(plots)))
    sign = 1 if sweep.objectives[0].startswith("-") else -1
    shown = sorted(complete, key=lambda trial: (trial not in best, sign * trial.values[0]))[:_ROWS_MAX]
    heads = ("trial", *sweep.objectives, *sweep.parameters)
    sections.append(Section("Trials, the best first", table(heads, (_row(sweep, trial) for trial in shown))))
    sections.append(Section("The best experiment", code(best_toml)))
    refused = dict.fromkeys(str(trial.user_attrs["refused"]) for trial in trials if "refused" in trial.user_attrs)
    if refused:
        sections.append(Section("Could not be run", bullets(list(refused)[:_REFUSALS_MAX])))
    tiles = {f"best {name}": f"{value:.4g}" for name, value in zip(sweep.objectives, best[0].values, strict=True)}
    tiles |= {f"trials {name}": str(count) for name, count in _counts(trials).items()}
    return page(
        title=f"Sweep of {sweep.experiment.stem}",
        lead=f"{sweep.sampler} over {len(sweep.parameters)} parameters · pruner: {sweep.pruner}",
        tiles=tiles,
        sections=sections,
        foot="fleetlearn simulate sweep. Importance is by fANOVA, of parameters that every trial has.",
    )


def _counts(trials: Sequence["optuna.trial.FrozenTrial"]) -> dict[str, int]:
    names = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed"}
    counts = {told: sum(trial.state.name == name for trial in trials) for name, told in names.items()}
    return {told: count for told, count in counts.items() if count}


def _plots(
    sweep: Sweep,
    study: "optuna.Study",
    complete: Sequence["optuna.trial.FrozenTrial"],
    best: Sequence["optuna.trial.FrozenTrial"],
) -> list[Plot]:
    if len(complete) < 2:
        return []
    values = [list(column) for column in zip(*(trial.values for trial in complete), strict=True)]
    if len(sweep.objectives) == 1:
        leading = _leaders(values[0], is_larger_better=not sweep.objectives[0].startswith("-"))
        numbers = [float(trial.number) for trial in complete]
        svg = points(numbers, values[0], chosen=leading, labels=("trial", sweep.objectives[0]))
        plots = [Plot("history", "Trials, and the best so far", svg)]
    else:
        chosen = [place for place, trial in enumerate(complete) if trial in best]
        svg = points(values[1], values[0], chosen=chosen, labels=(sweep.objectives[1], sweep.objectives[0]))
        plots = [Plot("pareto", "Trials that no other beats in everything", svg)]
    if importance := _importance(study):
        plots.append(Plot("importance", f"What mattered for {sweep.objectives[0]}", bars(importance, label="share")))
    return plots


def _leaders(values: Sequence[float], *, is_larger_better: bool) -> list[int]:
    """Places at which a value was better than all before."""
    sign = 1 if is_larger_better else -1
    leaders = [0]
    for place, value in enumerate(values):
        if sign * value > sign * values[leaders[-1]]:
            leaders.append(place)
    return leaders


def _importance(study: "optuna.Study") -> dict[str, float]:
    """Share of each parameter in the spread of the first objective; nothing where it cannot be told."""
    importance = optuna_module().importance
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = importance.get_param_importances(study, target=lambda trial: trial.values[0])
    # Too few trials, or none that differ: the library says so in several ways.
    except (ValueError, RuntimeError, ZeroDivisionError):
        return {}
    return {name: float(share) for name, share in found.items()}


def _row(sweep: Sweep, trial: "optuna.trial.FrozenTrial") -> list[str]:
    settings = [_text(trial.params.get(key, "")) for key in sweep.parameters]
    return [str(trial.number), *(f"{value:.4g}" for value in trial.values), *settings]


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).strip('"')
