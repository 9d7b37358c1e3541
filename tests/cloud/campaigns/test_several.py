"""Several campaigns over one fleet: a device is in one round at a time, and campaigns take turns."""

import threading
from collections import Counter

import pytest
from sqlmodel import select

from cloud.campaigns.errors import DevicesBusyError
from cloud.campaigns.job import run_campaign
from cloud.campaigns.journal import Journal
from cloud.campaigns.rounds import ask, open_round
from cloud.campaigns.selection import Rival, Selection
from cloud.work.models import WorkItem, WorkState
from cloud.work.service import create_work
from shared.ids import DeviceId
from shared.messages.base import ObjectRef
from shared.messages.work import Work, WorkKind
from tests.cloud.campaigns.world import World, trains

DEVICES = ("a", "b", "c")


def journal(world: World, number: int) -> Journal:
    return Journal(world.sessions, f"campaign-{number}", now=lambda: world.clock)


def work(campaign_id: str, device: str) -> Work:
    return Work(
        work_id=f"{campaign_id}-{device}",
        kind=WorkKind.TRAIN,
        campaign_id=campaign_id,
        round=1,
        task="digits",
        task_version="1",
        model=ObjectRef(digest="0" * 64, size_bytes=1),
        config={},
        privacy=None,
        deadline_s=10.0,
    )


def test_two_campaigns_take_turns_on_the_same_devices(world: World) -> None:
    for device in DEVICES:
        world.add(device, trains)
    for number in (1, 2):
        world.ask(number=number, rounds=4, quorum=3)
    lock, both_there, order, most = threading.Lock(), threading.Barrier(2, timeout=60), [], 0
    there = threading.local()

    def sleep(seconds: float) -> None:
        nonlocal most
        if not hasattr(there, "met"):
            there.met = both_there.wait()
        with lock:
            with world.sessions() as session, session.begin():
                pending = session.exec(select(WorkItem).where(WorkItem.state == WorkState.PENDING)).all()
            most = max(most, *Counter(item.device_id for item in pending).values(), 0)
            order.extend(sorted({item.campaign_id for item in pending}))
            world.sleep(seconds)

    def run(campaign_id: str) -> None:
        run_campaign(world.context(), campaign_id, sleep=sleep)

    threads = [threading.Thread(target=run, args=(f"campaign-{number}",)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert most == 1
    for number in (1, 2):
        campaign = world.campaign(f"campaign-{number}")
        assert [(r.state, r.attempt) for r in campaign.history] == [("done", 1)] * 4
    turns = [campaign for campaign, before in zip(order, ["", *order], strict=False) if campaign != before]
    assert len(turns) >= 6, f"expected turns, got {turns}"


def test_a_campaign_that_was_slower_stores_nothing(world: World) -> None:
    for device in DEVICES:
        world.add(device, trains)
    for number in (1, 2):
        world.ask(number=number)
    with world.sessions() as session, session.begin():
        create_work(session, work("campaign-2", "b"), device_id=DeviceId("b"), now=world.clock)
    asked = ask(open_round(1, attempt=1, quorum=2), map(DeviceId, DEVICES), deadline_at=world.clock + 10)
    works = {DeviceId(device): work("campaign-1", device) for device in DEVICES}

    with pytest.raises(DevicesBusyError, match="got b"):
        journal(world, 1).ask(asked, works, carried={}, selection=Selection(tuple(works), {}))

    assert journal(world, 1).tries() == []
    assert journal(world, 1).busy() == {"b": "campaign-2"}
    assert journal(world, 2).busy() == {}


def test_who_waits_longest_comes_first_and_keeps_its_place(world: World) -> None:
    for number in (1, 2, 3):
        world.ask(number=number, devices=[], rounds=1)
    for number in (2, 1, 2):
        world.clock += 1
        journal(world, number).wait_in_line(True)

    assert [rival.campaign_id for rival in journal(world, 3).rivals()] == ["campaign-2", "campaign-1"]
    assert journal(world, 1).rivals() == [Rival("campaign-2", "digits", frozenset())]
    assert journal(world, 2).rivals() == []
    journal(world, 2).wait_in_line(False)
    assert journal(world, 1).rivals() == []
