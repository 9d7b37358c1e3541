"""Events, which go up: one envelope, and one body for each kind.

An event may arrive twice and out of order; `id` tells a repetition, `boot_id` and `sequence` tell the order. Whoever
sent it is what the hub authenticated; `device_id` in the envelope must agree, or the event is rejected.
"""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from shared.lifecycles import ReleaseState
from shared.messages.base import Message, ObjectRef
from shared.privacy import PrivacyLimits, PrivacySpent

PROTOCOL_VERSION = 1
NUMBER_MAX = 2**53
"""Greatest generation or sequence: what JSON carries exactly and a database column holds."""
PRINTABLE = r"^[\x20-\x7e]*$"
"""Ids are ASCII without control characters: they are stored and logged as they came."""


class EventKind(StrEnum):
    HEARTBEAT = "heartbeat"
    RELEASE_STATUS = "release_status"
    WORK_RESULT = "work_result"
    SERVING_REPORT = "serving_report"


class Envelope(Message):
    """What every event starts with; `body` is parsed by kind, so an unknown kind is kept and counted, not an error."""

    version: int = PROTOCOL_VERSION
    kind: str
    id: str = Field(min_length=1, max_length=64, pattern=PRINTABLE)
    """UUID version 7."""
    device_id: str
    boot_id: str = Field(max_length=64, pattern=PRINTABLE)
    """New with each start of the agent."""
    sequence: int = Field(ge=0, le=NUMBER_MAX)
    """Grows by one with each event of a boot."""
    body: dict[str, Any] = Field(default_factory=dict)
    """`Any`: typed by the body's own model once the kind is known."""


LEDGER_ENTRIES_SHOWN = 8
"""Of a ledger's past, with its head: more than one piece of work writes."""
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class LedgerHead(Message):
    """The newest entry of a device's privacy ledger: the coordinator remembers it, and finds a copy put back by it."""

    entries: int = Field(ge=0, le=NUMBER_MAX)
    digest: _Digest
    """Of the newest entry; it covers all before it."""
    before: list[_Digest] = Field(default_factory=list, max_length=LEDGER_ENTRIES_SHOWN)
    """Digests of the entries before it, the newest first."""


class LiveState(Message):
    """How the device is at this moment, as far as its system says; None: it does not."""

    battery: float | None = Field(default=None, ge=0, le=1)
    """Charge of its battery; None without one."""
    is_charging: bool | None = None
    """Whether it runs on external power; None without a battery."""
    network: str = Field(default="", max_length=20, pattern=PRINTABLE)
    """What the default route goes over: `ethernet`, `wifi`, `cellular`, or nothing."""
    temperature_c: float | None = Field(default=None, ge=-100, le=250)
    """Of the hottest thermal zone."""
    memory_free_bytes: int | None = Field(default=None, ge=0, le=NUMBER_MAX)
    """What programs may still take without swapping."""
    data_age_s: float | None = Field(default=None, ge=0)
    """Since the device's own data last changed."""


class Heartbeat(Message):
    """The device lives; sent at intervals and after each connect."""

    agent_version: str
    protocol_version: int = PROTOCOL_VERSION
    tasks: dict[str, str] = Field(default_factory=dict)
    """Installed tasks: name to version."""
    runtime: str = ""
    """ONNX Runtime's version."""
    opset_max: int = 0
    """Newest ONNX opset that this runtime can serve."""
    memory_rss_bytes: int = Field(default=0, ge=0)
    uptime_s: float = Field(default=0, ge=0)
    serving_url: str = ""
    """Where this device's inference endpoint listens, as the device itself reaches it."""
    events_rejected: int = Field(default=0, ge=0)
    """Malformed documents and commands this agent refused since its start."""
    privacy: list[PrivacySpent] = Field(default_factory=list)
    privacy_limits: PrivacyLimits | None = None
    """None on a device without data, or where an older agent does not say."""
    codecs: list[str] = Field(default_factory=list, max_length=64)
    """What updates may be compressed with (`shared.compression.negotiation`); empty: it does not say."""
    ledger: LedgerHead | None = None
    """None on a device without data, which has no ledger."""
    live: LiveState = Field(default_factory=LiveState)


class ReleaseStatus(Message):
    """A step of a release on the device; the reported document holds the newest, this event the history."""

    release_id: str = Field(max_length=64, pattern=PRINTABLE)
    generation: int = Field(ge=0, le=NUMBER_MAX)
    state: ReleaseState
    error: str = ""
    """One clear sentence when the state is `failed`; otherwise empty."""
    active_release_id: str | None = Field(default=None, max_length=64, pattern=PRINTABLE)
    """What the device serves now, whatever became of `release_id`."""
    self_test_ms: float | None = None


class WorkStatus(StrEnum):
    DONE = "done"
    REFUSED = "refused"
    """The device would not (privacy spent, unknown task); trying again does not help."""
    FAILED = "failed"
    """The device could not (out of memory, killed); another round may try again."""


class WorkResult(Message):
    """What became of one piece of work. The update itself was uploaded before; a retry sends the same bytes."""

    work_id: str
    status: WorkStatus
    reason: str = ""
    update: ObjectRef | None = None
    model_bytes: int | None = Field(default=None, ge=0, le=NUMBER_MAX)
    """What came down for the model: less than its size where it came as a difference."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Includes `num-examples`, the weight of the update."""
    privacy: PrivacySpent | None = None
    """The account that this work was charged to, also where it was refused after that."""
    ledger: LedgerHead | None = None
    """As it was when the work had ended."""
    duration_s: float = Field(default=0, ge=0)


class FeatureDrift(Message):
    """How far one feature's recent distribution is from the release's reference profile."""

    feature: str
    psi: float = Field(ge=0)
    """Population stability index over the profile's bins."""
    threshold: float = Field(gt=0)
    """From the profile: above it the feature drifts."""


class ServingReport(Message):
    """What the inference endpoint did in one window of time. Aggregates of data: outside epsilon."""

    release_id: str
    window_s: float = Field(gt=0)
    requests: int = Field(ge=0)
    examples: int = Field(ge=0)
    errors: int = Field(ge=0)
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    predictions: dict[str, int] = Field(default_factory=dict)
    """Count of each predicted class."""
    drift: list[FeatureDrift] = Field(default_factory=list)
    """Empty until enough examples were seen; then all features."""
    drift_examples: int = Field(default=0, ge=0)
    """How many recent examples the drift figures rest on."""
