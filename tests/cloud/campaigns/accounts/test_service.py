"""Accounts from the database: never below a device's own ledger, whatever happens between the two."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.campaigns.accounts.service import expected_refusals, list_accounts
from cloud.campaigns.job import run_campaign
from cloud.devices.models import DeviceRecord
from cloud.work.service import create_work, pending_for, record_result
from edge_agent.training.charges import data_event, device_charge
from edge_agent.training.ledger import Ledger, read_balances
from shared.api.privacy import PrivacyAccount
from shared.ids import DeviceId
from shared.messages.base import ObjectRef
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import UserWork, Work, WorkKind
from shared.privacy import DEVICE, PrivacyLimits, PrivacySpent
from shared.tasks.registry import load_task
from tests.cloud.campaigns.world import World, done, stays_silent, update_of
from tests.edge_agent.training.ledgers import DELTA, open_ledger

TASK = load_task("digits")
USER = {"noise_multiplier": 2.0, "clip_norm": 0.5}
CAMPAIGNS = {
    1: {"privacy": {"epsilon": 3.0}, "rounds": 4},
    2: {"user_privacy": USER, "rounds": 4},
    3: {"user_privacy": USER, "rounds": 4, "selection": {"draw": "poisson", "rate": 0.5}},
    4: {"privacy": {"epsilon": 2.0}, "user_privacy": USER, "rounds": 2},
}
LIMITS = PrivacyLimits(epsilon_limit=1e6, device_epsilon_limit=1e6, delta=DELTA)
_NAMES = (f"press-{number}" for number in count())


def world_of(folder: Path, database_url: str = "") -> World:
    made = World(folder, database_url=database_url)
    for number, fields in CAMPAIGNS.items():
        made.ask(number=number, **fields)
    return made


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world_of(tmp_path_factory.mktemp("world"))


class Device:
    """A device's ledger, and what the coordinator hears of it."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder, self.id = world, folder, DeviceId(next(_NAMES))
        world.add(self.id, stays_silent)
        self.ledger: Ledger = open_ledger(folder, limit=1e6)

    def close(self) -> None:
        self.ledger.close()
        self.world.engine.dispose()

    def beats(self) -> None:
        with self.world.sessions() as session, session.begin():
            row = session.get_one(DeviceRecord, self.id)
            row.privacy = [spent.model_dump(mode="json") for spent in read_balances(self.folder) or []]
            row.privacy_limits = LIMITS.model_dump()
            session.add(row)

    def fetches(self, number: int, name: str) -> Work:
        campaign = self.world.campaign(f"campaign-{number}")
        user = campaign.user_privacy
        work = Work(
            work_id=f"{self.id}-{name}",
            kind=WorkKind.TRAIN,
            campaign_id=campaign.campaign_id,
            round=1,
            task="digits",
            task_version="1",
            model=ObjectRef(digest="0" * 64, size_bytes=1),
            privacy=campaign.privacy,
            user_privacy=UserWork(spec=user, clip_norm=0.5) if user else None,
            deadline_s=10,
        )
        with self.world.sessions() as session, session.begin():
            create_work(session, work, device_id=self.id, now=self.world.clock)
        with self.world.sessions() as session, session.begin():
            pending_for(session, self.id, now=self.world.clock)
        return work

    def pays(self, work: Work) -> PrivacySpent | None:
        beside = device_charge(work)
        self.ledger.reserve(work.work_id, dataset_id="data", event=data_event(work, TASK, "data"), beside=beside)
        own = self.ledger.charged(work.work_id)
        return own or (self.ledger.charged(beside.charge_id) if beside else None)

    def answers(self, work: Work, status: WorkStatus, privacy: PrivacySpent | None = None) -> None:
        with self.world.sessions() as session, session.begin():
            result = WorkResult(work_id=work.work_id, status=status, privacy=privacy)
            record_result(session, self.id, result, now=self.world.clock)

    def does(self, number: int, name: str, how: str) -> None:
        work = self.fetches(number, name)
        match how:
            case "is killed before it pays":
                pass
            case "is killed after it paid":
                self.pays(work)
            case "refuses before it pays":
                self.answers(work, WorkStatus.REFUSED)
            case "refuses after it paid":
                self.answers(work, WorkStatus.REFUSED, self.pays(work))
            case "fails":
                self.pays(work)
                self.answers(work, WorkStatus.FAILED)
            case "trains":
                self.answers(work, WorkStatus.DONE, self.pays(work))

    def shown(self) -> dict[str, PrivacyAccount]:
        with self.world.sessions() as session, session.begin():
            found = list_accounts(session, device_id=self.id, limit=10)
        return {account.dataset_id: account for account in found}


