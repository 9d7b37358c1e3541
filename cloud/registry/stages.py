"""The life of a model version, as a table."""

from collections.abc import Mapping
from enum import StrEnum

from shared.lifecycles import VersionStage


class StageEvent(StrEnum):
    APPROVE = "approve"
    RETIRE = "retire"


STAGE_TRANSITIONS: Mapping[tuple[VersionStage, StageEvent], VersionStage] = {
    (VersionStage.CANDIDATE, StageEvent.APPROVE): VersionStage.APPROVED,
    (VersionStage.CANDIDATE, StageEvent.RETIRE): VersionStage.RETIRED,
    (VersionStage.APPROVED, StageEvent.RETIRE): VersionStage.RETIRED,
}
