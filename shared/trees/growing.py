"""XGBoost, as we use it: the one typed place that calls it. It only grows new trees; all else is arrays of ours.

New trees continue a given ensemble because boosting starts from that ensemble's margins on the same data: XGBoost then
grows, to the last bit, the trees that it would have grown had it loaded the ensemble and gone on. Nobody has to parse
models that others wrote in XGBoost's own formats.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.errors import ExtraNotInstalledError
from shared.tasks.task import Examples, Inputs, Labels
from shared.trees.boosting import Boosting
from shared.trees.ensemble import LEAF, Ensemble, Margins, joined


@dataclass(frozen=True)
class Growth:
    """How far one party boosts."""

    steps: int
    learning_rate: float
    sampling_rate: float = 1.0
    """Share of the examples in a step."""
    seed: int = 0
    """Of who is sampled; up to 31 bits."""


def grow(boosting: Boosting, start: Ensemble, examples: Examples, growth: Growth) -> Ensemble:
    """The new trees alone, as they follow `start` on these examples. Raises ExtraNotInstalledError."""
    return grow_onto(boosting, start.margins(examples.inputs, boosting), examples.inputs, examples.labels, growth)


def grow_onto(boosting: Boosting, margins: Margins, inputs: Inputs, labels: Labels, growth: Growth) -> Ensemble:
    """The new trees alone, where those before them add up to these margins; on one thread, so that it can be repeated.

    Raises ExtraNotInstalledError.
    """
    try:
        # 0.3 s and SciPy: only who grows trees pays.
        import xgboost
    except ModuleNotFoundError as error:
        raise ExtraNotInstalledError("Growing trees (xgboost)", extra="trees") from error
    data = xgboost.DMatrix(inputs, label=labels, base_margin=margins[:, list(boosting.outputs)], nthread=1)
    booster = xgboost.train(parameters(boosting, growth), data, num_boost_round=growth.steps)
    return ensemble_of(bytes(booster.save_raw("json")), boosting)


def parameters(boosting: Boosting, growth: Growth) -> dict[str, Any]:  # Any: XGBoost's parameters
    """What XGBoost is told."""
    # No intercept: XGBoost would take one from the labels it sees, and each device would have another.
    binary = {"objective": "binary:logistic", "base_score": 0.5}
    several = {"objective": "multi:softprob", "num_class": boosting.classes, "base_score": 0.0}
    return {
        **(binary if boosting.classes == 2 else several),
        "tree_method": "hist",
        "max_depth": boosting.depth_max,
        "max_delta_step": boosting.leaf_max,
        "max_bin": boosting.bins_max,
        "min_child_weight": boosting.child_weight_min,
        "lambda": boosting.l2,
        "eta": growth.learning_rate,
        "subsample": growth.sampling_rate,
        "seed": growth.seed,
        "nthread": 1,
        "verbosity": 0,
    }


def ensemble_of(model: bytes, boosting: Boosting) -> Ensemble:
    """The trees of a model that this process' own XGBoost wrote, as JSON."""
    found = json.loads(model)["learner"]["gradient_booster"]["model"]
    outputs = [boosting.outputs[group] for group in found["tree_info"]]
    return joined(_tree(tree, output) for tree, output in zip(found["trees"], outputs, strict=True))


def _tree(tree: dict[str, Any], output: int) -> Ensemble:  # Any: XGBoost's JSON
    left = tree["left_children"]
    order = list(_level_by_level(left, tree["right_children"]))
    feature = [tree["split_indices"][node] if left[node] != -1 else LEAF for node in order]
    return Ensemble(
        nodes=np.array([len(order)], np.int32),
        output=np.array([output], np.int32),
        feature=np.array(feature, np.int32),
        value=np.array([tree["split_conditions"][node] for node in order], np.float32),
    )


def _level_by_level(left: Sequence[int], right: Sequence[int]) -> Iterator[int]:
    level = [0]
    while level:
        yield from level
        level = [child for node in level if left[node] != -1 for child in (left[node], right[node])]
