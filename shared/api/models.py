"""Model versions: weights with lineage and metrics."""

from typing import Any

from pydantic import Field

from shared.api.base import Shape
from shared.lifecycles import VersionStage
from shared.messages.base import ObjectRef


class ModelVersion(Shape):
    """An entry of the registry. Its weights are a content-addressed object (safetensors)."""

    model_version_id: str
    task: str
    task_version: str
    stage: VersionStage
    weights: ObjectRef
    metrics: dict[str, float] = Field(default_factory=dict)
    """`validation_accuracy`, `unseen_accuracy`, ... as fractions."""
    lineage: dict[str, Any] = Field(default_factory=dict)
    """`Any`: JSON. Where it came from: `parent`, `job_id` or `campaign_id`, rounds, devices, privacy, code version."""
    created_at: float
