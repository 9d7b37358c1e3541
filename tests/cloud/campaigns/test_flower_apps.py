"""An unmodified Flower app as a campaign: its ServerApp here, its ClientApps on devices, kills in between."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sqlmodel import select

from cloud.campaigns.errors import DepartedError, FlowerAppError, InvalidCampaignError
from cloud.campaigns.models import CampaignRow
from cloud.campaigns.service import asked_for, create_flower_campaign
from cloud.jobs.context import JobPausedError
from cloud.work.models import WorkItem
from cloud.work.service import create_work
from edge_agent.training.flower_apps import FlowerAppFailedError, FlowerApps
from shared.api.campaigns import Campaign, CampaignClone, FlowerCampaignCreate, FlowerRun
from shared.flower_apps import ConfigValue, FlowerApp, read_app
from shared.ids import DeviceId
from shared.lifecycles import JobState
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import Work
from tests.cloud.campaigns.world import (
    FLOWER_APPS,
    KilledError,
    World,
    answer,
    refuses,
    stays_silent,
)
from tests.support.databases import EmptyDatabase

APP = read_app(FLOWER_APPS / "numpy-state")
STARTS_MAX = 3


def _runs_apps(apps: FlowerApps, world: World, device_id: DeviceId, work: Work) -> WorkResult:
    """A device that calls the installed ClientApp."""
    assert work.flower is not None
    try:
        found = apps.answer(work.work_id, work.campaign_id, work.flower, world.blobs.get(work.model.digest))
    except FlowerAppFailedError as error:
        return answer(work, WorkStatus.FAILED, reason=error.message)
    return answer(work, WorkStatus.DONE, update=world.blobs.put(found.records), metrics=found.metrics)


def _add(world: World, name: str, *, partition: int, app: FlowerApp = APP) -> None:
    node_config = {"partition-id": partition, "num-partitions": 2}
    apps = FlowerApps(FLOWER_APPS, world.folder / "devices" / name, node_config=node_config)
    world.add(name, partial(_runs_apps, apps), tasks={app.task: app.content})
    world.cancelled = partial(_time_passes, world)


def _time_passes(world: World) -> None:
    """With each call of the grid: an app that polls it sleeps by its own clock, which is none of the world's."""
    world.clock += 0.25
    world.let_devices_work()


def _ask(
    world: World, *, config: Mapping[str, ConfigValue] | None = None, digest: str = "", app: FlowerApp = APP
) -> None:
    run = FlowerRun(app=app.name, version=app.version, digest=digest or app.digest, config=dict(config or {}))
    with world.sessions() as session, session.begin():
        asked = FlowerCampaignCreate(flower=run, round_timeout_s=10, seed=7)
        create_flower_campaign(session, asked, world.launch(), apps=FLOWER_APPS)


def _fleet(
    folder: Path, *, config: Mapping[str, ConfigValue] | None = None, app: FlowerApp = APP, database_url: str = ""
) -> World:
    folder.mkdir(exist_ok=True)
    world = World(folder, database_url)
    _add(world, "a", partition=0, app=app)
    _add(world, "b", partition=1, app=app)
    _ask(world, config=config, app=app)
    return world


def _result(world: World) -> list[np.ndarray]:
    with np.load(world.folder / "job" / "flower-app" / "result.npz") as found:
        return [found[name] for name in sorted(found.files)]


def _work_ids(world: World) -> set[str]:
    with world.sessions() as session, session.begin():
        return set(session.exec(select(WorkItem.work_id)))


