"""The job `package`: makes a draft release of a model version, if it passes the gates.

Export, parity, quantization, accuracy, drift profile, samples, manifest. Run again after a crash, it starts over (it
takes seconds) and drafts nothing twice. Equal weights, data and code give equal files, the manifest's time aside.
"""

import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from cloud.auth.operators import Principal
from cloud.jobs.context import JobContext, JsonObject
from cloud.jobs.service import get_job
from cloud.packaging.check import accuracy, check_accuracy_loss, check_finite, check_parity
from cloud.packaging.export import OnnxVersions, export_onnx, onnx_versions, trained_model
from cloud.packaging.profile import drift_profile
from cloud.packaging.quantize import calibration_examples, quantize_int8
from cloud.packaging.runtime import run_model
from cloud.registry.service import get_version
from cloud.releases.service import NewRelease, create_draft, find_by_origin
from cloud.training.job import examples_digest
from shared.api.models import ModelVersion
from shared.api.releases import Release, ReleaseCreate
from shared.manifests import MODEL_FILE, PROFILE_FILE, SAMPLES_FILE, Manifest, TensorSchema
from shared.messages.base import ObjectRef
from shared.tasks.registry import load_task
from shared.tasks.task import Examples, Role, Task
from shared.tensors import decode, encode

SAMPLES = 48
"""Public examples that travel with the release; enough to meet every class and most ranges."""
SELF_TEST_TOLERANCE = 0.05
"""Relative to the largest output. Another processor may round an activation to the neighbouring one of 256 steps, and a
few such steps add up through the layers; a wrong kernel or a damaged model is off by far more."""


@dataclass(frozen=True)
class Packaged:
    """What came through the gates, as files in the job's folder."""

    model: Path
    versions: OnnxVersions
    metrics: dict[str, float]


@dataclass(frozen=True)
class Data:
    """What the cloud knows of the task."""

    public: Examples
    validation: Examples
    unseen: Examples


def run(context: JobContext, spec: JsonObject) -> JsonObject:
    """The draft's id and metrics. `spec` is a `ReleaseCreate`. Raises PackagingError where a gate refuses."""
    asked = ReleaseCreate.model_validate(spec)
    origin = f"package:{context.job_id}"
    with context.sessions() as session, session.begin():
        done = find_by_origin(session, origin)
        source = get_version(session, asked.model_version_id)
    return _result(done or _package(context, source, origin=origin))


def _package(context: JobContext, source: ModelVersion, *, origin: str) -> Release:
    context.report_progress(fraction=0.0, step="Loading data")
    task = load_task(source.task)
    data = Data(*(task.central_data(role) for role in (Role.PUBLIC, Role.VALIDATION, Role.UNSEEN)))
    packaged = build_model(context, task, source, data)
    context.report_progress(fraction=0.8, step="Measuring drift thresholds", **packaged.metrics)
    files = {
        MODEL_FILE: context.blobs.put_file(packaged.model),
        SAMPLES_FILE: context.blobs.put(_samples(packaged.model, data.public)),
        PROFILE_FILE: context.blobs.put(_profile(task, data)),
    }
    context.check_cancelled()
    context.report_progress(fraction=0.95, step="Drafting the release", **packaged.metrics)
    manifest = _manifest(context, task, source, data, packaged=packaged, files=files)
    manifest_object = context.blobs.put(manifest.encode())
    with context.sessions() as session, session.begin():
        job = get_job(session, context.job_id)
        author = Principal(job.created_by_principal, job.created_by_role)
        return create_draft(session, NewRelease(origin, source.model_version_id, manifest, manifest_object, author))


