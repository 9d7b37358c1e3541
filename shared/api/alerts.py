"""Alerts: what an operator should look at."""

from pydantic import Field

from shared.api.base import Shape


class Alert(Shape):
    """One finding, open until it clears by itself or an operator closes it. Repetitions raise `count`."""

    alert_id: str
    kind: str
    """`drift`, `release_failed`, `device_silent`, `malformed_events`, `ledger`."""
    severity: str
    """`warning` or `critical`."""
    device_id: str | None = None
    subject: str = ""
    """What about: a feature's name for drift, a release id for a failed release."""
    message: str
    value: float | None = None
    threshold: float | None = None
    opened_at: float
    last_seen_at: float
    closed_at: float | None = None
    count: int = 1


class ServingWindow(Shape):
    """One window of a device's inference endpoint, for plots."""

    device_id: str
    received_at: float
    release_id: str
    window_s: float
    requests: int
    examples: int
    errors: int
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    psi: dict[str, float] = Field(default_factory=dict)
    """Per feature; empty until the device had enough examples."""