def test_an_unmodified_app_trains_queries_and_leaves_its_files(tmp_path: Path) -> None:
    world = _fleet(tmp_path)

    left = world.run()

    assert left["files"] == ["result.npz"]
    # Three rounds, each adding the mean of 1 and 2, weighted by 1 and 2.
    np.testing.assert_allclose(_result(world)[1], np.full((2, 3), 3 * 5 / 3), rtol=1e-6)
    shown: Campaign = world.campaign()
    assert (shown.rounds_done, shown.rounds, shown.task) == (3, 3, "flower:flwrlabs/numpy-state")
    assert shown.flower is not None
    assert shown.flower.config["num-server-rounds"] == 3
    types = [each.message_type for each in shown.history]
    assert types == ["train of round 1", "train of round 2", "train of round 3", "query.how_many"]
    # The context's state lived on the devices from message to message.
    assert [device.metrics["seen"] for device in shown.history[-1].devices] == [3.0, 3.0]


def test_a_kill_after_any_write_ends_with_the_same_bits_and_asks_nothing_twice(
    tmp_path: Path, empty_database: EmptyDatabase
) -> None:
    with _fresh(tmp_path / "undisturbed", empty_database) as undisturbed:
        undisturbed.run()
        expected, asked = _result(undisturbed), _work_ids(undisturbed)
    assert undisturbed.writes >= 8

    for number in range(1, undisturbed.writes + 1):
        with _fresh(tmp_path / f"killed-{number}", empty_database) as world:
            world.kill_after_writes = number
            with pytest.raises(KilledError):
                world.run()
            world.let_devices_work()  # the rest of the world goes on
            world.run()
            for found, one in zip(_result(world), expected, strict=True):
                np.testing.assert_array_equal(found, one)
            assert _work_ids(world) == asked


@contextmanager
def _fresh(folder: Path, empty_database: EmptyDatabase) -> Iterator[World]:
    """The fleet on a database of its own."""
    with empty_database() as url:
        # PostgreSQL takes longer to begin anew: there, one round fewer makes fewer writes, each of which is tried.
        world = _fleet(folder, config={"num-server-rounds": 2 if url else 3}, database_url=url)
        yield world
        world.engine.dispose()


def test_an_app_that_looks_at_the_clock_is_stopped_with_what_differs(tmp_path: Path) -> None:
    world = _fleet(tmp_path, config={"use-clock": True})
    world.kill_after_writes = 4
    with pytest.raises(KilledError):
        world.run()

    with pytest.raises(DepartedError, match=r"'train' to a, content \w+, got 'train' to a.*'now' of the record") as one:
        world.run()

    assert "start the campaign anew" in one.value.hint
    with pytest.raises(DepartedError):  # and stays stopped
        world.run()


def test_the_same_app_without_a_kill_may_look_at_the_clock(tmp_path: Path) -> None:
    world = _fleet(tmp_path, config={"use-clock": True, "num-server-rounds": 1})
    assert world.run()["files"] == ["result.npz"]


def test_what_a_client_raises_is_flowers_error_to_the_app_and_a_reason_to_the_operator(tmp_path: Path) -> None:
    world = _fleet(tmp_path, config={"fail-at": 2, "num-server-rounds": 3})

    world.run()

    second = world.campaign().history[1]
    assert {device.status for device in second.devices} == {"failed"}
    assert second.devices[0].reason == "The ClientApp raised RuntimeError: Out of coffee"
    # A state that grew before the error was not kept: the client fails again, and the app goes on with what it has.
    np.testing.assert_allclose(_result(world)[1], np.full((2, 3), 5 / 3), rtol=1e-6)


def test_a_silent_device_and_one_that_refuses_cost_the_app_no_more_than_time(tmp_path: Path) -> None:
    world = _fleet(tmp_path, config={"num-server-rounds": 1})
    world.add("silent", stays_silent, tasks={APP.task: APP.content})
    world.add("unwilling", refuses, tasks={APP.task: APP.content})
    world.add("other", refuses, tasks={APP.task: "1.0.0+000000000000"})

    world.run()

    shown = world.campaign().history
    assert {one.device_id: one.status for one in shown[0].devices} == {
        "a": "done",
        "b": "done",
        "silent": "silent",
        "unwilling": "refused",
    }
    assert [one.device_id for one in shown[-1].devices] == ["a", "b", "silent"]  # who refused is not asked again


