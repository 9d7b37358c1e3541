"""Flower apps at the operator's side: what is asked, what is refused at once, and how such a campaign looks."""

import json
from pathlib import Path

import pytest

import fleet.__main__ as commands
from fleet.commands.common import Surroundings
from fleet.views import campaigns as views
from shared.api.campaigns import FlowerCampaignCreate, FlowerRun
from shared.exit_codes import ExitCode
from shared.flower_apps import InvalidFlowerAppError, read_app
from tests.fleet import scenario
from tests.fleet.test_commands import ENVIRON
from tests.fleet.told import ToldFleet

APP = Path(__file__).parents[1] / "flower_apps" / "quickstart-xgboost"


@pytest.fixture
def surroundings() -> Surroundings:
    return Surroundings(environ=ENVIRON, transport=ToldFleet().transport(), now=lambda: scenario.NOW)


def test_the_apps_content_and_what_differs_from_its_configuration_are_asked(
    surroundings: Surroundings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["--set", "params.eta=0.1", "--set", "num-server-rounds=5", "--select", "sites=north"]

    code = commands.campaigns(["start", "--flower-app", str(APP), *settings, "--json"], surroundings)

    assert code == ExitCode.OK
    shown = json.loads(capsys.readouterr().out)
    asked = shown["flower"]
    assert (asked["app"], asked["digest"]) == ("flwrlabs/quickstart-xgboost", read_app(APP).digest)
    assert asked["config"] == {"params.eta": "0.1", "num-server-rounds": "5"}
    assert shown["selection"]["sites"] == ["north"]


@pytest.mark.parametrize("option", [["--rounds", "3"], ["--epsilon", "1"], ["--secure"], ["--model", "m"], ["digits"]])
def test_what_the_app_decides_is_not_the_operators(
    option: list[str], surroundings: Surroundings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.campaigns(["start", "--flower-app", str(APP), *option], surroundings) == ExitCode.USAGE
    assert "the app decides that" in capsys.readouterr().err


def test_a_task_still_needs_its_model(surroundings: Surroundings, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.campaigns(["start", "digits"], surroundings) == ExitCode.USAGE
    assert "--flower-app" in capsys.readouterr().err


def test_a_wrong_setting_is_refused_before_anything_is_asked(surroundings: Surroundings) -> None:
    with pytest.raises(InvalidFlowerAppError, match=r"params\.eta"):
        commands.campaigns(["start", "--flower-app", str(APP), "--set", "eta=1"], surroundings)


@pytest.mark.parametrize(("rounds", "shown"), [(3, "1/3"), (0, "1")])
def test_such_a_campaign_says_what_it_runs_and_that_nobody_vouches_for_its_privacy(rounds: int, shown: str) -> None:
    config: dict[str, bool | int | float | str] = {"num-server-rounds": rounds} if rounds else {"rounds": 5}
    run = FlowerRun(app="flwrlabs/quickstart", version="1.0.0", digest="a" * 64, config=config)
    campaign = scenario.flower_campaign(FlowerCampaignCreate(flower=run))

    facts = {name: cell.text for name, cell in views.facts(campaign, now=scenario.NOW)}
    (row,) = views.campaign_table([campaign], now=scenario.NOW).rows

    assert facts["Flower app"] == "flwrlabs/quickstart 1.0.0, content aaaaaaaaaaaa"
    assert "no ledger" in facts["privacy"]
    assert "starting accuracy" not in facts
    assert [cell.text for cell in row.cells][1:6] == [
        "flower:flwrlabs/quickstart",
        "◐ running",
        shown,
        "flower-app",
        "the app's",
    ]
    newest, oldest = views.round_table(campaign, now=scenario.NOW).rows
    assert (oldest.cells[0].text, newest.cells[0].text) == ("1 train of round 1", "2 evaluate of round 1")
