"""The packaging job end to end on a trained model: what comes out is what a device checks."""

from pathlib import Path

import numpy as np
import pytest

from cloud.jobs.context import JobCancelledError
from cloud.packaging.errors import AccuracyLossError, ExportFailedError, ParityError
from cloud.packaging.job import SELF_TEST_TOLERANCE, run
from cloud.releases.service import get_release, list_releases
from edge_agent.releases.compatibility import Runtime, check_manifest
from edge_agent.releases.errors import SelfTestFailedError
from edge_agent.serving.opset import opset_max
from edge_agent.serving.session import self_test
from shared.api.releases import Release, ReleaseStage
from shared.manifests import MODEL_FILE, PROFILE_FILE, SAMPLES_FILE
from shared.sketches import DriftProfile
from shared.tasks.registry import load_task
from shared.tasks.task import Role
from shared.tensors import Tensors, decode, encode
from tests.cloud.packaging.conftest import NOW, Workshop

_NAMES = ("0.weight", "0.bias", "2.weight", "2.bias")


@pytest.fixture
def release(workshop: Workshop, digits_tensors: Tensors) -> Release:
    result = run(
        workshop.job("job-0001", version := workshop.model("digits", digits_tensors)), {"model_version_id": version}
    )
    with workshop.sessions() as session, session.begin():
        return get_release(session, str(result["release_id"]))


def test_a_draft_says_where_it_came_from_and_how_good_it_is(workshop: Workshop, release: Release) -> None:
    assert release.stage is ReleaseStage.DRAFT
    assert release.release_id == "digits-job0001"
    manifest = release.manifest
    assert manifest.created_at == NOW
    assert manifest.lineage["model"] == {"campaign_id": "campaign-1", "epsilon": 8.0}
    assert manifest.lineage["model_version_id"] == "version-of-digits"
    assert set(manifest.lineage["tools"]) == {"torch", "onnx", "onnxscript", "onnxruntime"}
    metrics = manifest.metrics
    assert metrics["fp32_validation_accuracy"] > 0.7
    assert abs(metrics["fp32_validation_accuracy"] - metrics["int8_validation_accuracy"]) <= 0.05
    assert 0.5 < metrics["int8_unseen_accuracy"] <= 1
    assert metrics["int8_bytes"] < metrics["fp32_bytes"]
    assert metrics["parity_max_difference"] < 1e-4
    assert workshop.steps[0] == "Loading data"
    assert "Quantizing to int8" in workshop.steps


def test_a_device_accepts_what_was_packaged(workshop: Workshop, release: Release, tmp_path: Path) -> None:
    check_manifest(release.manifest, release_id=release.release_id, runtime=Runtime(opset_max=opset_max()))
    folder = _unpacked(workshop, release, tmp_path / "unpacked")
    self_test(folder, release.manifest)
    profile = DriftProfile.parse((folder / PROFILE_FILE).read_bytes())
    assert tuple(feature.feature for feature in profile.features) == load_task("digits").schema.features


def test_a_device_sees_that_the_model_is_another(workshop: Workshop, release: Release, tmp_path: Path) -> None:
    folder = _unpacked(workshop, release, tmp_path / "unpacked")
    samples = decode((folder / SAMPLES_FILE).read_bytes())
    wrong = {**samples, "outputs": np.roll(np.asarray(samples["outputs"]), 1, axis=1)}
    (folder / SAMPLES_FILE).write_bytes(encode(wrong))
    with pytest.raises(SelfTestFailedError, match=f"Expected outputs within {SELF_TEST_TOLERANCE:g}"):
        self_test(folder, release.manifest)


def test_samples_are_public_ones(workshop: Workshop, release: Release) -> None:
    samples = decode(workshop.blobs.get(release.manifest.files[SAMPLES_FILE].digest))
    public = {row.tobytes() for row in load_task("digits").central_data(Role.PUBLIC).inputs}
    assert len(samples["inputs"]) == 48
    assert all(row.tobytes() in public for row in samples["inputs"])