@pytest.fixture
def device(world: World, tmp_path: Path) -> Iterator[Device]:
    made = Device(world, tmp_path)
    yield made
    made.ledger.close()


HOW = (
    "is killed before it pays",
    "is killed after it paid",
    "refuses before it pays",
    "refuses after it paid",
    "fails",
    "trains",
)


@given(
    story=st.lists(
        st.tuples(st.sampled_from(list(CAMPAIGNS)), st.sampled_from((*HOW, "beats"))), min_size=1, max_size=8
    )
)
@settings(max_examples=20, deadline=None)
def test_what_is_shown_is_never_less_than_the_ledger_says(
    story: list[tuple[int, str]], world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    device = Device(world, tmp_path_factory.mktemp("device"))
    for step, (number, how) in enumerate(story):
        if how == "beats":
            device.beats()
        else:
            device.does(number, f"w{step}", how)
        shown = device.shown()
        for account in ("data", DEVICE):
            seen = shown.get(account) or shown.get("") if account == "data" else shown.get(account)
            assert (seen.epsilon if seen else 0.0) >= device.ledger.balance(account, DELTA) - 1e-9, (step, account)
    device.ledger.close()


def test_after_work_that_ended_well_record_and_ledger_say_the_same(tmp_path: Path, database_url: str) -> None:
    device = Device(world_of(tmp_path, database_url), tmp_path / "device")
    for step, number in enumerate((1, 2, 3, 4, 3, 1, 2)):
        device.does(number, f"w{step}", "trains")
    device.beats()
    shown = device.shown()
    for name in ("data", DEVICE):
        assert shown[name].epsilon_asked == pytest.approx(device.ledger.balance(name, DELTA))
        assert shown[name].epsilon_ledger == device.ledger.balance(name, DELTA)
    assert {each.campaign_id: each.times for each in shown["data"].campaigns} == {"campaign-1": 2, "campaign-4": 1}
    assert (shown["data"].unit, shown[DEVICE].unit) == (TASK.privacy_unit, DEVICE)
    assert shown["data"].epsilon_limit == 1e6
    device.close()


def test_a_ledger_that_paid_somebody_else_is_shown_as_it_is(device: Device) -> None:
    device.does(1, "w", "trains")
    device.ledger.reserve("elsewhere", dataset_id="data", event=data_event(device.fetches(1, "x"), TASK, "data"))
    device.beats()
    account = device.shown()["data"]
    assert account.epsilon_ledger == device.ledger.balance("data", DELTA)
    assert account.epsilon >= account.epsilon_ledger


def test_a_campaign_that_is_planned_knows_whose_budget_is_too_small_and_when(tmp_path: Path) -> None:
    world = World(tmp_path)
    limits = {"epsilon_limit": 5.0, "device_epsilon_limit": 5.0, "delta": DELTA}
    rich = {**limits, "epsilon_limit": 50.0}

    def trains_and_pays(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        spent = PrivacySpent(
            epsilon=4.0, delta=DELTA, epsilon_limit=5.0, dataset_id=f"data of {device_id}", unit="image"
        )
        result = done(world, work, update_of(device_id, work, world.received(work)))
        return result.model_copy(update={"privacy": spent})

    world.add("spent", trains_and_pays, privacy_limits=limits)
    world.add("fresh", trains_and_pays, privacy_limits=limits)
    world.add("rich", trains_and_pays, privacy_limits=rich)
    world.add("mute", trains_and_pays)
    world.add("elsewhere", trains_and_pays, privacy_limits=limits, tasks={})
    world.ask(number=1, rounds=2, quorum=1, privacy={"epsilon": 4.0}, devices=["spent"])
    run_campaign(world.context(), "campaign-1", sleep=world.sleep)
    world.ask(number=2, rounds=2, privacy={"epsilon": 4.5})
    planned = world.campaign("campaign-2")

    with world.sessions() as session, session.begin():
        refusals = expected_refusals(session, planned, TASK, only=[])
        assert expected_refusals(session, planned, TASK, only=["fresh", "rich"]) == []

    assert [each.device_id for each in refusals] == ["spent"]
    (refusal,) = refusals
    assert refusal.dataset_id == "data of spent"
    assert refusal.rounds < 2
    assert refusal.epsilon > refusal.epsilon_limit == 5.0
    # Without privacy nothing is charged, so nobody refuses for that.
    world.ask(number=3, rounds=2)
    with world.sessions() as session, session.begin():
        assert expected_refusals(session, world.campaign("campaign-3"), TASK, only=[]) == []
