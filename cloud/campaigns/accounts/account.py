"""What the privacy of devices was spent on over all campaigns, and who could not afford one more. Pure.

There are two witnesses. A device's ledger says what an account has spent, whoever asked; the coordinator knows what it
asked for itself, campaign by campaign, of devices that fell silent too. The greater of the two is shown, so that a view
is never below what the ledger last told.

Mechanisms are composed by `shared.accountant`, as the ledger does it and as a single campaign is planned.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from shared.accountant import PrivacyPlanError, epsilon_of, least_noise
from shared.api.privacy import CampaignSpending, ExpectedRefusal, PrivacyAccount
from shared.privacy import DEVICE, MechanismEvent, PrivacyLimits, PrivacySpec, PrivacySpent, UserPrivacySpec

_TOLERANCE = 1e-9
"""As in the device's ledger."""
_CACHED_MAX = 10_000
"""Most devices of a fleet have one of a few histories."""


@dataclass(frozen=True)
class Costs:
    """What the work of one campaign or analysis costs those who do it."""

    campaign_id: str
    data: PrivacySpec | None
    """Of each piece of work, to a data set."""
    user: UserPrivacySpec | None = None
    protects_device: bool = False
    """Of an analysis: whether its noise is for the device, and charged to it as well."""

    def data_event(self, *, times: int) -> MechanismEvent | None:
        """What so much work costs a data set. `dataset_id` is left empty: equal histories are equal values."""
        return None if self.data is None else _event(self.data, times=times)

    def device_event(self, *, times: int) -> MechanismEvent | None:
        """The same to the device with all its data."""
        if self.protects_device:
            return self.data_event(times=times)
        return None if self.user is None else self.user.charge(times=times)


@dataclass(frozen=True)
class Take:
    """How often a device did the work of a campaign, or may have."""

    costs: Costs
    times: int
    dataset_id: str | None
    """As the device told; None where it never did."""


@dataclass(frozen=True)
class Account:
    """Everything that is known of one account."""

    device_id: str
    dataset_id: str
    spent_on: Mapping[str, MechanismEvent]
    """By campaign, with how often."""
    times: Mapping[str, int]
    delta: float
    ledger: PrivacySpent | None = None
    limit: float | None = None

    @property
    def asked(self) -> float:
        """Epsilon of what this coordinator asked for."""
        return composed(tuple(self.spent_on.values()), self.delta)

    @property
    def spent(self) -> float:
        """Epsilon as it may be: what was asked for, or what the ledger says, if that is more."""
        return max(self.asked, self.ledger.epsilon if self.ledger else 0.0)

    @property
    def history(self) -> tuple[MechanismEvent, ...]:
        """What further work is composed with.

        Where the ledger says more than is known of here, one Gaussian of the same epsilon stands for all of it: an
        estimate, since an epsilon at one delta does not say what it is made of.
        """
        known = tuple(self.spent_on.values())
        if self.ledger is None or self.ledger.epsilon <= self.asked + _TOLERANCE:
            return known
        return _gaussian_of(self.ledger.epsilon, self.delta) or known


def accounts_of(
    device_id: str, *, told: Iterable[PrivacySpent], limits: PrivacyLimits | None, takes: Sequence[Take]
) -> list[Account]:
    """All accounts of a device, that of all its data last.

    Work of which the device never told on what data is counted to each of its data sets: it may have been any.

    Args:
        device_id: The device.
        told: What its ledger said last.
        limits: Its owner's, if it told them.
        takes: What it did here.
    """
    ledgers = {spent.dataset_id: spent for spent in told}
    datasets = {name for name in (*ledgers, *(take.dataset_id for take in takes)) if name and name != DEVICE}
    silent = any(take.dataset_id is None and take.costs.data for take in takes)
    names = sorted(datasets) or ([""] if silent else [])
    found = [
        _account(device_id, name, takes=takes, ledger=ledgers.get(name), limits=limits) for name in (*names, DEVICE)
    ]
    return [account for account in found if account.spent_on or account.ledger]


