"""A tree ensemble as ONNX: one `TreeEnsembleRegressor` of the domain `ai.onnx.ml`, version 3, whose targets are logits.

https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsembleRegressor.html; ONNX Runtime has it in every build for CPUs.
Written node by node, so that no converter stands between what was trained and what is served.
"""

from pathlib import Path
from typing import Any

import numpy as np

from shared.tasks.task import Schema
from shared.trees.ensemble import LEAF, Ensemble

_ML_DOMAIN, _ML_OPSET = "ai.onnx.ml", 3
_IR_VERSION = 10
"""As torch's exporter writes; newer than any operator here needs."""


def export_trees(ensemble: Ensemble, schema: Schema, path: Path, *, opset: int) -> None:
    """Writes the model with a free batch dimension; equal ensembles give equal bytes."""
    # Only who exports has onnx.
    from onnx import TensorProto, helper, save_model

    features, classes = schema.input_shape[0], len(schema.classes)
    node = helper.make_node(
        "TreeEnsembleRegressor",
        [schema.input_name],
        [schema.output_name],
        name="trees",
        domain=_ML_DOMAIN,
        n_targets=classes,
        aggregate_function="SUM",
        post_transform="NONE",
        **_attributes(ensemble if len(ensemble) else _nothing()),
    )
    graph = helper.make_graph(
        [node],
        "trees",
        [helper.make_tensor_value_info(schema.input_name, TensorProto.FLOAT, ["batch", features])],
        [helper.make_tensor_value_info(schema.output_name, TensorProto.FLOAT, ["batch", classes])],
    )
    versions = [helper.make_opsetid("", opset), helper.make_opsetid(_ML_DOMAIN, _ML_OPSET)]
    save_model(helper.make_model(graph, opset_imports=versions, ir_version=_IR_VERSION), str(path))


def _attributes(ensemble: Ensemble) -> dict[str, Any]:  # Any: lists of numbers, and of words
    """The specification's lists: one entry for each node, then one for each leaf."""
    tree = np.repeat(np.arange(len(ensemble)), ensemble.nodes)
    node = np.arange(len(ensemble.feature)) - ensemble.first[tree]
    left = ensemble.left - ensemble.first[tree]
    is_leaf = ensemble.feature == LEAF
    return {
        "nodes_treeids": tree.tolist(),
        "nodes_nodeids": node.tolist(),
        "nodes_featureids": np.where(is_leaf, 0, ensemble.feature).tolist(),
        "nodes_values": np.where(is_leaf, 0, ensemble.value).tolist(),
        "nodes_modes": ["LEAF" if each else "BRANCH_LT" for each in is_leaf],
        "nodes_truenodeids": np.where(is_leaf, 0, left).tolist(),
        "nodes_falsenodeids": np.where(is_leaf, 0, left + 1).tolist(),
        "nodes_missing_value_tracks_true": [0] * len(tree),
        "target_treeids": tree[is_leaf].tolist(),
        "target_nodeids": node[is_leaf].tolist(),
        "target_ids": ensemble.output[tree[is_leaf]].tolist(),
        "target_weights": ensemble.value[is_leaf].tolist(),
    }


def _nothing() -> Ensemble:
    """One leaf that adds nothing: the operator must have a tree."""
    return Ensemble(
        nodes=np.ones(1, np.int32),
        output=np.zeros(1, np.int32),
        feature=np.full(1, LEAF, np.int32),
        value=np.zeros(1, np.float32),
    )