def test_a_server_that_raises_ends_the_campaign_with_its_words(tmp_path: Path) -> None:
    world = _fleet(tmp_path, config={"fail-at": 1, "num-server-rounds": 1})
    with pytest.raises(FlowerAppError, match="numpy-state raised RuntimeError: Nobody trained"):
        world.run()
    with world.sessions() as session, session.begin():
        assert not session.exec(select(WorkItem).where(WorkItem.state == "pending")).all()


def test_an_app_that_is_not_installed_here_with_just_this_content_is_refused(world: World) -> None:
    with pytest.raises(InvalidCampaignError, match=r"numpy-state 1\.0\.0\+000000000000 to be installed"):
        _ask(world, digest="0" * 64)
    with pytest.raises(InvalidCampaignError, match="num-server-rounds"):
        _ask(world, config={"rounds": 3})


def test_the_clone_of_an_app_is_asked_with_its_folder(tmp_path: Path) -> None:
    world = _fleet(tmp_path)
    with (
        world.sessions() as session,
        session.begin(),
        pytest.raises(InvalidCampaignError, match="runs a Flower app") as refused,
    ):
        asked_for(session, "campaign-1", CampaignClone(rounds=3))
    assert "--flower-app" in refused.value.hint


def test_a_paused_app_goes_on_where_it_was(tmp_path: Path) -> None:
    world = _fleet(tmp_path)

    def pause() -> None:
        if world.writes >= 4:
            raise JobPausedError
        _time_passes(world)

    world.cancelled = pause
    with pytest.raises(JobPausedError):
        world.run()
    world.cancelled = partial(_time_passes, world)
    assert world.campaign().state is JobState.QUEUED
    assert world.run()["files"] == ["result.npz"]


def test_an_app_of_the_former_interface_runs_with_its_thread_for_each_client(tmp_path: Path) -> None:
    world = _fleet(tmp_path, app=read_app(FLOWER_APPS / "legacy-numpy"))
    one_at_a_time, time_passes = threading.Lock(), world.cancelled

    def cancelled() -> None:
        with one_at_a_time:  # the world's devices are in this process, and have no threads
            time_passes()

    world.cancelled = cancelled
    world.sleep = lambda seconds: time.sleep(seconds)  # type: ignore[method-assign]  # its clock moves above

    assert world.run()["files"] == ["result.npz"]

    np.testing.assert_allclose(_result(world)[0], np.full(3, 2 * 5 / 3), rtol=1e-12)
    assert {each.message_type for each in world.campaign().history} == {
        f"{kind} of round {number}" for kind in ("train", "evaluate") for number in (1, 2)
    }


def test_a_message_waits_in_line_for_a_device_that_another_campaign_has(tmp_path: Path) -> None:
    world = _fleet(tmp_path, config={"num-server-rounds": 1})
    busy = Work.model_validate(
        {"work_id": "w", "kind": "train", "campaign_id": "another", "round": 1, "task": "digits", "task_version": "1"}
        | {"model": {"digest": "0" * 64, "size_bytes": 1}, "deadline_s": 60}
    )
    with world.sessions() as session, session.begin():
        create_work(session, busy, device_id=DeviceId("b"), now=world.clock)
    behaviour, waited = world.devices[DeviceId("b")], list[float | None]()

    def ends_the_other_work(world: World, device_id: DeviceId, work: Work) -> WorkResult | None:
        if work.flower is not None:
            return behaviour(world, device_id, work)
        with world.sessions() as session, session.begin():
            waited.append(session.get_one(CampaignRow, "campaign-1").waiting_since)
        return answer(work, WorkStatus.DONE) if len(waited) > 6 else None

    world.devices[DeviceId("b")] = ends_the_other_work

    assert world.run()["files"] == ["result.npz"]

    assert waited[-1] is not None  # others left the device to it
    with world.sessions() as session, session.begin():
        assert session.get_one(CampaignRow, "campaign-1").waiting_since is None
    assert [len(each.devices) for each in world.campaign().history] == [2, 2]