def view(account: Account, *, ledger_problem: str = "") -> PrivacyAccount:
    """The account as operators see it."""
    unit_known = DEVICE if account.dataset_id == DEVICE else ""
    spendings = [
        CampaignSpending(campaign_id=name, times=account.times[name], epsilon=composed((event,), account.delta))
        for name, event in account.spent_on.items()
    ]
    return PrivacyAccount(
        device_id=account.device_id,
        dataset_id=account.dataset_id,
        unit=account.ledger.unit if account.ledger else unit_known,
        delta=account.delta,
        epsilon=account.spent,
        epsilon_asked=account.asked,
        epsilon_ledger=account.ledger.epsilon if account.ledger else None,
        epsilon_limit=account.limit,
        epsilon_left=None if account.limit is None else max(0.0, account.limit - account.spent),
        campaigns=sorted(spendings, key=lambda each: (-each.epsilon, each.campaign_id)),
        ledger_problem=ledger_problem,
    )


def expected_refusal(account: Account, costs: Costs, *, rounds: int) -> ExpectedRefusal | None:
    """How an account is too small for so many rounds; nothing where it is not, or where its limit is not known."""
    if account.limit is None or not rounds:
        return None
    event_of = costs.device_event if account.dataset_id == DEVICE else costs.data_event

    def after(done: int) -> float:
        event = event_of(times=done)
        return 0.0 if event is None else composed((*account.history, event), account.delta)

    if after(rounds) <= account.limit + _TOLERANCE:
        return None
    # It grows with each round: halve what is left between one that fits and one that does not.
    fits, too_many = 0, rounds
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (middle, too_many) if after(middle) <= account.limit + _TOLERANCE else (fits, middle)
    return ExpectedRefusal(
        device_id=account.device_id,
        dataset_id=account.dataset_id,
        rounds=fits,
        epsilon=after(too_many),
        epsilon_limit=account.limit,
        delta=account.delta,
    )


def unspent(device_id: str, dataset_id: str, limits: PrivacyLimits) -> Account:
    """An account that nothing was charged to."""
    return Account(device_id, dataset_id, {}, {}, limits.delta, limit=_limit(dataset_id, limits))


@lru_cache(_CACHED_MAX)
def composed(events: tuple[MechanismEvent, ...], delta: float) -> float:
    """Epsilon of all events together."""
    return epsilon_of(events, delta)


def _account(
    device_id: str, dataset_id: str, *, takes: Sequence[Take], ledger: PrivacySpent | None, limits: PrivacyLimits | None
) -> Account:
    times: dict[str, int] = {}
    costs: dict[str, Costs] = {}
    deltas: list[float] = []
    for take in takes:
        if dataset_id == DEVICE or take.dataset_id in (None, dataset_id):
            times[take.costs.campaign_id] = times.get(take.costs.campaign_id, 0) + take.times
            costs[take.costs.campaign_id] = take.costs
            deltas += [spec.delta for spec in (take.costs.data, take.costs.user) if spec]
    is_device = dataset_id == DEVICE
    events = {
        name: event
        for name, each in costs.items()
        if (event := (each.device_event if is_device else each.data_event)(times=times[name])) is not None
    }
    return Account(
        device_id,
        dataset_id,
        spent_on=events,
        times=times,
        # The owner's, at which its limit holds; what campaigns planned at is the next best.
        delta=ledger.delta if ledger else limits.delta if limits else min(deltas, default=1e-5),
        ledger=ledger,
        limit=ledger.epsilon_limit if ledger else _limit(dataset_id, limits) if limits else None,
    )


def _limit(dataset_id: str, limits: PrivacyLimits) -> float:
    return limits.device_epsilon_limit if dataset_id == DEVICE else limits.epsilon_limit


def _event(spec: PrivacySpec, *, times: int) -> MechanismEvent:
    return MechanismEvent(
        dataset_id="",
        unit="",
        noise_multiplier=spec.noise_multiplier,
        sampling_rate=spec.sampling_rate,
        steps=times * spec.steps_per_round,
    )


@lru_cache(_CACHED_MAX)
def _gaussian_of(epsilon: float, delta: float) -> tuple[MechanismEvent, ...]:
    """One use of the Gaussian mechanism that costs this much; nothing where it costs too little for there to be one."""
    try:
        noise = least_noise(epsilon=epsilon, delta=delta, sampling_rate=1.0, steps=1)
    except PrivacyPlanError:
        return ()
    return (MechanismEvent(dataset_id="", unit="", noise_multiplier=noise, sampling_rate=1.0, steps=1),)
