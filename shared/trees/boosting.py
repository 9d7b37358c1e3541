"""What the trees of one task may be, and how XGBoost grows them: a task that has this learns trees.

Boosting: Chen and Guestrin 2016 (arXiv:1603.02754). A class has an output of its own, except where there are two: then
one output is enough, the second's, and the first's is zero.
"""

from dataclasses import dataclass
from typing import Protocol

from shared.tasks.task import Task

NUMBER_BYTES = 4


@dataclass(frozen=True)
class Boosting:
    """Bounds that every ensemble of a task keeps; anything beyond them is no model of it."""

    features: int
    """Numbers in one example."""
    classes: int
    depth_max: int = 4
    """Splits from a tree's root to a leaf, at most."""
    leaf_max: float = 5.0
    """What a leaf may add, before the learning rate (XGBoost's `max_delta_step`): no device pulls further than this."""
    bins_max: int = 64
    """Values of a feature at which a split is tried, at most."""
    child_weight_min: float = 1.0
    """Least sum of second derivatives in a leaf."""
    l2: float = 1.0
    """XGBoost's lambda, on what leaves add."""

    @property
    def outputs(self) -> tuple[int, ...]:
        """To which outputs one step of boosting adds, one tree each."""
        return (1,) if self.classes == 2 else tuple(range(self.classes))

    @property
    def nodes_max(self) -> int:
        """Of one tree."""
        return int(2 ** (self.depth_max + 1)) - 1

    def trees(self, steps: int) -> int:
        """Trees that so many steps grow."""
        return steps * len(self.outputs)

    def bytes_max(self, steps: int) -> int:
        """What so many steps' trees take, at most: two numbers a tree, two a node."""
        return self.trees(steps) * 2 * NUMBER_BYTES * (1 + self.nodes_max)


class TreeTask(Task, Protocol):
    """A task whose model is a `shared.trees.model.TreeModel`.

    Its `LocalTraining` means: `steps` of boosting in a round, each with the `learning_rate` (XGBoost's eta) on a share
    `sampling_rate` of the examples. Its `CentralTraining` means as many steps as there are `epochs`; 0 starts from
    nothing.
    """

    @property
    def boosting(self) -> Boosting: ...


def boosting_of(task: Task) -> Boosting | None:
    """How the task's trees grow; nothing where its model is no ensemble of trees."""
    found = getattr(task, "boosting", None)
    return found if isinstance(found, Boosting) else None
