"""What a run gives back to Python."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.tensors import Tensors
from simulations.experiments.experiment import Experiment
from simulations.results.metrics import Metrics


@dataclass(frozen=True)
class Result:
    """A run, over all of its seeds.

    Example:
        >>> result.accuracy, result.metrics.of_seed(0)["test_accuracy"]  # doctest: +SKIP
    """

    experiment: Experiment
    metrics: Metrics
    models: Mapping[int, Tensors]
    """Each seed's last model, with all the tensors of its `state_dict`."""
    notes: tuple[str, ...]
    """What a reader should know: how the engine computed, what was assumed."""
    folder: Path | None
    """None where nothing was written."""
    interrupted: bool
    """Whether somebody stopped it before the last round."""

    def _repr_html_(self) -> str:
        """The figures and curves, as a notebook shows them."""
        # matplotlib costs half a second that only who looks pays.
        from simulations.results.curves import curves
        from simulations.results.page import facts, pictures
        from simulations.results.report import tiles_of

        return facts(tiles_of(self)) + pictures(curves({"": self.metrics}))

    @property
    def accuracies(self) -> dict[int, float]:
        """Each seed's last measured accuracy on test data."""
        return {seed: last_measured(self.metrics.of_seed(seed)["test_accuracy"]) for seed in self.metrics.seeds}

    @property
    def accuracy(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(list(self.accuracies.values())))

    @property
    def personal_accuracy(self) -> float:
        """Mean over clients of each one's own model on what it holds out, and over the seeds; NaN: nothing held out."""
        return self.last_of("personal_accuracy")

    def last_of(self, column: str) -> float:
        """Mean over the seeds of what was measured last."""
        return float(np.mean([last_measured(self.metrics.of_seed(seed)[column]) for seed in self.metrics.seeds]))


def last_measured(values: np.ndarray) -> float:
    """The last number; NaN where nothing was measured."""
    measured = values[~np.isnan(values)]
    return float(measured[-1]) if len(measured) else float("nan")
