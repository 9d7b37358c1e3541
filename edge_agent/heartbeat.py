"""What a heartbeat says: versions, memory, where the endpoint listens, privacy spent so far, how the device is."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from shared.compression.negotiation import CODECS
from shared.messages.events import Heartbeat, LedgerHead, LiveState
from shared.privacy import PrivacyLimits, PrivacySpent


@dataclass(frozen=True)
class Inventory:
    """What does not change while the agent runs."""

    agent_version: str
    tasks: dict[str, str]
    runtime: str
    opset_max: int


def agent_version() -> str:
    return version("fleetlearn")


def heartbeat(
    inventory: Inventory,
    *,
    apps: Mapping[str, str],
    uptime_s: float,
    serving_url: str,
    events_rejected: int,
    privacy: Iterable[PrivacySpent],
    privacy_limits: PrivacyLimits | None,
    ledger: LedgerHead | None,
    live: LiveState,
) -> Heartbeat:
    """The heartbeat of this moment."""
    return Heartbeat(
        agent_version=inventory.agent_version,
        tasks={**inventory.tasks, **apps},
        runtime=inventory.runtime,
        opset_max=inventory.opset_max,
        memory_rss_bytes=memory_rss_bytes(),
        uptime_s=uptime_s,
        serving_url=serving_url,
        events_rejected=events_rejected,
        privacy=list(privacy),
        privacy_limits=privacy_limits,
        codecs=list(CODECS),
        ledger=ledger,
        live=live,
    )


def memory_rss_bytes() -> int:
    """This process' resident memory; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
