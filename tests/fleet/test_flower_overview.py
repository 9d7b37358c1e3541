"""The terminal app over a campaign that runs a Flower app: no accuracy of ours, no strategy of ours, and no trouble."""

from textual.pilot import Pilot

from fleet.app import FleetApp
from shared.api.campaigns import DeviceOutcome, FlowerCampaignCreate, FlowerRun
from tests.fleet import scenario
from tests.fleet.test_app import SMALL, WIDE, play, table
from tests.fleet.told import ToldFleet


def test_the_overview_shows_who_answered_what_the_app_sent_last() -> None:
    told = ToldFleet()
    asked = FlowerCampaignCreate(flower=FlowerRun(app="flwrlabs/quickstart", version="1.0.0", digest="a" * 64))
    running = scenario.flower_campaign(asked)
    newest = running.history[-1].model_copy(
        update={"devices": [DeviceOutcome(device_id="wrist-02", status="failed", reason="Out of coffee")]}
    )
    told.campaigns = [running.model_copy(update={"history": [running.history[0], newest]})]

    async def story(app: FleetApp, pilot: Pilot[None]) -> None:
        assert [row.key for row in table(app, "outcomes").shown.rows] == ["wrist-02"]

    for size in (WIDE, SMALL):
        play(told, story, size=size)
