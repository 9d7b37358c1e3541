"""Privacy over all campaigns as operators ask for it. Reads alone."""

from collections.abc import Iterable, Sequence

from sqlmodel import Session, col, select

from cloud.campaigns.accounts.account import Account, Costs, Take, accounts_of, expected_refusal, unspent, view
from cloud.campaigns.models import CampaignRow
from cloud.devices.models import DeviceRecord
from cloud.devices.service import active_devices, get_device, list_devices
from cloud.work.service import Taken, taken
from shared.analytics.query import Protected, Query
from shared.api.campaigns import Campaign
from shared.api.privacy import ExpectedRefusal, PrivacyAccount
from shared.privacy import DEVICE, PrivacyLimits, PrivacySpec, PrivacySpent, UserPrivacySpec
from shared.tasks.task import Task


def list_accounts(session: Session, *, device_id: str | None, limit: int) -> list[PrivacyAccount]:
    """The accounts of this device, or of the newest devices; data sets that spent nothing have none.

    Raises UnknownDeviceError.
    """
    devices = [get_device(session, device_id)] if device_id else list_devices(session, limit=limit)
    known = _Known.read(session, devices)
    return [
        view(account, ledger_problem=device.ledger_problem) for device in devices for account in known.accounts(device)
    ]


def expected_refusals(
    session: Session, campaign: Campaign, task: Task, *, only: Iterable[str]
) -> list[ExpectedRefusal]:
    """Which devices would refuse before the campaign's last round, by name, as far as they told.

    A device that never told its owner's limit is not among them; nor is what campaigns that run may still ask for.

    Args:
        session: Of the caller's transaction.
        campaign: As it was planned.
        task: Its task.
        only: The devices it may ask; empty means all.
    """
    costs = Costs(campaign.campaign_id, campaign.privacy, campaign.user_privacy)
    if not (costs.data or costs.user):
        return []
    able = [each for each in active_devices(session, only=only) if each.tasks.get(task.name) == task.version]
    known = _Known.read(session, able)
    found = [_first(known.to_pay(device, task), costs, rounds=campaign.rounds) for device in able]
    return [refusal for refusal in found if refusal is not None]


def _first(accounts: Iterable[Account], costs: Costs, *, rounds: int) -> ExpectedRefusal | None:
    """The one that comes first, of a device's accounts."""
    found = [refusal for each in accounts if (refusal := expected_refusal(each, costs, rounds=rounds))]
    return min(found, key=lambda refusal: refusal.rounds, default=None)


class _Known:
    """What work and campaigns say of some devices."""

    def __init__(self, takes: dict[str, list[Taken]], costs: dict[str, Costs], tasks: dict[str, str]) -> None:
        self._takes, self._costs, self._tasks = takes, costs, tasks

    @classmethod
    def read(cls, session: Session, devices: Sequence[DeviceRecord]) -> "_Known":
        takes: dict[str, list[Taken]] = {}
        for each in taken(session, device_ids=[device.device_id for device in devices]):
            takes.setdefault(each.device_id, []).append(each)
        is_paid_for = col(CampaignRow.privacy).is_not(None) | col(CampaignRow.user_privacy).is_not(None)
        rows = session.exec(select(CampaignRow).where(is_paid_for)).all()
        return cls(takes, {row.campaign_id: _costs(row) for row in rows}, {row.campaign_id: row.task for row in rows})

    def accounts(self, device: DeviceRecord) -> list[Account]:
        """All of the device's, that of all its data last."""
        told = [PrivacySpent.model_validate(spent) for spent in device.privacy]
        takes = [
            Take(self._costs[each.campaign_id], each.times, each.dataset_id)
            for each in self._takes.get(device.device_id, [])
            if each.campaign_id in self._costs
        ]
        return accounts_of(device.device_id, told=told, limits=_limits(device), takes=takes)

    def to_pay(self, device: DeviceRecord, task: Task) -> list[Account]:
        """The accounts that work on this task would be charged to: of the data it trained on last, and of the device.

        Those that nothing was charged to yet have the whole limit, if the device told it.
        """
        accounts = {account.dataset_id: account for account in self.accounts(device)}
        mine = [
            each for each in self._takes.get(device.device_id, []) if self._tasks.get(each.campaign_id) == task.name
        ]
        newest = max((each for each in mine if each.dataset_id), key=lambda each: each.newest_at, default=None)
        wanted = [newest.dataset_id or "" if newest else "", DEVICE]
        limits = _limits(device)
        fresh = [unspent(device.device_id, name, limits) for name in wanted if limits and name not in accounts]
        return [accounts[name] for name in wanted if name in accounts] + fresh


def _costs(row: CampaignRow) -> Costs:
    return Costs(
        row.campaign_id,
        PrivacySpec.model_validate(row.privacy) if row.privacy else None,
        UserPrivacySpec.model_validate(row.user_privacy) if row.user_privacy else None,
        protects_device=row.query is not None and Query.model_validate(row.query).protects is Protected.DEVICE,
    )


def _limits(device: DeviceRecord) -> PrivacyLimits | None:
    return PrivacyLimits.model_validate(device.privacy_limits) if device.privacy_limits else None
