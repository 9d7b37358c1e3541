"""The table of devices: identity, and the read model of what each last said of itself."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, String
from sqlmodel import Field, SQLModel

from shared.lifecycles import ReleaseState


class DeviceRecord(SQLModel, table=True):
    """One device, from its enrolment on; a revoked one stays, so that its name is never used again."""

    __tablename__ = "device"

    device_id: str = Field(primary_key=True)
    tags: dict[str, str] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    enrolled_at: float = Field(index=True)
    created_by_principal: str
    created_by_role: str
    """Of the enrolment token."""

    public_key_pem: str
    """What the device signs requests with; the same key as in its certificate."""
    previous_public_key_pem: str | None = None
    """Still good after a renewal until the new key is first used: the answer with the certificate may get lost."""
    certificate_pem: str
    certificate_expires_at: float
    revoked_at: float | None = None
    is_in_hub: bool | None = None
    """Whether the hub was last told to let it in; None when the hub has to be told."""

    last_seen_at: float | None = None
    boot_id: str | None = None
    sequence: int = Field(default=0, sa_type=BigInteger)
    """Of the newest heartbeat."""
    boots_seen: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    """The last few boots, so that a straggler of an old one is told from a new one."""
    agent_version: str = ""
    protocol_version: int = 0
    tasks: dict[str, str] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    runtime: str = ""
    opset_max: int = 0
    memory_rss_bytes: int = Field(default=0, sa_type=BigInteger)
    serving_url: str = ""
    privacy: list[dict[str, Any]] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    """`Any`: JSON of `shared.privacy.PrivacySpent`."""
    privacy_limits: dict[str, Any] | None = Field(
        default=None, sa_column=Column(JSON(none_as_null=True), nullable=True)
    )
    """What its owner lets be spent, as it says. `Any`: JSON of `shared.privacy.PrivacyLimits`."""
    codecs: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    """What it can compress updates with, as it says; empty: it does not say."""
    ledger: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    """The highest head of its privacy ledger that it told of. `Any`: JSON of `cloud.devices.witness.Witnessed`."""
    ledger_problem: str = ""
    """How its ledger is not the one that it told of before: it is not asked to train."""
    live: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    """How it was at the newest heartbeat. `Any`: JSON of `shared.messages.events.LiveState`."""
    agent_rejections: int = Field(default=0, sa_type=BigInteger)
    """Malformed documents and commands that the agent refused since its start."""
    events_rejected: int = Field(default=0, sa_type=BigInteger)
    """Malformed events and results of this device, and updates that were none, that the coordinator refused."""

    release_id: str | None = None
    """What it serves."""
    release_asked_id: str | None = None
    """What it was last asked to serve, as it says."""
    release_state: ReleaseState | None = Field(default=None, sa_type=String)
    release_error: str = ""
    release_generation: int = Field(default=0, sa_type=BigInteger)
    desired_release_id: str | None = None
    desired_generation: int = Field(default=0, sa_type=BigInteger)
    drift: list[dict[str, Any]] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    """`Any`: JSON of `shared.messages.events.FeatureDrift`."""
