"""What to break, so that the drift monitor has something to find: chosen from a task's data, of any shape. Pure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.tasks.task import Examples, Inputs, Task

DISTANCE_MIN = 0.4
"""Of two distributions, 0 to 1 (Kolmogorov-Smirnov): below it no monitor should be expected to notice."""


@dataclass(frozen=True)
class Disturbance:
    """A part of the sensor that reads nothing, and the feature that shows it best."""

    feature: str
    channel: int | None
    """Of inputs `(n, channels, ...)`; None: the whole sensor."""

    def applied(self, inputs: Inputs) -> Inputs:
        """A copy of `(n, *input_shape)` in which that part is 0."""
        broken = inputs.copy()
        broken[:, slice(None) if self.channel is None else self.channel] = 0
        return broken


def choose_disturbance(task: Task, examples: Examples) -> Disturbance | None:
    """The broken channel that one feature shows best; None where no feature shows any."""
    usual = task.features(examples.inputs)
    # A vector has no channels: its numbers are the pixels or columns of one sensor, which breaks as a whole.
    has_channels = examples.inputs.ndim > 2
    channels: list[int | None] = list(range(examples.inputs.shape[1])) if has_channels else [None]
    found: list[tuple[float, Disturbance]] = []
    for channel in channels:
        broken = task.features(Disturbance("", channel).applied(examples.inputs))
        distances = [_distance(usual[:, column], broken[:, column]) for column in range(usual.shape[1])]
        best = int(np.argmax(distances))
        found.append((distances[best], Disturbance(task.schema.features[best], channel)))
    # The last of equals, so that finding it takes every channel.
    distance, chosen = max(reversed(found), key=lambda pair: pair[0])
    return chosen if distance >= DISTANCE_MIN else None


def _distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """The largest difference of the two empirical distribution functions."""
    places = np.concatenate([a, b])
    left = np.searchsorted(np.sort(a), places, side="right") / len(a)
    right = np.searchsorted(np.sort(b), places, side="right") / len(b)
    return float(np.abs(left - right).max())
