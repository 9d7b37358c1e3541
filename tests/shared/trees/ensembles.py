"""Ensembles for tests: any that are sound, and some that were learned."""

import numpy as np
from hypothesis import strategies as st

from shared.tasks.task import Examples
from shared.trees.boosting import Boosting
from shared.trees.ensemble import LEAF, Ensemble, joined
from shared.trees.growing import Growth, grow

BINARY = Boosting(features=4, classes=2, depth_max=3)
SEVERAL = Boosting(features=4, classes=3, depth_max=3)
GROWTH = Growth(steps=2, learning_rate=0.3)


def examples(boosting: Boosting, *, seed: int = 0, count: int = 200) -> Examples:
    """Points whose class is which part of the plane they lie in."""
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(count, boosting.features)).astype(np.float32)
    height = inputs[:, 0] + inputs[:, 1] ** 2
    labels = np.digitize(height, np.quantile(height, np.arange(1, boosting.classes) / boosting.classes))
    return Examples(inputs, labels.astype(np.int64), np.arange(count, dtype=np.int64))


def learned(boosting: Boosting, *, steps: int = 3, seed: int = 0) -> Ensemble:
    return grow(boosting, joined([]), examples(boosting, seed=seed), Growth(steps, learning_rate=0.3))


@st.composite
def ensembles(draw: st.DrawFn, boosting: Boosting) -> Ensemble:
    """Any sound ensemble of the task, of up to six trees."""
    seeds = draw(st.lists(st.integers(0, 2**32 - 1), max_size=6))
    return joined(_tree(np.random.default_rng(seed), boosting) for seed in seeds)


def _tree(generator: np.random.Generator, boosting: Boosting) -> Ensemble:
    levels, width = [], 1
    for depth in range(boosting.depth_max + 1):
        is_split = generator.random(width) < (0.7 if depth < boosting.depth_max else 0.0)
        levels.append(np.where(is_split, generator.integers(0, boosting.features, width), LEAF))
        width = 2 * int(is_split.sum())
    feature = np.concatenate(levels).astype(np.int32)
    return Ensemble(
        nodes=np.array([len(feature)], np.int32),
        output=generator.choice(np.array(boosting.outputs, np.int32), 1),
        feature=feature,
        value=generator.normal(size=len(feature)).astype(np.float32),
    )
