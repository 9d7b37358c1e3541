from typing import Any

import pytest

from cloud.campaigns.errors import InvalidCampaignError, UnknownCampaignError
from cloud.campaigns.models import CampaignRow
from cloud.campaigns.service import (
    asked_for,
    cancel_campaign,
    create_campaign,
    get_campaign,
    list_campaigns,
    pause_campaign,
    plan_campaign,
    resume_campaign,
)
from cloud.devices.errors import DeviceRevokedError, UnknownDeviceError
from cloud.devices.models import DeviceRecord
from cloud.jobs.context import JobPausedError
from cloud.jobs.errors import JobFinishedError
from cloud.jobs.models import JobRecord
from cloud.jobs.reporting import CancelCheck
from cloud.jobs.service import next_queued
from cloud.registry.errors import UnknownModelVersionError
from cloud.registry.service import NewVersion, register
from cloud.work.service import results_of
from shared.api.campaigns import CampaignClone, CampaignCreate
from shared.errors import FleetlearnError
from shared.ids import DeviceId
from shared.lifecycles import JobState
from shared.messages.base import ObjectRef
from shared.strategies import StrategySettingError, UnknownStrategyError, strategy
from shared.tasks.errors import UnknownTaskError
from tests.cloud.campaigns.world import START, KilledError, World, stays_silent, trains


def test_noise_is_planned_while_another_transaction_is_under_way(world: World) -> None:
    world.add("a", stays_silent)
    asked = CampaignCreate.model_validate(
        {"task": "digits", "model_version_id": START, "rounds": 2, "privacy": {"epsilon": 4}}
        | {"user_privacy": {"epsilon": 4, "clip_norm": 0.5}}
    )
    with world.sessions() as other, other.begin():
        other.connection()  # has the one lock from here on: whoever wants it waits half a minute and fails
        plan = plan_campaign(world.sessions, asked)

    assert plan.privacy is not None
    assert plan.user_privacy is not None
    assert plan.user_privacy.expected_clients == 2  # a quorum, though one device alone has the task


def test_what_became_unknown_after_it_was_planned_is_refused_when_it_starts(world: World) -> None:
    world.add("a", stays_silent)
    asked = CampaignCreate(task="digits", model_version_id=START, rounds=2, devices=["a"], quorum=1)
    plan = plan_campaign(world.sessions, asked)
    with world.sessions() as session, session.begin():
        session.get_one(DeviceRecord, "a").revoked_at = world.clock

    with pytest.raises(DeviceRevokedError), world.sessions() as session, session.begin():
        create_campaign(session, plan, world.launch())


def test_a_campaign_and_its_job_are_made_together(world: World) -> None:
    world.ask(seed=7)

    campaign = world.campaign()

    assert (campaign.state, campaign.rounds_done, campaign.history) == (JobState.RUNNING, 0, [])
    with world.sessions() as session, session.begin():
        assert session.get_one(JobRecord, "job-1").spec == {"campaign_id": "campaign-1"}
        assert session.get_one(CampaignRow, "campaign-1").created_by_principal == "operator"


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"task": "weather"}, UnknownTaskError, "'weather'"),
        ({"model_version_id": "v9"}, UnknownModelVersionError, "'v9'"),
        ({"model_version_id": "of-physio"}, InvalidCampaignError, "got one of physio"),
        ({"strategy": "fedsgd"}, UnknownStrategyError, "'fedsgd'"),
        ({"strategy": "fedadam", "strategy_settings": {"beta1": 2}}, StrategySettingError, "'beta1' of fedadam"),
        ({"strategy": "feddyn", "strategy_settings": {"strength": 9}}, StrategySettingError, "got 9, which overshoots"),
        ({"devices": ["a", "nobody"]}, UnknownDeviceError, "'nobody'"),
        ({"devices": ["a", "revoked"]}, DeviceRevokedError, "revoked"),
        ({"devices": ["a"], "quorum": 2}, InvalidCampaignError, "Expected a quorum of at most 1"),
    ],
)
def test_a_campaign_that_cannot_work_is_refused_and_leaves_nothing(
    world: World, fields: dict[str, Any], error: type[FleetlearnError], said: str
) -> None:
    world.add("a", trains)
    world.add("revoked", trains, revoked_at=1.0)
    with world.sessions() as session, session.begin():
        weights = ObjectRef.model_validate({"digest": "0" * 64, "size_bytes": 1})
        register(session, NewVersion("t", "physio", "1", weights), model_version_id="of-physio", now=1.0)

    with pytest.raises(error, match=said):
        world.ask(**fields)

    with world.sessions() as session, session.begin():
        assert list_campaigns(session, limit=10) == []
        assert session.get(JobRecord, "job-1") is None


