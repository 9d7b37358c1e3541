"""Tables of campaigns: what was asked, each try at a round, and a checkpoint after each step.

The newest checkpoint and the open round are all that a killed campaign needs to go on in the same round.
"""

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, LargeBinary, UniqueConstraint
from sqlmodel import Field, SQLModel


class CampaignRow(SQLModel, table=True):
    """A campaign as its creator asked for it; its state is its job's."""

    __tablename__ = "campaign"

    campaign_id: str = Field(primary_key=True)
    job_id: str = Field(index=True)
    task: str
    task_version: str
    strategy: str
    strategy_settings: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    """`shared.strategies`, without the name. `Any`: JSON."""
    population: int | None = None
    """Devices that may ever take part, counted when the campaign starts: some strategies' arithmetic needs it."""
    compression: str = ""
    """`shared.compression.settings`, in words; empty: updates come in full."""
    rounds: int
    quorum: int
    round_timeout_s: float
    heartbeat_s: float
    """How often devices are heard when they are well; a device unheard for three of these is not asked."""
    seed: int = Field(sa_type=BigInteger)
    devices: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    selection: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    """`shared.api.campaigns.SelectionRules`. `Any`: JSON."""
    start_model_version_id: str
    result_model_version_id: str | None = None
    privacy_budget: dict[str, Any] | None = Field(
        default=None, sa_column=Column(JSON(none_as_null=True), nullable=True)
    )
    """`shared.api.campaigns.PrivacyBudget`, as asked. `Any`: JSON."""
    privacy: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    """`shared.privacy.PrivacySpec`, planned when the campaign starts. `Any`: JSON."""
    user_privacy_asked: dict[str, Any] | None = Field(
        default=None, sa_column=Column(JSON(none_as_null=True), nullable=True)
    )
    """`shared.api.campaigns.UserPrivacy`. `Any`: JSON."""
    user_privacy: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    """`shared.privacy.UserPrivacySpec`, planned when the campaign was created. `Any`: JSON."""
    secure: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    """`shared.api.campaigns.SecureAggregation`, as asked. `Any`: JSON."""
    flower: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    """`shared.api.campaigns.FlowerRun`: the Flower app that this campaign runs, instead of a strategy of ours. Such a
    campaign has neither starting model nor checkpoints. `Any`: JSON."""
    query: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    """`shared.analytics.query.Query`: then this is an analysis, and nothing is learned. `Any`: JSON."""
    quantiles: list[float] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    """Of an analysis: which its answer has."""
    findings: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    """`shared.api.analytics.Findings`, once it is answered. `Any`: JSON."""
    waiting_since: float | None = None
    """Since when it waits for devices that other campaigns have; the one that waits longest is next."""
    created_at: float = Field(index=True)
    created_by_principal: str
    created_by_role: str


class CampaignSecretRow(SQLModel, table=True):
    """What noise and draws of the next round follow from; apart from the campaign, so that no view of it can show it.

    It changes with each round and is forgotten at the end: a database that is read later tells no past round's noise.
    """

    __tablename__ = "campaign_secret"

    campaign_id: str = Field(primary_key=True, foreign_key="campaign.campaign_id")
    secret: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class RoundRow(SQLModel, table=True):
    """One try at one round."""

    __tablename__ = "campaign_round"
    __table_args__ = (UniqueConstraint("campaign_id", "round", "attempt"),)

    round_id: int | None = Field(default=None, primary_key=True)
    campaign_id: str = Field(index=True, foreign_key="campaign.campaign_id")
    round: int
    attempt: int
    state: str
    quorum: int
    reason: str = ""
    """Why it was abandoned, one sentence."""
    started_at: float
    deadline_at: float
    finished_at: float | None = None
    accuracy: float | None = None
    loss: float | None = None
    bytes_down: int = Field(default=0, sa_type=BigInteger)
    bytes_up: int = Field(default=0, sa_type=BigInteger)
    outcomes: list[dict[str, Any]] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    """`shared.api.campaigns.DeviceOutcome`, sorted by device. `Any`: JSON."""
    work_ids: dict[str, str] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    """Device id to the id of its work."""
    fetched: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    """Devices that fetched their work: only they can have charged their ledgers."""
    model_bytes: int = Field(default=0, sa_type=BigInteger)
    """Size of the model that was sent."""
    excluded: dict[str, str] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    """Why each other device was not asked."""
    chosen: dict[str, str] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    """Why devices were asked before others, where there was a choice."""


class CheckpointRow(SQLModel, table=True):
    """The campaign after a step: round 0 is the starting model, round n the aggregated one of round n."""

    __tablename__ = "campaign_checkpoint"

    campaign_id: str = Field(primary_key=True, foreign_key="campaign.campaign_id")
    round: int = Field(primary_key=True)
    model: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    """`ObjectRef` of the weights. `Any`: JSON."""
    memory: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    """`ObjectRef` of what the strategy remembers; None when it remembers nothing. `Any`: JSON."""
    accuracy: float
    loss: float
    created_at: float
