"""Work for a device: a durable row in the coordinator, fetched over HTTPS after a doorbell on the hub.

The doorbell is the command `work`, answered at once with 200. A device that was away finds the same work when it next
asks. A piece of work may be fetched twice; the device remembers what it has finished and sends the same result again.
"""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from shared.analytics.query import Query
from shared.ids import Digest
from shared.messages.base import Message, ObjectRef
from shared.privacy import PrivacySpec, UserPrivacySpec
from shared.secagg.messages import Terms

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
    AGGREGATE = "aggregate"
    """A later step of secure aggregation; `model` is the server's message."""
    ANALYZE = "analyze"
    """Answer `query`; `model` is a vector of as many zeros as the answer has numbers."""


class SecureStep(StrEnum):
    """What a device answers in a round of secure aggregation, in order; the first together with its training."""

    ADVERTISE = "advertise"
    SHARE = "share"
    MASK = "mask"
    AGREE = "agree"
    RELEASE = "release"


class SecureWork(BaseModel):
    """What a device must know of a round of secure aggregation (`shared.secagg`)."""

    model_config = ConfigDict(frozen=True)

    step: SecureStep
    terms: Terms
    training: str = Field(min_length=1, max_length=64)
    """The work whose update is meant."""
    clients_max: int = Field(ge=3)
    value_max: float = Field(gt=0)
    """Of one number of an update: with `clients_max` it makes the fixed-point format."""


class FlowerWork(Message):
    """A message of somebody's Flower app: `model` holds its records (`shared.flower_records`)."""

    app: str = Field(min_length=1, max_length=200)
    """Publisher and project."""
    version: str = Field(max_length=100)
    digest: Digest = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the app's files (`shared.flower_apps`): the device runs no other."""
    message_type: str = Field(max_length=100)
    """Flower's: `train`, `evaluate`, `query`, or one of these with an action, `train.warm_up`."""
    group: str = ""
    """Flower's group id."""
    run_id: int = Field(ge=0, lt=2**64)
    node_id: int = Field(ge=0, lt=2**64)
    run_config: dict[str, bool | int | float | str] = Field(default_factory=dict)


class UserWork(BaseModel):
    """What a device must know to hide itself, with all its data, in the sum of a round's updates."""

    model_config = ConfigDict(frozen=True)

    spec: UserPrivacySpec
    clip_norm: float = Field(gt=0)
    """Bound of this round's updates."""


class Work(Message):
    """One instruction: train or evaluate this model on your own data, or answer a question about them."""

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
    user_privacy: UserWork | None = None
    """How the whole update is clipped; a device of before this field is clipped by the coordinator alone."""
    compression: str = Field(default="", max_length=80)
    """How the update shall be sent, in words (`shared.compression.settings`); a device that does not know it sends the
    update in full, as one of before this field does."""
    secure: SecureWork | None = None
    """How the update is aggregated so that the server sees the sum alone; nothing: it is sent as it is."""
    flower: FlowerWork | None = None
    """Work of a Flower app that is none of ours; its answer's records are the update."""
    query: Query | None = None
    """What is asked, of an analysis."""
    deadline_s: float = Field(gt=0)
    """Seconds from fetching until the round no longer waits."""


class AttachedModel(Message):
    """What came behind a list of work, for the model that its oldest work needs."""

    model: ObjectRef
    base: Digest | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """The object to which the bytes are the difference; None: they are the model itself."""


class WorkList(Message):
    """All work that waits for one device, oldest first."""

    work: list[Work] = Field(default_factory=list)
    attached: AttachedModel | None = None
    """Only in an answer with an object behind it (`shared.messages.attached`)."""
