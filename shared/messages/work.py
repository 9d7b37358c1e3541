"""Work for a device: a durable row in the coordinator, fetched over HTTPS after a doorbell on the hub.

The doorbell is the command `work`, answered at once with 200. A device that was away finds the same work when it next
asks. A piece of work may be fetched twice; the device remembers what it has finished and sends the same result again.
"""

from enum import StrEnum

from pydantic import Field

from shared.messages.base import Message, ObjectRef
from shared.privacy import PrivacySpec

DOORBELL = "work"
"""Name of the command that says: there is work, fetch it."""
STRATEGY = "strategy"
"""Configuration: the strategy as JSON (`shared.strategies`), where clients must know it."""
BESIDE = "beside"
"""Flower's ArrayRecord of vectors beside the model (`Rule.sent`) or beside the update."""
AFTER_WORK = "after-work"
"""Configuration: the device's newest work whose update is in the model. What the device kept then is what it goes on
with; what it kept of work that never counted (too late, abandoned) is void."""


class WorkKind(StrEnum):
    TRAIN = "train"
    EVALUATE = "evaluate"


class Work(Message):
    """One instruction: train or evaluate this model on your own data."""

    work_id: str = Field(min_length=1, max_length=64)
    kind: WorkKind
    campaign_id: str
    round: int = Field(ge=0)
    task: str
    task_version: str
    model: ObjectRef
    """Tensors of the model's state dict, as safetensors; vectors beside them are `shared.beside`'s."""
    config: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Flower's ConfigRecord: `steps`, `learning-rate`, `server-round`, `seed` ..."""
    privacy: PrivacySpec | None = None
    compression: str = Field(default="", max_length=80)
    """How the update shall be sent, in words (`shared.compression.settings`); a device that does not know it sends the
    update in full, as one of before this field does."""
    deadline_s: float = Field(gt=0)
    """Seconds from fetching until the round no longer waits."""


class WorkList(Message):
    """All work that waits for one device, oldest first."""

    work: list[Work] = Field(default_factory=list)
