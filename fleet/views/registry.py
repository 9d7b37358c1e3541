"""Model versions, releases and jobs as rows and lines."""

from collections.abc import Mapping, Sequence
from typing import Any

from fleet import formats
from fleet.views.campaigns import state_badge
from fleet.views.table import NOTHING, Cell, Row, Table, Tone
from shared.api.jobs import Job
from shared.api.models import ModelVersion
from shared.api.releases import Release, ReleaseStage
from shared.lifecycles import JobState, VersionStage

MODEL_COLUMNS = ("model version", "task", "stage", "validation", "unseen", "weights", "comes from", "created")
RELEASE_COLUMNS = ("release", "task", "stage", "int8 accuracy", "fp32 accuracy", "model size", "smaller", "created")

_VERSION = {VersionStage.CANDIDATE: Tone.BUSY, VersionStage.APPROVED: Tone.GOOD, VersionStage.RETIRED: Tone.MUTED}


def model_table(models: Sequence[ModelVersion], *, now: float) -> Table:
    """One row for each model version, in the order given."""
    return Table.of(MODEL_COLUMNS, (_model_row(model, now=now) for model in models))


def _model_row(model: ModelVersion, *, now: float) -> Row:
    return Row(
        model.model_version_id,
        (
            Cell(model.model_version_id, Tone.STRONG),
            Cell(f"{model.task} {model.task_version}"),
            Cell(model.stage.value, _VERSION[model.stage]),
            Cell(formats.percent(model.metrics.get("validation_accuracy")), Tone.ACCENT),
            Cell(formats.percent(model.metrics.get("unseen_accuracy"))),
            Cell(formats.size(model.weights.size_bytes), Tone.MUTED, order=model.weights.size_bytes),
            _origin(model),
            Cell(formats.ago(model.created_at, now=now), order=-model.created_at),
        ),
    )


def _origin(model: ModelVersion) -> Cell:
    if campaign_id := model.lineage.get("campaign_id"):
        return Cell(f"campaign {formats.short(str(campaign_id))}", Tone.MUTED)
    if job_id := model.lineage.get("job_id"):
        return Cell(f"training {formats.short(str(job_id))}", Tone.MUTED)
    return NOTHING


def model_facts(model: ModelVersion, *, now: float) -> list[tuple[str, Cell]]:
    """One model version as name and value."""
    return [
        ("model version", Cell(model.model_version_id, Tone.STRONG)),
        ("task", Cell(f"{model.task} {model.task_version}")),
        ("stage", Cell(model.stage.value, _VERSION[model.stage])),
        ("weights", Cell(f"{formats.size(model.weights.size_bytes)}, sha256 {model.weights.digest}")),
        ("created", Cell(formats.ago(model.created_at, now=now))),
        *_mapping(model.metrics, prefix="metric"),
        *_mapping(model.lineage, prefix="lineage"),
    ]


def stage_badge(stage: ReleaseStage) -> Cell:
    if stage is ReleaseStage.PUBLISHED:
        return Cell("✓ published", Tone.GOOD)
    return Cell("○ draft", Tone.BUSY)


def release_table(releases: Sequence[Release], *, now: float) -> Table:
    """One row for each release, in the order given."""
    return Table.of(RELEASE_COLUMNS, (_release_row(release, now=now) for release in releases))


def _release_row(release: Release, *, now: float) -> Row:
    metrics = release.manifest.metrics
    int8, fp32 = metrics.get("int8_bytes"), metrics.get("fp32_bytes")
    return Row(
        release.release_id,
        (
            Cell(release.release_id, Tone.STRONG),
            Cell(release.task),
            stage_badge(release.stage),
            Cell(formats.percent(metrics.get("int8_validation_accuracy")), Tone.ACCENT),
            Cell(formats.percent(metrics.get("fp32_validation_accuracy")), Tone.MUTED),
            Cell(formats.size(int8), order=int8) if int8 else NOTHING,
            Cell(f"{fp32 / int8:.1f}×", order=fp32 / int8) if int8 and fp32 else NOTHING,
            Cell(formats.ago(release.created_at, now=now), order=-release.created_at),
        ),
    )


def release_facts(release: Release, *, now: float) -> list[tuple[str, Cell]]:
    """One release as name and value, its files and where it comes from included."""
    manifest = release.manifest
    published = formats.ago(release.published_at, now=now) if release.published_at else "not yet"
    files = [
        (f"file {name}", Cell(f"{formats.size(file.size_bytes)}, sha256 {file.digest}"))
        for name, file in sorted(manifest.files.items())
    ]
    return [
        ("release", Cell(release.release_id, Tone.STRONG)),
        ("task", Cell(f"{manifest.task} {manifest.task_version}")),
        ("stage", stage_badge(release.stage)),
        ("model version", Cell(release.model_version_id)),
        ("opset", Cell(str(manifest.opset))),
        ("classes", Cell(", ".join(manifest.classes))),
        ("created", Cell(formats.ago(release.created_at, now=now))),
        ("published", Cell(published)),
        *files,
        *_mapping(manifest.metrics, prefix="metric"),
        *_mapping(manifest.lineage, prefix="lineage"),
    ]


def job_headline(job: Job, *, now: float) -> list[Cell]:
    """One line: kind, state, step, share done, age."""
    fraction = job_fraction(job)
    cells = [Cell(job.kind.replace("_", " "), Tone.STRONG), state_badge(job.state)]
    if job.state is JobState.RUNNING:
        cells += [Cell(formats.bar(fraction, width=10), Tone.BUSY), Cell(str(job.progress.get("step", "")))]
    if job.error:
        cells.append(Cell(job.error, Tone.BAD))
    return [*cells, Cell(formats.ago(job.created_at, now=now), Tone.MUTED)]


def job_fraction(job: Job) -> float:
    """How much of it is done, 0 to 1, as far as the job says."""
    fraction = job.progress.get("fraction", 0.0)
    return min(1.0, max(0.0, float(fraction))) if isinstance(fraction, int | float) else 0.0


def _mapping(values: Mapping[str, Any], *, prefix: str) -> list[tuple[str, Cell]]:
    # `Any`: JSON.
    rows: list[tuple[str, Cell]] = []
    for name, value in sorted(values.items()):
        label = f"{prefix} {name}"
        rows += _mapping(value, prefix=label) if isinstance(value, Mapping) and value else [(label, _cell(name, value))]
    return rows


def _cell(name: str, value: Any) -> Cell:
    is_size = name.endswith("_bytes") and isinstance(value, int | float)
    return Cell(formats.size(value) if is_size else _value(value))


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text if len(text) <= 200 else f"{text[:199]}…"