def build_model(context: JobContext, task: Task, source: ModelVersion, data: Data) -> Packaged:
    """The int8 model, through parity and accuracy gates. Raises PackagingError."""
    context.work_dir.mkdir(parents=True, exist_ok=True)
    fp32, int8 = context.work_dir / "fp32.onnx", context.work_dir / "int8.onnx"
    context.report_progress(fraction=0.05, step="Exporting to ONNX")
    model = trained_model(task, decode(context.blobs.get(source.weights.digest)))
    export_onnx(task, model, fp32)
    parity = check_parity(model, fp32, data.validation.inputs, tolerance=task.tolerance)
    context.check_cancelled()
    context.report_progress(fraction=0.4, step="Quantizing to int8", parity_max_difference=parity)
    quantize_int8(fp32, int8, input_name=task.schema.input_name, calibration=calibration_examples(data.public.inputs))
    context.check_cancelled()
    context.report_progress(fraction=0.6, step="Measuring accuracy", parity_max_difference=parity)
    metrics = {
        "parity_max_difference": parity,
        "fp32_validation_accuracy": accuracy(fp32, data.validation),
        "int8_validation_accuracy": accuracy(int8, data.validation),
        "fp32_bytes": float(fp32.stat().st_size),
        "int8_bytes": float(int8.stat().st_size),
    }
    check_finite(metrics)
    check_accuracy_loss(
        fp32_accuracy=metrics["fp32_validation_accuracy"],
        int8_accuracy=metrics["int8_validation_accuracy"],
        tolerance=task.tolerance,
    )
    # Only after the gate, and only to be reported: nothing is chosen by unseen data.
    metrics["fp32_unseen_accuracy"] = accuracy(fp32, data.unseen)
    metrics["int8_unseen_accuracy"] = accuracy(int8, data.unseen)
    check_finite(metrics)
    return Packaged(int8, onnx_versions(int8), metrics)


def _samples(model: Path, public: Examples) -> bytes:
    """Real public examples, evenly spread, and what the packaged model answers to them."""
    rows = np.linspace(0, len(public) - 1, min(SAMPLES, len(public))).astype(np.int64)
    inputs = public.inputs[rows]
    return encode({"inputs": inputs, "outputs": run_model(model, inputs)})


def _profile(task: Task, data: Data) -> bytes:
    profile = drift_profile(
        task.schema.features,
        reference=task.features(data.public.inputs),
        unseen=task.features(data.validation.inputs),
        unseen_units=data.validation.units,
    )
    return profile.encode()


def _manifest(
    context: JobContext,
    task: Task,
    source: ModelVersion,
    data: Data,
    *,
    packaged: Packaged,
    files: dict[str, ObjectRef],
) -> Manifest:
    schema = task.schema
    return Manifest(
        release_id=_release_id(task.name, context.job_id),
        task=task.name,
        task_version=task.version,
        opset=packaged.versions.opset,
        ir_version=packaged.versions.ir_version,
        inputs=[TensorSchema(name=schema.input_name, datatype="FP32", shape=[-1, *schema.input_shape])],
        outputs=[TensorSchema(name=schema.output_name, datatype="FP32", shape=[-1, len(schema.classes)])],
        classes=list(schema.classes),
        files=files,
        self_test_tolerance=SELF_TEST_TOLERANCE,
        metrics=packaged.metrics,
        lineage=_lineage(context, source, data),
        created_at=context.now(),
    )


def _release_id(task_name: str, job_id: str) -> str:
    """A name for people; jobs have unique ids, whose last part is random."""
    readable = re.sub(r"[^a-z0-9]+", "-", task_name.lower()).strip("-")[:40]
    return f"{readable}-{job_id.replace('-', '')[-10:]}"


def _lineage(context: JobContext, source: ModelVersion, data: Data) -> dict[str, Any]:  # Any: JSON
    return {
        "model_version_id": source.model_version_id,
        "model": dict(source.lineage),
        "model_metrics": dict(source.metrics),
        "weights_digest": source.weights.digest,
        "calibration_data_digest": examples_digest(data.public),
        "gate_data_digest": examples_digest(data.validation),
        "job_id": context.job_id,
        "code_version": version("fleetlearn"),
        "tools": {name: version(name) for name in ("torch", "onnx", "onnxscript", "onnxruntime")},
    }


def _result(release: Release) -> JsonObject:
    return {"release_id": release.release_id, **release.manifest.metrics}
