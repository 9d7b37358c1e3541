"""Everything the overview shows, as one value, and how to fetch it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from fleet import calls
from fleet.calls import Call
from shared.api.alerts import Alert, ServingWindow
from shared.api.campaigns import Campaign
from shared.api.devices import Device
from shared.api.jobs import Job
from shared.api.privacy import PrivacyAccount
from shared.api.rollouts import Rollout
from shared.lifecycles import JobState, RolloutState

AnswerT = TypeVar("AnswerT")

_ROLLOUT_OPEN = frozenset({RolloutState.PLANNED, RolloutState.RUNNING, RolloutState.HALTED})


class SendsCalls(Protocol):
    """What sends a call: an AsyncCoordinatorClient."""

    async def send(self, call: Call[AnswerT]) -> AnswerT: ...


@dataclass(frozen=True, kw_only=True)
class FleetState:
    """The fleet as the coordinator told it in one look."""

    devices: list[Device] = field(default_factory=list)
    campaign: Campaign | None = None
    """The one to watch, with its rounds."""
    rollout: Rollout | None = None
    """The one to watch, with its waves."""
    alerts: list[Alert] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class DeviceState:
    """One device and what it served lately."""

    device: Device
    windows: list[ServingWindow] = field(default_factory=list)
    """Oldest first."""
    accounts: list[PrivacyAccount] = field(default_factory=list)
    """What its privacy was spent on."""


async def fetch_fleet(client: SendsCalls) -> FleetState:
    """One look at the fleet: the lists at once, then the campaign and the rollout to watch. Raises `fleet.errors`."""
    devices, campaigns, rollouts, alerts, jobs = await asyncio.gather(
        client.send(calls.devices()),
        client.send(calls.campaigns(limit=20)),
        client.send(calls.rollouts(limit=20)),
        client.send(calls.alerts(limit=100)),
        client.send(calls.jobs(limit=5)),
    )
    return FleetState(
        devices=sorted(devices, key=lambda device: device.device_id),
        campaign=await _with_rounds(client, campaign_to_watch(campaigns)),
        rollout=await _with_waves(client, rollout_to_watch(rollouts)),
        alerts=alerts,
        jobs=jobs,
    )


async def _with_rounds(client: SendsCalls, listed: Campaign | None) -> Campaign | None:
    if listed is None:
        return None
    return await client.send(calls.campaign(listed.campaign_id))


async def _with_waves(client: SendsCalls, listed: Rollout | None) -> Rollout | None:
    if listed is None:
        return None
    return await client.send(calls.rollout(listed.rollout_id))


async def fetch_device(client: SendsCalls, device_id: str) -> DeviceState:
    """One look at one device. Raises `fleet.errors`."""
    device, windows, accounts = await asyncio.gather(
        client.send(calls.device(device_id)),
        client.send(calls.serving_windows(device_id)),
        client.send(calls.privacy(device_id=device_id)),
    )
    served = sorted(windows, key=lambda window: window.received_at)
    return DeviceState(device=device, windows=served, accounts=accounts)


def campaign_to_watch(campaigns: Sequence[Campaign]) -> Campaign | None:
    """The newest that runs, otherwise the newest."""
    running = [campaign for campaign in campaigns if campaign.state is JobState.RUNNING]
    return max(running or campaigns, key=lambda campaign: campaign.created_at, default=None)


def rollout_to_watch(rollouts: Sequence[Rollout]) -> Rollout | None:
    """The newest that is not over, otherwise the newest."""
    still_open = [rollout for rollout in rollouts if rollout.state in _ROLLOUT_OPEN]
    return max(still_open or rollouts, key=lambda rollout: rollout.created_at, default=None)
