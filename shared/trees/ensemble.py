"""A boosted tree ensemble as four arrays, which travel, are stored and are compared as any tensors.

    tree_nodes      (trees,)  int32    nodes of each tree
    tree_output     (trees,)  int32    to which output it adds
    node_feature    (nodes,)  int32    what a split looks at; -1 in a leaf
    node_value      (nodes,)  float32  of a split: left where the feature is below; of a leaf: what it adds

A tree's nodes lie level by level, and its k-th split, counted from 0, has its children at 2k + 1 and 2k + 2. So there
are no pointers, and none that could be wrong; equal trees are equal bytes; joining two is laying one behind the other.
What XGBoost also knows of a tree (gains, and how many examples were where) is left out: no prediction needs it, and it
says more about a device's data. A missing value goes right.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shared.errors import FleetlearnError
from shared.tasks.task import Inputs
from shared.tensors import Array, Tensors
from shared.trees.boosting import Boosting

NODES, OUTPUT, FEATURE, VALUE = "tree_nodes", "tree_output", "node_feature", "node_value"
LEAF = -1
_DTYPES = {NODES: np.int32, OUTPUT: np.int32, FEATURE: np.int32, VALUE: np.float32}
_PLACES_MAX = 2**22
"""Places in trees that are followed at once: 32 MiB."""
_ROUNDING = 1e-5
"""Relative; XGBoost multiplies by the learning rate in floats."""

Whole = NDArray[np.int32]
Margins = NDArray[np.float32]
"""Sums of leaves, `(examples, classes)`: logits."""


class MalformedEnsembleError(FleetlearnError):
    """Arrays that are no ensemble of trees, or one of another task."""

    code = "malformed_ensemble"


@dataclass(frozen=True, eq=False)  # arrays have no one truth value
class Ensemble:
    """Trees, in the order in which they are added up. Made by `read_ensemble`, or of trees that are sound."""

    nodes: Whole
    output: Whole
    feature: Whole
    value: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def tensors(self) -> Tensors:
        return {NODES: self.nodes, OUTPUT: self.output, FEATURE: self.feature, VALUE: self.value}

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """Where each tree's nodes begin, and where the last one's end."""
        return np.concatenate([[0], np.cumsum(self.nodes, dtype=np.int64)])

    @cached_property
    def left(self) -> NDArray[np.int64]:
        """Each node's left child, the right one follows it; a leaf's is itself."""
        own = np.arange(len(self.feature))
        splits = _splits_before(self.feature)
        root = np.repeat(self.first[:-1], self.nodes)
        return np.where(self.feature == LEAF, own, root + 2 * (splits[:-1] - splits[root]) + 1)

    def scaled(self, factor: float) -> "Ensemble":
        """The same splits; every leaf adds so much of what it did."""
        leaves = self.value * np.float32(factor)
        return replace(self, value=np.where(self.feature == LEAF, leaves, self.value))

    def margins(self, inputs: Inputs, boosting: Boosting, *, onto: Margins | None = None) -> Margins:
        """What the trees add up to, `(examples, classes)`: XGBoost's own margins, to the last bit.

        Args:
            inputs: `(examples, features)`.
            boosting: The task's.
            onto: What earlier trees add up to; stays as it is.
        """
        sums = np.zeros((len(inputs), boosting.classes), np.float32) if onto is None else onto.copy()
        rows = max(1, _PLACES_MAX // max(1, len(self)))
        for start in range(0, len(inputs), rows):
            part = slice(start, start + rows)
            self._add(sums[part], inputs[part], boosting.depth_max)
        return sums

    def _add(self, sums: Margins, inputs: Inputs, depth_max: int) -> None:
        """Adds all trees to the sums of some examples, in place."""
        place = np.tile(self.first[:-1], (len(inputs), 1))
        for _ in range(depth_max):
            feature = self.feature[place]
            # A leaf looks at the last feature, and stays where it is whatever that says.
            is_right = ~(np.take_along_axis(inputs, feature, axis=1) < self.value[place]) & (feature != LEAF)
            place = self.left[place] + is_right
        leaves = self.value[place]
        # One after the other, in floats, as XGBoost does: a sum of floats depends on the order.
        for tree, output in enumerate(self.output):
            sums[:, output] += leaves[:, tree]


NOTHING = Ensemble(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))
"""No trees: all outputs are zero."""


def joined(parts: Iterable[Ensemble]) -> Ensemble:
    """The trees of all parts, in order."""
    ensembles = [NOTHING, *parts]
    return Ensemble(
        nodes=np.concatenate([each.nodes for each in ensembles]),
        output=np.concatenate([each.output for each in ensembles]),
        feature=np.concatenate([each.feature for each in ensembles]),
        value=np.concatenate([each.value for each in ensembles]),
    )


def read_ensemble(tensors: Mapping[str, Array], boosting: Boosting) -> Ensemble:
    """The ensemble in these arrays, whatever somebody put there. Raises MalformedEnsembleError."""
    if unlike := sorted(tensors.keys() ^ _DTYPES.keys()):
        raise MalformedEnsembleError(f"Expected the {len(_DTYPES)} arrays of trees, got a difference in {unlike[0]!r}")
    for name, dtype in _DTYPES.items():
        if (found := tensors[name]).ndim != 1 or found.dtype != dtype:
            raise MalformedEnsembleError(
                f"Expected {name!r} as a vector of {np.dtype(dtype)}, got {found.dtype} {found.shape}"
            )
    nodes, output, feature = (np.asarray(tensors[name], np.int32) for name in (NODES, OUTPUT, FEATURE))
    ensemble = Ensemble(nodes, output, feature, np.asarray(tensors[VALUE], np.float32))
    _check_sizes(ensemble, boosting)
    _check_numbers(ensemble, boosting)
    _check_shape(ensemble, boosting)
    return ensemble


def check_grown(ensemble: Ensemble, boosting: Boosting, *, steps: int, learning_rate: float) -> None:
    """Passes what so many steps of boosting can have grown, or raises MalformedEnsembleError."""
    if len(ensemble) != (trees := boosting.trees(steps)):
        raise MalformedEnsembleError(f"Expected {trees} trees, from {steps} steps of boosting, got {len(ensemble)}")
    if not np.array_equal(ensemble.output, np.tile(boosting.outputs, steps)):
        raise MalformedEnsembleError(f"Expected each step's trees to add to outputs {boosting.outputs}, got others")
    leaves = np.abs(ensemble.value[ensemble.feature == LEAF])
    largest = float(leaves.max(initial=0.0))
    if largest > (bound := boosting.leaf_max * learning_rate) * (1 + _ROUNDING):
        raise MalformedEnsembleError(f"Expected leaves that add at most {bound:g}, got {largest:g}")


def _check_sizes(ensemble: Ensemble, boosting: Boosting) -> None:
    if len(ensemble.output) != len(ensemble) or len(ensemble.value) != len(ensemble.feature):
        raise MalformedEnsembleError("Expected an output for each tree and a value for each node, got fewer or more")
    if len(ensemble) and not 1 <= ensemble.nodes.min() <= ensemble.nodes.max() <= boosting.nodes_max:
        got = f"{ensemble.nodes.min()} to {ensemble.nodes.max()}"
        raise MalformedEnsembleError(f"Expected trees of 1 to {boosting.nodes_max} nodes, got {got}")
    if (count := int(ensemble.nodes.sum(dtype=np.int64))) != len(ensemble.feature):
        raise MalformedEnsembleError(f"Expected {count} nodes, as the trees have, got {len(ensemble.feature)}")


def _check_numbers(ensemble: Ensemble, boosting: Boosting) -> None:
    if not np.isfinite(ensemble.value).all():
        raise MalformedEnsembleError("Expected finite numbers in splits and leaves, got NaN or infinity")
    if not np.isin(ensemble.output, boosting.outputs).all():
        raise MalformedEnsembleError(
            f"Expected trees that add to outputs among {boosting.outputs}, of {boosting.classes} classes, got others"
        )
    if len(found := ensemble.feature) and not LEAF <= found.min() <= found.max() < boosting.features:
        raise MalformedEnsembleError(
            f"Expected splits by features 0 to {boosting.features - 1}, got {found.min()} to {found.max()}"
        )


def _check_shape(ensemble: Ensemble, boosting: Boosting) -> None:
    """Level by level, all trees at once: a level's splits have two nodes each in the next, and the last has none."""
    splits = _splits_before(ensemble.feature)
    start, end = ensemble.first[:-1], ensemble.first[1:]
    width = np.ones(len(ensemble), np.int64)
    for _ in range(boosting.depth_max + 1):
        if (start + width > end).any():
            raise MalformedEnsembleError("Expected two children of each split, got fewer")
        start, width = start + width, 2 * (splits[start + width] - splits[start])
    if width.any() or (start != end).any():
        raise MalformedEnsembleError(f"Expected whole trees of at most {boosting.depth_max} splits deep, got others")


def _splits_before(feature: Whole) -> NDArray[np.int64]:
    """How many nodes before each one, of all trees, are splits; and how many there are."""
    return np.concatenate([[0], np.cumsum(feature != LEAF, dtype=np.int64)])
