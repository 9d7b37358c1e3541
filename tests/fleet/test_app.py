"""The terminal app: values and messages first, one picture last. Time stands still; nothing sleeps."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from fleet.app import FleetApp
from fleet.client import AsyncCoordinatorClient
from fleet.screens.confirm import ConfirmScreen
from fleet.screens.device import DeviceScreen
from fleet.screens.overview import OverviewScreen
from fleet.screens.releases import ReleasesScreen
from fleet.widgets.view_table import ViewTable
from shared.lifecycles import RolloutState
from tests.fleet import scenario
from tests.fleet.told import TOKEN, ToldFleet

URL = "https://coordinator.test:8444"
WIDE, SMALL = (150, 46), (80, 24)
Story = Callable[[FleetApp, Pilot[None]], Awaitable[None]]


def app_of(told: ToldFleet) -> FleetApp:
    client = AsyncCoordinatorClient(URL, token=TOKEN, transport=told.async_transport())
    return FleetApp(client, url=URL, poll_s=3600, now=lambda: scenario.NOW)


def play(told: ToldFleet, story: Story, *, size: tuple[int, int] = WIDE) -> None:
    """Runs the app without a terminal until the story is over."""

    async def run() -> None:
        app = app_of(told)
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: bool(overview(app).state.devices) or told.is_away)
            await story(app, pilot)

    asyncio.run(run())


async def until(pilot: Pilot[None], is_true: Callable[[], bool]) -> None:
    """Lets the app work until something holds; bounded."""
    for _ in range(400):
        if is_true():
            await pilot.pause()
            return
        await pilot.pause()
    raise AssertionError("expected it within 400 rounds of the app's messages")


def overview(app: FleetApp) -> OverviewScreen:
    return next((s for s in app.screen_stack if isinstance(s, OverviewScreen)), OverviewScreen())


def table(app: FleetApp, name: str) -> ViewTable:
    return overview(app).query_one(f"#{name}", ViewTable)


def test_the_overview_shows_devices_campaign_rollout_and_alerts() -> None:
    async def story(app: FleetApp, pilot: Pilot[None]) -> None:
        assert [row.key for row in table(app, "devices-table").shown.rows][:2] == ["wrist-01", "wrist-02"]
        assert table(app, "outcomes").shown.rows[0].key == "wrist-07"
        assert table(app, "rollout-table").shown.rows[0].key == "wrist-08"
        assert table(app, "alerts-table").shown.rows[0].key == scenario.ALERT
        assert app.link.is_up

    play(ToldFleet(), story)


def test_an_absence_keeps_the_last_data_and_is_told_once_and_so_is_the_return() -> None:
    told = ToldFleet()

    async def story(app: FleetApp, pilot: Pilot[None]) -> None:
        told.is_away = True
        for _ in range(3):
            app.action_look()
            await app.workers.wait_for_complete()
        await pilot.pause()
        assert not app.link.is_up
        assert len(app._notifications) == 1
        assert len(table(app, "devices-table").shown.rows) == 12
        told.is_away = False
        app.action_look()
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert app.link.is_up
        assert len(app._notifications) == 2

    play(told, story)


def test_a_coordinator_that_is_away_from_the_start_leaves_an_app_that_waits() -> None:
    told = ToldFleet()
    told.is_away = True

    async def story(app: FleetApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.link.away_since is not None)
        told.is_away = False
        app.action_look()
        await until(pilot, lambda: len(overview(app).state.devices) == 12)

    play(told, story)


def test_only_one_look_is_under_way() -> None:
    told = ToldFleet()

    async def story(app: FleetApp, pilot: Pilot[None]) -> None:
        told.requests.clear()
        for _ in range(5):
            app.action_look()
        await app.workers.wait_for_complete()
        assert told.requests.count("GET /v1/devices") == 1

    play(told, story)


def test_the_filter_keeps_rows_with_the_words_and_escape_ends_it() -> None:
    async def story(app: FleetApp, pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"gyro")
        await pilot.pause()
        assert [row.key for row in table(app, "devices-table").shown.rows] == ["wrist-05"]
        await pilot.press("escape")
        await pilot.pause()
        assert len(table(app, "devices-table").shown.rows) == 12

    play(ToldFleet(), story)


def test_sorting_by_state_brings_silent_devices_to_the_top() -> None:
    async def story(app: FleetApp, pilot: Pilot[None]) -> None:
        await pilot.press("s")
        await pilot.pause()
        assert table(app, "devices-table").shown.rows[0].key == "wrist-09"

    play(ToldFleet(), story)


def test_a_new_look_leaves_the_cursor_on_its_device() -> None:
    told = ToldFleet()

    async def story(app: FleetApp, pilot: Pilot[None]) -> None:
        await pilot.press("down", "down", "down", "down")
        told.devices = [device for device in told.devices if device.device_id != "wrist-01"]
        app.action_look()
        await until(pilot, lambda: len(table(app, "devices-table").shown.rows) == 11)
        assert table(app, "devices-table").selected_key == "wrist-05"

    play(told, story)


def test_a_new_rollout_shows_its_plan_and_starts_after_yes() -> None:
    told = ToldFleet()

    async def story(app: FleetApp, pilot: Pilot[None]) -> None:
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, ReleasesScreen))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert told.rollouts[0].state is RolloutState.PLANNED
        await pilot.press("y")
        await until(pilot, lambda: told.rollouts[0].state is RolloutState.RUNNING)

    play(told, story)


@pytest.mark.parametrize(("answer", "state"), [("y", RolloutState.STOPPED), ("n", RolloutState.RUNNING)])
def test_stopping_asks_first(answer: str, state: RolloutState) -> None:
    told = ToldFleet()

    async def story(app: FleetApp, pilot: Pilot[None]) -> None:
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press(answer)
        await until(pilot, lambda: isinstance(app.screen, OverviewScreen))
        await app.workers.wait_for_complete()
        assert told.rollouts[0].state is state

    play(told, story)


def test_only_what_can_be_done_is_offered() -> None:
    told = ToldFleet()
    told.rollouts = [scenario.rollout(state=RolloutState.HALTED)]

    async def story(app: FleetApp, pilot: Pilot[None]) -> None:
        offered = {name for name in ("start", "stop", "resume") if overview(app).check_action(name, ())}
        assert offered == {"stop", "resume"}

    play(told, story)


def test_c_closes_the_alert_under_the_cursor() -> None:
    told = ToldFleet()

    async def story(app: FleetApp, pilot: Pilot[None]) -> None:
        await pilot.press("4", "c")
        await until(pilot, lambda: told.alerts[0].closed_at is not None)

    play(told, story)


def test_enter_opens_the_device_with_what_it_served() -> None:
    async def story(app: FleetApp, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, DeviceScreen) and app.screen.state is not None)
        screen: Any = app.screen
        assert screen.state.device.device_id == "wrist-01"
        assert len(screen.state.windows) == 40
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, OverviewScreen))

    play(ToldFleet(), story)


def test_a_small_terminal_shows_one_panel_at_a_time() -> None:
    async def story(app: FleetApp, pilot: Pilot[None]) -> None:
        await pilot.press("3")
        await pilot.pause()
        shown = [panel.id for panel in overview(app).query(".panel") if panel.display]
        assert shown == ["rollout"]

    play(ToldFleet(), story, size=SMALL)


def test_an_empty_fleet_says_what_to_do() -> None:
    told = ToldFleet()
    told.campaigns, told.rollouts, told.alerts, told.jobs = [], [], [], []

    async def story(app: FleetApp, pilot: Pilot[None]) -> None:
        picture = app.export_screenshot()
        assert "fleetlearn&#160;campaigns&#160;start" in picture
        assert "press&#160;n&#160;to&#160;choose" in picture
        assert "All&#160;quiet" in picture

    play(told, story)


def test_a_device_cannot_steer_the_terminal() -> None:
    told = ToldFleet()
    told.devices = [scenario.device(1, why_not_at_target="[bold red]\x1b]0;owned\x07[/nonsense]")]

    async def story(app: FleetApp, pilot: Pilot[None]) -> None:
        assert "\x1b" not in app.export_screenshot()

    play(told, story)


@pytest.mark.parametrize("size", [WIDE, SMALL], ids=["wide", "small"])
def test_the_overview_looks_as_it_did(snap_compare: Any, size: tuple[int, int]) -> None:
    # `Any`: pytest-textual-snapshot's fixture has no type.
    app = app_of(ToldFleet())

    async def settle(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: bool(overview(app).state.devices))

    assert snap_compare(app, terminal_size=size, run_before=settle)
