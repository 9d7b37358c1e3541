"""Federated analytics: questions about one feature over the fleet, and their answers."""

from typing import Annotated

from pydantic import Field, field_validator

from shared.analytics.query import Query
from shared.api.base import Shape
from shared.api.campaigns import DevicePrivacy, PrivacyBudget, Round, SecureAggregation, SelectionRules
from shared.lifecycles import JobState
from shared.privacy import PrivacySpec

QuantileOf = Annotated[float, Field(gt=0, lt=1)]


class AnalysisCreate(Shape):
    """Asks the fleet once."""

    task: str
    query: Query
    quantiles: list[QuantileOf] = Field(default_factory=lambda: [0.25, 0.5, 0.75], max_length=100)
    privacy: PrivacyBudget | None = None
    """What the answer may cost what the query protects, on each device; None: without noise, which devices whose owner
    wants a ledger kept refuse."""
    secure: SecureAggregation | None = None
    """None lets the coordinator see each device's sums. With it, devices share the noise that one sum needs."""
    devices: list[str] = Field(default_factory=list)
    """Only these; empty means every device that has the task."""
    selection: SelectionRules = Field(default_factory=SelectionRules)
    quorum: int = Field(default=3, ge=1)
    """Fewest devices whose answers are told together; with fewer there is no answer."""
    timeout_s: float = Field(default=120, gt=0)
    """How long devices are waited for."""

    @field_validator("quantiles")
    @classmethod
    def _in_order(cls, value: list[float]) -> list[float]:
        return sorted(set(value))


class Estimate(Shape):
    """A figure, and the standard deviation that noise gives it."""

    value: float
    error: float = 0.0


class Bin(Shape):
    """One bar. Noise can make a count negative, and no rounding hides that."""

    low: float
    high: float
    count: float
    error: float = 0.0


class Quantile(Shape):
    """Where so much of the distribution is below, with the interval that noise leaves, 95 times in 100."""

    q: float
    value: float
    low: float
    high: float


class Findings(Shape):
    """The answer. Errors are of the noise alone."""

    devices: int
    """How many devices' sums are in it."""
    count: Estimate
    """Of examples, each counting as much as the query lets it."""
    mean: Estimate | None = None
    """None where it was not asked, or the count cannot be told from 0."""
    variance: Estimate | None = None
    histogram: list[Bin] = Field(default_factory=list)
    quantiles: list[Quantile] = Field(default_factory=list)


class Analysis(Shape):
    """One question to the fleet and what became of it."""

    analysis_id: str
    task: str
    state: JobState
    error: str = ""
    query: Query
    unit: str = ""
    """What the task calls its unit of privacy."""
    privacy: PrivacySpec | None = None
    """Planned: `noise_multiplier` times `max_grad_norm`, the query's sensitivity, is the noise on one sum."""
    privacy_spent: list[DevicePrivacy] = Field(default_factory=list)
    """What it may have cost each device so far."""
    secure: SecureAggregation | None = None
    findings: Findings | None = None
    created_at: float
    finished_at: float | None = None
    history: list[Round] = Field(default_factory=list)
    """The tries; empty in lists."""
