"""The model registry: versions with weights, metrics and lineage. Knows no HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlmodel import Session, col, select

from cloud.registry.errors import UnknownModelVersionError, VersionStageError
from cloud.registry.models import ModelVersionRow
from cloud.registry.stages import STAGE_TRANSITIONS, StageEvent
from shared.api.models import ModelVersion
from shared.lifecycles import IllegalTransitionError, VersionStage, advance
from shared.messages.base import ObjectRef


@dataclass(frozen=True)
class NewVersion:
    """A model version to be."""

    origin: str
    """What made it, such as `campaign:<id>`."""
    task: str
    task_version: str
    weights: ObjectRef
    metrics: Mapping[str, float] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    """`Any`: JSON."""
    created_by_principal: str = "system"
    created_by_role: str = "service"


def register(session: Session, version: NewVersion, *, model_version_id: str, now: float) -> ModelVersion:
    """The version of this origin: a new candidate, or the one that an earlier run of the same job registered."""
    existing = session.exec(select(ModelVersionRow).where(ModelVersionRow.origin == version.origin)).first()
    if existing is not None:
        return _shape(existing)
    row = ModelVersionRow(
        model_version_id=model_version_id,
        origin=version.origin,
        task=version.task,
        task_version=version.task_version,
        stage=VersionStage.CANDIDATE.value,
        weights=version.weights.model_dump(),
        metrics=dict(version.metrics),
        lineage=dict(version.lineage),
        created_at=now,
        created_by_principal=version.created_by_principal,
        created_by_role=version.created_by_role,
    )
    session.add(row)
    session.flush()
    return _shape(row)


def get_version(session: Session, model_version_id: str) -> ModelVersion:
    """The version. Raises UnknownModelVersionError."""
    return _shape(_row(session, model_version_id))


def find_by_origin(session: Session, origin: str) -> ModelVersion | None:
    """What this origin made, if it made it already."""
    row = session.exec(select(ModelVersionRow).where(ModelVersionRow.origin == origin)).first()
    return _shape(row) if row else None


def list_versions(session: Session, *, limit: int) -> list[ModelVersion]:
    """The newest versions, newest first."""
    order = (col(ModelVersionRow.created_at).desc(), col(ModelVersionRow.model_version_id).desc())
    return [_shape(row) for row in session.exec(select(ModelVersionRow).order_by(*order).limit(limit))]


def change_stage(session: Session, model_version_id: str, event: StageEvent) -> ModelVersion:
    """The version in its next stage. Raises UnknownModelVersionError, VersionStageError."""
    row = _row(session, model_version_id)
    try:
        row.stage = advance(STAGE_TRANSITIONS, VersionStage(row.stage), event).value
    except IllegalTransitionError as error:
        raise VersionStageError(error.message) from error
    session.add(row)
    session.flush()
    return _shape(row)


def approve_candidate(session: Session, model_version_id: str) -> None:
    """Approves a candidate; a version in another stage, or none of this registry, is left alone."""
    row = session.get(ModelVersionRow, model_version_id)
    if row is not None and row.stage == VersionStage.CANDIDATE.value:
        change_stage(session, model_version_id, StageEvent.APPROVE)


def _row(session: Session, model_version_id: str) -> ModelVersionRow:
    row = session.get(ModelVersionRow, model_version_id)
    if row is None:
        raise UnknownModelVersionError(
            f"Expected a registered model version, got {model_version_id[:80]!r}",
            hint="`fleetlearn models list` shows them.",
        )
    return row


def _shape(row: ModelVersionRow) -> ModelVersion:
    return ModelVersion(
        model_version_id=row.model_version_id,
        task=row.task,
        task_version=row.task_version,
        stage=VersionStage(row.stage),
        weights=ObjectRef.model_validate(row.weights),
        metrics=row.metrics,
        lineage=row.lineage,
        created_at=row.created_at,
    )
