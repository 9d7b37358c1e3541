"""What is served is what was trained: ONNX Runtime against our own sums, which are XGBoost's to the last bit."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from shared.tasks.task import Schema
from shared.trees.boosting import Boosting
from shared.trees.ensemble import LEAF, Ensemble, joined
from shared.trees.onnx_export import export_trees
from tests.shared.trees.ensembles import BINARY, SEVERAL, examples, learned


def _served(ensemble: Ensemble, boosting: Boosting, path: Path, inputs: np.ndarray) -> np.ndarray:
    classes = tuple(str(number) for number in range(boosting.classes))
    schema = Schema("figures", (boosting.features,), "logits", classes, features=())
    export_trees(ensemble, schema, path, opset=20)
    onnx.checker.check_model(onnx.load(str(path)), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (outputs,) = session.run(["logits"], {"figures": inputs})
    return np.asarray(outputs)


@pytest.mark.parametrize("boosting", [BINARY, SEVERAL], ids=["binary", "several"])
def test_onnx_runtime_serves_the_same_sums(boosting: Boosting, tmp_path: Path) -> None:
    ensemble = learned(boosting, steps=40)
    inputs = examples(boosting, seed=1).inputs
    # Every threshold itself too: what lies on it goes right, everywhere.
    on_splits = ensemble.value[ensemble.feature != LEAF]
    inputs = np.concatenate([inputs, np.repeat(on_splits[:, None], boosting.features, axis=1)])
    expected = ensemble.margins(inputs, boosting)

    found = _served(ensemble, boosting, tmp_path / "model.onnx", inputs)

    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.999


def test_a_missing_value_goes_right_wherever_it_is_asked(tmp_path: Path) -> None:
    ensemble = learned(SEVERAL)
    inputs = np.full((1, SEVERAL.features), np.nan, np.float32)
    expected = ensemble.margins(inputs, SEVERAL)
    np.testing.assert_allclose(_served(ensemble, SEVERAL, tmp_path / "m.onnx", inputs), expected, atol=1e-6)


def test_no_trees_are_zeros(tmp_path: Path) -> None:
    assert not _served(joined([]), SEVERAL, tmp_path / "m.onnx", examples(SEVERAL).inputs).any()


def test_equal_ensembles_are_equal_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        _served(learned(SEVERAL), SEVERAL, tmp_path / name, examples(SEVERAL).inputs)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
