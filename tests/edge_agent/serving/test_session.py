"""Models that load and pass their self-test, and those that must not."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_agent.releases.errors import SelfTestFailedError
from edge_agent.serving.opset import OPSET_LAST, identity_model, opset_max
from edge_agent.serving.session import load, open_model, self_test
from shared.manifests import MODEL_FILE, PROFILE_FILE, SAMPLES_FILE
from shared.tensors import encode
from tests.edge_agent.support import images, weights, write_model, write_release


def test_a_sound_release_passes_and_gives_the_models_outputs(tmp_path: Path) -> None:
    manifest = write_release(tmp_path)
    self_test(tmp_path, manifest)
    inputs = images(3)
    np.testing.assert_allclose(load(tmp_path, manifest).model.run(inputs), inputs @ weights(), rtol=1e-5)


def test_another_model_than_the_samples_were_made_with_fails(tmp_path: Path) -> None:
    manifest = write_release(tmp_path)
    write_model(tmp_path / MODEL_FILE, seed=9)
    with pytest.raises(SelfTestFailedError, match=r"within 0\.001"):
        self_test(tmp_path, manifest)


def test_recorded_outputs_that_are_not_numbers_fail(tmp_path: Path) -> None:
    manifest = write_release(tmp_path)
    outputs = np.full((8, 10), np.nan, np.float32)
    (tmp_path / SAMPLES_FILE).write_bytes(encode({"inputs": images(8), "outputs": outputs}))
    with pytest.raises(SelfTestFailedError):
        self_test(tmp_path, manifest)


@pytest.mark.parametrize("name", [MODEL_FILE, SAMPLES_FILE])
def test_damaged_and_missing_files_fail_with_a_sentence(tmp_path: Path, name: str) -> None:
    manifest = write_release(tmp_path)
    (tmp_path / name).write_bytes(b"not this")
    with pytest.raises(SelfTestFailedError, match="Expected"):
        self_test(tmp_path, manifest)
    (tmp_path / name).unlink()
    with pytest.raises(SelfTestFailedError, match="Expected"):
        self_test(tmp_path, manifest)


def test_a_damaged_profile_is_found_before_serving(tmp_path: Path) -> None:
    manifest = write_release(tmp_path)
    (tmp_path / PROFILE_FILE).write_bytes(b"{}")
    with pytest.raises(SelfTestFailedError, match="profile"):
        load(tmp_path, manifest)


def test_a_model_with_other_names_than_the_manifest_is_refused(tmp_path: Path) -> None:
    manifest = write_release(tmp_path)
    renamed = [manifest.inputs[0].model_copy(update={"name": "other"})]
    with pytest.raises(SelfTestFailedError, match="other"):
        open_model(tmp_path / MODEL_FILE, manifest.model_copy(update={"inputs": renamed}))


def test_the_runtime_says_which_opset_it_knows() -> None:
    assert 21 <= opset_max() < OPSET_LAST


def test_the_handwritten_model_is_a_sound_one() -> None:
    model = onnx.load_from_string(identity_model(21))
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == 21
