"""Who has what, as a picture: each client's classes, and how sizes and mixtures are spread over the population."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulations.populations.port import Clients, Population

_CLIENTS_SHOWN = 60
_CLIENTS_COUNTED = 5000
_INK, _ACCENT, _QUIET = "#22313f", "#1f8a8a", "#b8c4cc"


def class_counts(
    population: Population, clients: Clients, labels: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """How many examples of each class each client holds, `(K, classes)`."""
    holdings = population.holdings(clients)
    place = np.repeat(np.arange(len(clients)), holdings.sizes) * classes + labels[holdings.rows]
    return np.bincount(place, minlength=len(clients) * classes).reshape(len(clients), classes)


def draw(population: Population, labels: NDArray[np.int64], *, classes: int, path: Path) -> None:
    """Writes a PNG or SVG; of a large population, evenly chosen clients.

    matplotlib is loaded here: it costs half a second that nobody else should pay.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "text.color": _INK}):
        figure, (bars, sizes, skew) = plt.subplots(
            1, 3, figsize=(13, 3.6), width_ratios=(2.2, 1, 1), layout="constrained"
        )
        counts = class_counts(population, _some(population, _CLIENTS_COUNTED), labels, classes)
        _draw_bars(bars, class_counts(population, _some(population, _CLIENTS_SHOWN), labels, classes))
        _draw_histogram(sizes, counts.sum(axis=1), title="Sizes", label="examples")
        _draw_histogram(
            skew, _distance(counts, labels, classes), title="Label skew", label="distance from all data's mix"
        )
        figure.suptitle(f"{population.clients:,} clients", fontsize=10)
        figure.savefig(path, dpi=110)
        plt.close(figure)


def _some(population: Population, count: int) -> Clients:
    return np.unique(np.linspace(0, population.clients - 1, min(count, population.clients)).astype(np.int64))


def _distance(counts: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Total variation between each client's mixture of classes and that of all data: 0 alike, near 1 apart."""
    everywhere = np.bincount(labels, minlength=classes) / len(labels)
    own = counts / counts.sum(axis=1, keepdims=True)
    distance: NDArray[np.float64] = np.abs(own - everywhere).sum(axis=1) / 2
    return distance


# Any: matplotlib is untyped here.
def _draw_bars(axes: Any, counts: NDArray[np.int64]) -> None:
    from matplotlib import colormaps

    colours = colormaps["viridis"](np.linspace(0.05, 0.95, counts.shape[1]))
    below = np.zeros(len(counts))
    for label in range(counts.shape[1]):
        axes.bar(np.arange(len(counts)), counts[:, label], bottom=below, width=0.9, color=colours[label])
        below += counts[:, label]
    axes.set(title="Classes of some clients, a colour each", xlabel="client", ylabel="examples", xticks=[])
    axes.margins(x=0.01)


def _draw_histogram(axes: Any, values: NDArray[Any], *, title: str, label: str) -> None:
    axes.hist(values, bins=30, color=_ACCENT)
    axes.axvline(np.median(values), color=_INK, linestyle=":", label=f"median {np.median(values):.3g}")
    axes.set(title=title, xlabel=label, ylabel="clients")
    axes.legend(frameon=False, fontsize=8)