def test_running_a_job_again_drafts_nothing_twice(workshop: Workshop, digits_tensors: Tensors) -> None:
    version = workshop.model("digits", digits_tensors)
    context = workshop.job("job-0001", version)
    first = run(context, {"model_version_id": version})
    assert run(context, {"model_version_id": version}) == first
    other = run(workshop.job("job-0002", version), {"model_version_id": version})
    assert other["release_id"] != first["release_id"]
    with workshop.sessions() as session, session.begin():
        two, one = list_releases(session, limit=10)
    assert one.manifest.files == two.manifest.files, "equal weights give equal files"


def test_no_path_of_this_machine_travels_in_the_model(workshop: Workshop, release: Release) -> None:
    model = workshop.blobs.get(release.manifest.files[MODEL_FILE].digest)
    assert b"site-packages" not in model
    assert b"forward" not in model
    assert str(Path.cwd()).encode() not in model


def test_a_model_that_loses_too_much_is_refused_with_the_figures(workshop: Workshop, digits_tensors: Tensors) -> None:
    """A hidden unit at 1000 beside others at 1: in fp32 a constant that is taken off again, in int8 all the range."""
    version = workshop.model("digits", _hard_to_quantize(digits_tensors))
    with pytest.raises(AccuracyLossError, match=r"got fp32 0\.\d+, int8 0\.\d+") as caught:
        run(workshop.job("job-0001", version), {"model_version_id": version})
    assert caught.value.fp32_accuracy > caught.value.int8_accuracy + 0.02
    with workshop.sessions() as session, session.begin():
        assert list_releases(session, limit=10) == []


def test_an_export_that_computes_something_else_is_refused(
    workshop: Workshop, digits_tensors: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that behaves differently when it is traced."""
    import torch

    real = torch.nn.functional.linear

    def differs(*arguments: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = real(*arguments)
        return output + 1 if torch.compiler.is_compiling() else output

    monkeypatch.setattr(torch.nn.functional, "linear", differs)
    version = workshop.model("digits", digits_tensors)
    with pytest.raises(ParityError, match=r"Expected fp32 ONNX outputs within 0\.0001 of torch's, got"):
        run(workshop.job("job-0001", version), {"model_version_id": version})


def test_a_model_that_does_not_export_is_refused_in_one_sentence(
    workshop: Workshop, digits_tensors: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def decides_by_value(*arguments: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("this layer looks at its values")

    monkeypatch.setattr(torch.nn.functional, "linear", decides_by_value)
    version = workshop.model("digits", digits_tensors)
    with pytest.raises(ExportFailedError, match="Expected task 'digits' to export to ONNX"):
        run(workshop.job("job-0001", version), {"model_version_id": version})


def test_a_cancelled_job_stops_before_it_drafts(workshop: Workshop, digits_tensors: Tensors) -> None:
    def cancelled() -> None:
        raise JobCancelledError

    workshop.check_cancelled = cancelled
    version = workshop.model("digits", digits_tensors)
    with pytest.raises(JobCancelledError):
        run(workshop.job("job-0001", version), {"model_version_id": version})
    assert workshop.steps[-1] == "Exporting to ONNX"


def _unpacked(workshop: Workshop, release: Release, folder: Path) -> Path:
    folder.mkdir()
    for name, ref in release.manifest.files.items():
        (folder / name).write_bytes(workshop.blobs.get(ref.digest))
    return folder


def _hard_to_quantize(tensors: Tensors) -> Tensors:
    hidden, bias, head, head_bias = (np.array(tensors[name], np.float32) for name in _NAMES)
    hidden[0], bias[0], head[:, 0] = 0.0, 1000.0, 1.0
    return dict(zip(_NAMES, (hidden, bias, head, head_bias - np.float32(1000)), strict=True))
