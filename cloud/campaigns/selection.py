"""Which devices a round asks, and for each other one the reason why not. Pure: values in, values out."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from cloud.campaigns.selection_rules import NEWCOMER, Histories, why_not_by_rules
from shared.api.campaigns import SelectionRules
from shared.api.devices import Device
from shared.compression.negotiation import unknown_codecs
from shared.ids import DeviceId, parse_device_id
from shared.lifecycles import ReleaseState

_BUSY = "Takes part in a round of campaign"
_LEFT = "Left to the campaign that waits longer:"
_UPDATING = frozenset(ReleaseState) - {ReleaseState.ACTIVE, ReleaseState.FAILED}


@dataclass(frozen=True)
class Rival:
    """Another campaign that waits for devices, and whose turn comes first."""

    campaign_id: str
    task: str
    only: Collection[str] = ()

    def wants(self, device: Device) -> bool:
        return self.task in device.tasks and (not self.only or device.device_id in self.only)


@dataclass(frozen=True)
class Wanted:
    """What a campaign asks of a device."""

    task: str
    task_version: str
    only: Collection[str] = ()
    """Only these devices; empty means all."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Devices that refused in this campaign, and why: they are not asked again."""
    takes: Mapping[str, int] = field(default_factory=dict)
    """How often each device may already have spent its privacy budget's share of one round."""
    busy: Mapping[DeviceId, str] = field(default_factory=dict)
    """Devices that another campaign waits for, with its id: a device is in one round at a time."""
    rivals: Collection[Rival] = ()
    """Campaigns whose turn comes first: the devices they want are left to them."""
    takes_max: int | None = None
    """Rounds that the privacy budget covers; None without privacy."""
    summed: str = ""
    """The compression that all must share because updates are summed as they come; empty: none must."""
    rules: SelectionRules = field(default_factory=SelectionRules)
    histories: Histories = field(default_factory=dict)
    """What each device did in this campaign."""
    round: int = 1
    still_training: Collection[str] = ()
    """Devices whose work for an earlier round still counts: an asynchronous campaign does not interrupt them."""


@dataclass(frozen=True)
class Selection:
    """The devices to ask, sorted, and the others with one sentence each."""

    chosen: tuple[DeviceId, ...]
    excluded: Mapping[DeviceId, str]
    why_chosen: Mapping[DeviceId, str] = field(default_factory=dict)
    """Why those were asked before others, where there was a choice."""


def select(devices: Iterable[Device], wanted: Wanted) -> Selection:
    """Sorts the fleet into those to ask and those not to."""
    reasons = {parse_device_id(device.device_id): why_not(device, wanted) for device in devices}
    chosen = tuple(sorted(device for device, reason in reasons.items() if not reason))
    return Selection(chosen, {device: reason for device, reason in sorted(reasons.items()) if reason})


def why_not(device: Device, wanted: Wanted) -> str:
    """Why the device is not asked, in one sentence; empty when it is. The most lasting reason comes first."""
    if device.is_revoked:
        return "Revoked"
    if device.ledger_problem:
        return f"Its privacy ledger went back or forked. {device.ledger_problem}"
    if wanted.only and device.device_id not in wanted.only:
        return "Not among the campaign's devices"
    if (version := device.tasks.get(wanted.task)) is None:
        return f"Task {wanted.task!r} is not installed"
    if version != wanted.task_version:
        return f"Expected task {wanted.task!r} in version {wanted.task_version}, the device has {version}"
    if missing := unknown_codecs(wanted.summed, device.codecs):
        return f"Cannot compress with {missing[0]}, as all of a secure sum must"
    if reason := wanted.refused.get(device.device_id):
        return f"Refused before in this campaign: {reason}"
    if wanted.takes_max is not None and wanted.takes.get(device.device_id, 0) >= wanted.takes_max:
        return f"Has taken part {wanted.takes_max} times, all that the campaign's privacy budget covers"
    if device.device_id in wanted.still_training:
        return "Still trains for an earlier round"
    if not device.is_online:
        return "Offline"
    if device.release_state in _UPDATING:
        return f"Installs a release ({device.release_state.value})"
    if device.desired_release_id not in (None, device.release_id) and device.release_state is not ReleaseState.FAILED:
        return f"Is asked to install release {device.desired_release_id}"
    history = wanted.histories.get(device.device_id, NEWCOMER)
    if reason := why_not_by_rules(device, wanted.rules, history, round=wanted.round):
        return reason
    if campaign_id := wanted.busy.get(DeviceId(device.device_id)):
        return f"{_BUSY} {campaign_id}"
    if rival := next((rival for rival in wanted.rivals if rival.wants(device)), None):
        return f"{_LEFT} {rival.campaign_id}"
    return ""


def enough_but_for_others(selection: Selection, *, quorum: int) -> bool:
    """Whether there were enough devices, if other campaigns did not have them: then waiting helps."""
    taken = sum(reason.startswith((_BUSY, _LEFT)) for reason in selection.excluded.values())
    return taken > 0 and len(selection.chosen) + taken >= quorum


def shortfall(selection: Selection, *, quorum: int) -> str:
    """One sentence saying that too few devices can be asked, and the commonest reasons."""
    counts: dict[str, int] = {}
    for reason in selection.excluded.values():
        counts[reason] = counts.get(reason, 0) + 1
    common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3]
    others = "; ".join(f"{count} x {reason}" for reason, count in common) or "no device is enrolled"
    return f"Expected at least {quorum} devices to ask, got {len(selection.chosen)} ({others})"
