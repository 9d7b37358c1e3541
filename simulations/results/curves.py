"""Curves of one run or of several, drawn alike: the mean over seeds, and a band from the lowest to the highest.

matplotlib is loaded inside: it costs half a second that nobody else should pay.
"""

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulations.results.metrics import Metrics

Numbers = NDArray[np.float64]
INK, QUIET = "#22313f", "#b8c4cc"
COLOURS = ("#1f8a8a", "#d1495b", "#edae49", "#3d5a80", "#7b5ea7", "#6a994e", "#9a6324", "#5f6f7a")
_POINTS_MAX = 1000
"""Of a line; more cannot be seen, and would make reports of megabytes."""


@dataclass(frozen=True)
class Plot:
    """One picture, as the text of an SVG."""

    name: str
    title: str
    svg: str


@dataclass(frozen=True)
class _Kind:
    name: str
    title: str
    column: str
    label: str
    over: str = "round"
    over_label: str = "round"


_KINDS = (
    _Kind("accuracy", "Accuracy on test data", "test_accuracy", "accuracy"),
    _Kind("loss", "Loss on test data", "test_loss", "loss"),
    _Kind("personal", "Accuracy of clients' own models", "personal_accuracy", "mean, on what each holds out"),
    _Kind("bytes", "Accuracy by bytes sent up", "test_accuracy", "accuracy", "up_mb", "megabytes from all clients"),
    _Kind("time", "Accuracy by virtual time", "test_accuracy", "accuracy", "hours", "hours"),
    _Kind("example_epsilon", "Privacy spent of each example", "example_epsilon", "epsilon"),
    _Kind("user_epsilon", "Privacy spent of each client", "user_epsilon", "epsilon"),
    _Kind("attack", "Success of the backdoor", "attack_success", "share of triggered examples"),
    _Kind("train_loss", "Loss in training", "train_loss", "mean over the cohort"),
    _Kind("update_norm", "Length of updates", "update_norm", "mean L2 norm"),
)


def curves(runs: Mapping[str, Metrics]) -> list[Plot]:
    """A picture for each figure that some run has; the runs' names are the legend."""
    plots = []
    for kind in _KINDS:
        lines = {name: _band(metrics, kind) for name, metrics in runs.items()}
        drawn = {name: line for name, line in lines.items() if line is not None}
        if drawn:
            plots.append(Plot(kind.name, kind.title, _draw(kind, drawn)))
    return plots


@dataclass(frozen=True)
class _Band:
    over: Numbers
    mean: Numbers
    low: Numbers
    high: Numbers


def _band(metrics: Metrics, kind: _Kind) -> _Band | None:
    """Of the rounds in which every seed measured the column; None where none did."""
    seeds = [_derived(metrics.of_seed(seed)) for seed in metrics.seeds]
    shortest = min(len(columns["round"]) for columns in seeds)
    over, values = (np.stack([columns[name][:shortest] for columns in seeds]) for name in (kind.over, kind.column))
    measured = np.flatnonzero(~np.isnan(over).any(axis=0) & ~np.isnan(values).any(axis=0))
    if len(measured) < 2:
        return None
    some = measured[np.unique(np.linspace(0, len(measured) - 1, min(len(measured), _POINTS_MAX)).astype(int))]
    values = values[:, some]
    return _Band(over[:, some].mean(axis=0), values.mean(axis=0), values.min(axis=0), values.max(axis=0))


def _derived(columns: Mapping[str, Numbers]) -> dict[str, Numbers]:
    return {**columns, "up_mb": columns["bytes_up"].cumsum() / 1e6, "hours": columns["clock_s"] / 3600}


def _draw(kind: _Kind, lines: Mapping[str, _Band]) -> str:
    with _style():
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
        for (name, line), colour in zip(lines.items(), _colours(len(lines)), strict=True):
            axes.plot(line.over, line.mean, color=colour, linewidth=1.8, label=name)
            if (line.high > line.low).any():
                axes.fill_between(line.over, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
        axes.set(xlabel=kind.over_label, ylabel=kind.label)
        axes.margins(x=0.01)
        axes.grid(axis="y", color=QUIET, alpha=0.4, linewidth=0.6)
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=8)
        return svg_of(figure)


def bars(values: Mapping[str, float], *, label: str) -> str:
    """Named numbers, the largest first, as an SVG."""
    with _style():
        from matplotlib import pyplot as plt

        names = sorted(values, key=lambda name: values[name])
        figure, axes = plt.subplots(figsize=(6.4, 0.8 + 0.32 * len(names)), layout="constrained")
        axes.barh(names, [values[name] for name in names], color=COLOURS[0], height=0.6)
        axes.set(xlabel=label)
        return svg_of(figure)


def points(over: Sequence[float], values: Sequence[float], *, chosen: Sequence[int], labels: tuple[str, str]) -> str:
    """A scatter of trials, the chosen ones joined, as an SVG."""
    with _style():
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
        axes.scatter(over, values, color=QUIET, s=18)
        best = sorted(chosen, key=lambda place: over[place])
        axes.plot([over[i] for i in best], [values[i] for i in best], color=COLOURS[0], marker="o", markersize=5)
        axes.set(xlabel=labels[0], ylabel=labels[1])
        return svg_of(figure)


def svg_of(figure: Any) -> str:  # Any: matplotlib is untyped here
    """The figure's SVG; it is closed."""
    from matplotlib import pyplot as plt

    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return text.getvalue()


def _style() -> AbstractContextManager[None]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    style: Any = {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": QUIET,
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "svg.hashsalt": "fleetlearn",
    }
    context: AbstractContextManager[None] = plt.rc_context(style)
    return context


def _colours(count: int) -> list[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(count)]
