"""A run's report: what came out in figures and pictures, and all that is needed to run it again."""

from collections.abc import Mapping, Sequence

import numpy as np

from simulations.experiments.experiment import Experiment
from simulations.experiments.text import toml_of
from simulations.results.curves import Plot
from simulations.results.page import Section, bullets, code, facts, page, pictures, table
from simulations.results.result import Result


def report(result: Result, plots: Sequence[Plot], partition: Plot | None, environment: Mapping[str, object]) -> str:
    """The page."""
    wide = [] if partition is None else [partition]
    sections = [Section("Curves", pictures(plots, wide=wide))]
    if len(result.metrics.seeds) > 1:
        sections.append(Section("Seeds", _seeds(result)))
    if result.notes:
        sections.append(Section("To know", bullets(result.notes)))
    sections.append(Section("The experiment, every setting", code(toml_of(result.experiment))))
    sections.append(Section("Made on", facts(_flat(environment))))
    return page(
        title=title_of(result.experiment),
        lead=lead_of(result.experiment) + (" · stopped before the last round" if result.interrupted else ""),
        tiles=tiles_of(result),
        sections=sections,
        foot="fleetlearn simulate. metrics.parquet beside this page has every number.",
    )


def title_of(experiment: Experiment) -> str:
    return experiment.name or f"{_data(experiment)}, {experiment.strategy.name}"


def lead_of(experiment: Experiment) -> str:
    """The experiment in a line."""
    partition = experiment.population.partition.kind.replace("_", " ")
    parts = [
        _data(experiment),
        f"{experiment.population.clients:,} clients ({partition})" if experiment.population.clients else partition,
        f"{experiment.cohort.clients:,} a round",
        experiment.strategy.name,
        f"{experiment.local.optimizer.name} {experiment.local.optimizer.learning_rate:g}",
    ]
    if not experiment.compression.is_lossless:
        parts.append(str(experiment.compression))
    parts += [attacked.attack.name.replace("_", " ") for attacked in experiment.attacks]
    return " · ".join(parts)


def tiles_of(result: Result) -> dict[str, str]:
    """The figures that count."""
    columns, accuracies = result.metrics.columns, list(result.accuracies.values())
    seeds = len(accuracies)
    spread = f", ± {np.std(accuracies, ddof=1):.3f} over {seeds} seeds" if seeds > 1 else ""
    tiles = {
        "accuracy on test data" + spread: f"{result.accuracy:.4f}",
        "rounds": f"{int(columns['round'].max()):,}",
        "client updates": f"{int(columns['clients'].sum()):,}",
        "sent up by clients": size_text(columns["bytes_up"].sum() / seeds),
    }
    last = {name: values[-1] for name, values in result.metrics.of_seed(result.metrics.seeds[-1]).items()}
    for name, label in (("example_epsilon", "epsilon of an example"), ("user_epsilon", "epsilon of a client")):
        if not np.isnan(last[name]):
            tiles[label] = f"{last[name]:.2f}"
    if not np.isnan(result.personal_accuracy):
        tiles["accuracy of clients' own models"] = f"{result.personal_accuracy:.4f}"
        tiles["a tenth of the clients have less than"] = f"{result.last_of('personal_accuracy_p10'):.4f}"
    if not np.isnan(last["attack_success"]):
        tiles["backdoor's success"] = f"{last['attack_success']:.3f}"
    if not np.isnan(last["clock_s"]):
        tiles["virtual time"] = time_text(float(last["clock_s"]))
    if rejected := int(columns["rejected"].sum()):
        tiles["updates rejected"] = f"{rejected:,}"
    tiles["time on this machine"] = time_text(float(np.nansum(columns["seconds"])))
    return tiles


def size_text(count: float) -> str:
    """Bytes in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def time_text(seconds: float) -> str:
    """Seconds in words."""
    for limit, factor, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 86_400:.3g} days"


def _seeds(result: Result) -> str:
    def row(seed: int) -> list[str]:
        columns = result.metrics.of_seed(seed)
        best = np.nanmax(columns["test_accuracy"])
        seconds = time_text(float(np.nansum(columns["seconds"])))
        return [str(seed), f"{result.accuracies[seed]:.4f}", f"{best:.4f}", f"{int(columns['round'][-1]):,}", seconds]

    return table(("seed", "accuracy", "best", "rounds", "time"), map(row, result.metrics.seeds))


def _data(experiment: Experiment) -> str:
    return str(getattr(experiment.data, "name", experiment.data.kind))


def _flat(environment: Mapping[str, object]) -> dict[str, str]:
    flat = {}
    for name, value in environment.items():
        if isinstance(value, Mapping):
            flat[name] = ", ".join(f"{key} {inner}" for key, inner in value.items())
        elif value is not None:
            flat[name.replace("_", " ")] = str(value)
    return flat


def flat_settings(experiment: Experiment) -> dict[str, str]:
    """Every setting that has a value, by its dotted key."""
    return _dotted(experiment.model_dump(mode="json"), "")


def _dotted(document: Mapping[str, object], prefix: str) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat |= _dotted(value, f"{prefix}{key}.")
        elif value is not None:
            flat[prefix + key] = str(value)
    return flat
