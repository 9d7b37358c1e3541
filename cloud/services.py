"""What the coordinator's routes and controllers work with: one frozen object, put together in `cloud/compose.py`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloud.blobs.deltas import Deltas
from cloud.blobs.store import BlobStore
from cloud.db import SessionFactory
from cloud.jobs.bell import JobBell
from cloud.settings import Settings
from shared.hub.port import FleetHub

if TYPE_CHECKING:
    from cloud.auth.nonces import Nonces
    from cloud.pki.authority import Authority
    from cloud.releases.repository import TufRepository


@dataclass(frozen=True)
class Services:
    """The outside world of this process; time and ids come from here too."""

    settings: Settings
    sessions: SessionFactory
    blobs: BlobStore
    hub: FleetHub
    authority: "Authority"
    nonces: "Nonces"
    tuf_repository: "TufRepository"
    now: Callable[[], float]
    """Seconds since the epoch."""
    new_id: Callable[[], str]
    """A fresh UUID version 7."""
    deltas: Deltas = field(default_factory=Deltas)
    bell: JobBell = field(default_factory=JobBell)
    """Rung when devices' results are stored: running campaigns wait for them."""
    health: dict[str, str] = field(default_factory=dict)
    """What each part of the process last said of itself: `ok`, or what is wrong. Controllers write, /health reads."""