def test_a_list_leaves_histories_out(world: World) -> None:
    world.add("a", trains)
    world.add("b", trains)
    world.ask(rounds=1)
    world.run()

    with world.sessions() as session, session.begin():
        (listed,) = list_campaigns(session, limit=10)

    assert (listed.rounds_done, listed.history) == (1, [])
    assert len(world.campaign().history) == 1


def test_an_unknown_campaign_is_said_so(world: World) -> None:
    with world.sessions() as session, session.begin(), pytest.raises(UnknownCampaignError, match="'c9'"):
        get_campaign(session, "c9")


def test_cancelling_ends_job_round_and_work_together(world: World) -> None:
    world.add("a", stays_silent)
    world.add("b", stays_silent)
    world.ask()
    world.kill_after_writes = 2
    with pytest.raises(KilledError):
        world.run()

    with world.sessions() as session, session.begin():
        cancelled = cancel_campaign(session, "campaign-1", now=world.clock)

    assert cancelled.state is JobState.CANCELLED
    assert [(r.state, r.reason) for r in cancelled.history] == [("abandoned", "Cancelled")]
    with world.sessions() as session, session.begin():
        assert {one.state for one in results_of(session, campaign_id="campaign-1", round=1)} == {"expired"}


def test_a_paused_campaign_goes_on_in_the_same_round_with_what_came_meanwhile(world: World) -> None:
    world.add("a", stays_silent)
    world.add("b", stays_silent)
    world.ask(rounds=1)

    def pause(world: World) -> None:
        with world.sessions() as session, session.begin():
            pause_campaign(session, "campaign-1")
        world.cancelled = lambda: CancelCheck(world.sessions, "job-1", monotonic=lambda: world.clock)()

    world.on_sleep = pause
    with pytest.raises(JobPausedError):
        world.run()
    paused = world.campaign()
    assert (paused.state, [r.state for r in paused.history]) == (JobState.PAUSED, ["waiting"])

    for name in ("a", "b"):
        world.devices[DeviceId(name)] = trains
    world.let_devices_work()
    with world.sessions() as session, session.begin():
        resume_campaign(session, "campaign-1")
        session.get_one(JobRecord, "job-1").state = JobState.RUNNING
    world.on_sleep = lambda world: None
    world.run()

    assert [(r.round, r.attempt, r.state) for r in world.campaign().history] == [(1, 1, "done")]


# They exclude each other.
@pytest.mark.parametrize(
    "sent",
    [
        {"compression": "top-k=0.5+int8", "user_privacy": {"epsilon": 4.0, "clip_norm": 0.5}},
        {"secure": {"dropout_share": 0.25}},
    ],
)
def test_a_clone_asks_for_the_same_but_for_the_changes(world: World, sent: dict[str, Any]) -> None:
    for name in ("a", "b", "c"):
        world.add(name, trains)
    asked: dict[str, Any] = {
        **{"rounds": 7, "strategy": "fedadam", "privacy": {"epsilon": 3.0, "delta": 1e-6}, "devices": ["a", "b", "c"]},
        **{"quorum": 3, "round_timeout_s": 33.0, "seed": 5, "selection": {"cohort": 3}, **sent},
        "strategy_settings": strategy("fedadam", {"beta1": 0.5}).model_dump(exclude={"name"}),
        "selection": {"cohort": 3},
    }
    world.ask(**asked)

    with world.sessions() as session, session.begin():
        same = asked_for(session, "campaign-1", CampaignClone())
        other = asked_for(session, "campaign-1", CampaignClone(rounds=2, seed=0, start_at=9.0))

    elsewhere = {"task", "model_version_id", "start_at", "compression", "secure", "user_privacy"}
    untouched = set(CampaignCreate.model_fields) - set(asked) - elsewhere
    assert untouched == set(), "say here what else a campaign is asked for, so that clones have it too"
    expected = CampaignCreate.model_validate({"task": "digits", "model_version_id": START, **asked})
    assert same == expected
    assert other == expected.model_copy(update={"rounds": 2, "seed": 0, "start_at": 9.0})


def test_a_scheduled_campaign_is_queued_until_its_time(world: World) -> None:
    world.ask(start_at=5_000.0)

    assert world.campaign().start_at == 5_000.0
    with world.sessions() as session, session.begin():
        session.get_one(JobRecord, "job-1").state = JobState.QUEUED
        assert next_queued(session, kinds_busy=frozenset(), now=4_999.0) is None
        assert next_queued(session, kinds_busy=frozenset(), now=5_000.0) is not None


def test_a_finished_campaign_cannot_be_cancelled(world: World) -> None:
    world.ask()
    with world.sessions() as session, session.begin():
        session.get_one(JobRecord, "job-1").state = JobState.DONE

    with world.sessions() as session, session.begin(), pytest.raises(JobFinishedError):
        cancel_campaign(session, "campaign-1", now=world.clock)
