"""What a fleet did, as a trace that simulations replay: when devices were there, and what each piece of work cost.

The same rows, in these columns, are the file that `fleetlearn campaigns trace` writes: docs/reference/traces.md.
"""

from enum import StrEnum

from pydantic import Field

from shared.api.base import Shape


class TraceKind(StrEnum):
    ONLINE = "online"
    """The device was there from `start_s` to `end_s`."""
    WORK = "work"
    """It was asked at `start_s`, had the work at `fetched_s`, and its answer came at `end_s`."""


class TraceRow(Shape):
    """One observation; times in seconds from the trace's first, by the coordinator's clock."""

    client: str
    kind: TraceKind
    start_s: float = Field(ge=0)
    fetched_s: float | None = Field(default=None, ge=0)
    """Empty: it never fetched the work."""
    end_s: float | None = Field(default=None, ge=0)
    """Empty: it never answered."""
    train_s: float = Field(default=0, ge=0)
    """How long it trained, by its own monotonic clock."""
    examples: int = Field(default=0, ge=0)
    bytes_down: int = Field(default=0, ge=0)
    bytes_up: int = Field(default=0, ge=0)
    outcome: str = ""
    """Of work: `done`, `refused`, `failed`, `expired`; expired work may have an answer that came late."""


class Trace(Shape):
    """What was observed; `started_at` is the first observation, in seconds since the epoch."""

    started_at: float
    rows: list[TraceRow]
