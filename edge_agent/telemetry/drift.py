"""Drift of what the device sees lately: a sliding window of recent examples against the release's reference profile.

The window is kept as blocks of counts, never as data: a block is `1 / BLOCKS` of the window, and the oldest leaves when
the rest is still a full window. So the figures rest on between one and 1 + 1 / BLOCKS windows of the newest examples.
"""

from collections import deque
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from shared.messages.events import FeatureDrift
from shared.sketches import Counts, DriftProfile, count, population_stability_index
from shared.tasks.task import Inputs

BLOCKS = 8
Features = Callable[[Inputs], NDArray[np.float32]]
"""A task's drift features: `(n, *input_shape)` to `(n, features)`."""


class DriftWindow:
    """Counts of one release's recent feature values.

    Args:
        profile: The release's reference.
        features: The task's.
        window_examples: Length of the window; the profile's `examples_min` where it is None.
    """

    def __init__(self, profile: DriftProfile, features: Features, *, window_examples: int | None = None) -> None:
        self._profile = profile
        self._features = features
        self._window_examples = max(window_examples or 0, profile.examples_min)
        self._blocks: deque[tuple[Counts, int]] = deque()
        self._proportions = [np.asarray(feature.proportions, np.float64) for feature in profile.features]

    @property
    def examples(self) -> int:
        """How many recent examples are counted."""
        return sum(size for _, size in self._blocks)

    def add(self, inputs: Iterable[Inputs]) -> None:
        """Counts these examples, oldest first."""
        batches = list(inputs)
        if not batches:
            return
        values = self._features(np.concatenate(batches))
        block_examples = max(1, self._window_examples // BLOCKS)
        for start in range(0, len(values), block_examples):
            self._add_block(values[start : start + block_examples], block_examples)

    def drift(self) -> list[FeatureDrift]:
        """Every feature's drift, or nothing while there are fewer examples than the profile asks for."""
        if self.examples < self._profile.examples_min:
            return []
        totals = np.sum([counts for counts, _ in self._blocks], axis=0)
        return [
            FeatureDrift(
                feature=feature.feature,
                psi=max(0.0, population_stability_index(proportions, counts)),
                threshold=feature.threshold,
            )
            for feature, proportions, counts in zip(self._profile.features, self._proportions, totals, strict=True)
        ]

    def _add_block(self, values: NDArray[np.float32], block_examples: int) -> None:
        counts = count(self._profile, values)
        if self._blocks and self._blocks[-1][1] + len(values) <= block_examples:
            last, size = self._blocks.pop()
            self._blocks.append((last + counts, size + len(values)))
        else:
            self._blocks.append((counts, len(values)))
        while len(self._blocks) > 1 and self.examples - self._blocks[0][1] >= self._window_examples:
            self._blocks.popleft()
