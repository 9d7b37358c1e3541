"""Trees become a release like any other model: the same gates, the same file, and a device that checks it."""

from dataclasses import replace
from pathlib import Path

from cloud.packaging.job import run
from cloud.releases.service import get_release
from cloud.training.trees import train_trees
from edge_agent.releases.compatibility import Runtime, check_manifest
from edge_agent.serving.opset import opset_max
from edge_agent.serving.session import self_test
from shared.manifests import MODEL_FILE
from shared.tasks.physio.trees import TASK, PhysioTreesTask
from tests.cloud.packaging.conftest import Workshop


class _TwoSteps(PhysioTreesTask):
    central_training = replace(PhysioTreesTask.central_training, epochs=2)


def test_a_device_accepts_trees_that_were_packaged(workshop: Workshop, tmp_path: Path) -> None:
    trained = train_trees(_TwoSteps(), boosting=TASK.boosting, seed=0, checkpoint_dir=tmp_path / "training")
    version = workshop.model("physio_trees", trained.tensors)

    result = run(workshop.job("job-0001", version), {"model_version_id": version})

    with workshop.sessions() as session, session.begin():
        release = get_release(session, str(result["release_id"]))
    metrics = release.manifest.metrics
    assert metrics["parity_max_difference"] < 1e-6
    # Nothing in trees multiplies: what is called int8 is the same file.
    assert metrics["int8_bytes"] == metrics["fp32_bytes"]
    assert metrics["int8_validation_accuracy"] == metrics["fp32_validation_accuracy"]
    assert metrics["fp32_validation_accuracy"] == trained.metrics["validation_accuracy"]
    check_manifest(release.manifest, release_id=release.release_id, runtime=Runtime(opset_max=opset_max()))
    folder = tmp_path / "unpacked"
    folder.mkdir()
    for name, ref in release.manifest.files.items():
        (folder / name).write_bytes(workshop.blobs.get(ref.digest))
    assert (folder / MODEL_FILE).stat().st_size == metrics["fp32_bytes"]
    self_test(folder, release.manifest)
