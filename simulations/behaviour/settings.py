"""How clients behave, as an experiment's file says it. Times in seconds, speeds as medians with a spread."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Always(_Settings):
    """Everybody, all the time."""

    kind: Literal["always"] = "always"


class Bernoulli(_Settings):
    """In each period each client with this chance, whatever was before."""

    kind: Literal["bernoulli"] = "bernoulli"
    chance: float = Field(gt=0, le=1)
    period_s: float = Field(default=600, gt=0)


class Diurnal(_Settings):
    """Once a day for some hours, as phones that charge at night (Bonawitz et al. 2019, arXiv:1902.01046, section 9).

    Each client starts at an hour of its own around `start_h`, and a little earlier or later each day.
    """

    kind: Literal["diurnal"] = "diurnal"
    start_h: float = Field(default=22, ge=0, lt=24)
    """Hour of the day at which the typical client comes; the run starts at 0."""
    hours: float = Field(default=8, gt=0, lt=24)
    spread_h: float = Field(default=2, ge=0)
    """Standard deviation between clients: time zones and habits."""
    jitter_h: float = Field(default=0.5, ge=0)
    """Standard deviation between the days of a client."""


class OnOff(_Settings):
    """Comes and goes: exponential times on and off (a Markov chain in continuous time)."""

    kind: Literal["on_off"] = "on_off"
    on_s: float = Field(default=3600, gt=0)
    """Mean."""
    off_s: float = Field(default=3600, gt=0)
    """Mean."""


Availability = Annotated[Always | Bernoulli | Diurnal | OnOff, Field(discriminator="kind")]


class Devices(_Settings):
    """How fast clients train."""

    seconds_per_example: float = Field(default=0.01, gt=0)
    """Median, for one pass of one example."""
    sigma: float = Field(default=0.5, ge=0)
    """Spread of its logarithm between clients."""
    jitter: float = Field(default=0.1, ge=0)
    """Spread of its logarithm between a client's rounds."""
    overhead_s: float = Field(default=1.0, ge=0)
    """Of each round: starting, loading."""
    straggler_chance: float = Field(default=0, ge=0, le=1)
    """Of a client in a round, to be `straggler_factor` times slower."""
    straggler_factor: float = Field(default=10, ge=1)


class Network(_Settings):
    """How fast bytes move; a client that is slow down is slow up."""

    down_mbit_s: float = Field(default=20, gt=0)
    up_mbit_s: float = Field(default=5, gt=0)
    sigma: float = Field(default=0.7, ge=0)
    """Spread of the logarithm of both between clients."""
    latency_s: float = Field(default=0.05, ge=0)
    """Of each of the two transfers."""


class BehaviourSettings(_Settings):
    """All of it; or a trace, which has all of it."""

    availability: Availability = Field(default_factory=Always)
    devices: Devices = Field(default_factory=Devices)
    network: Network = Field(default_factory=Network)
    dropout: float = Field(default=0, ge=0, lt=1)
    """Chance that a client that was asked is never heard of again in the round."""
    interrupted: Literal["waits", "lost"] = "waits"
    """What becomes of an update whose client went away while it trained: it comes when the client does, or never."""
    trace: Path | None = None
    """A recorded fleet to replay (`.csv`, `.parquet`); it replaces everything above but `interrupted`."""
