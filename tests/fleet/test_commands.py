"""Commands: standard output is the API's own JSON or a table; everything else goes to standard error."""

import json
from pathlib import Path
from typing import Any

import pytest

import fleet.__main__ as commands
from fleet.commands.common import Surroundings
from fleet.commands.tokens import parse_duration
from fleet.errors import ApiError
from shared.exit_codes import ExitCode
from shared.lifecycles import RolloutState
from tests.fleet import scenario
from tests.fleet.told import TOKEN, ToldFleet

ENVIRON = {"FLEETLEARN_URL": "https://coordinator.test", "FLEETLEARN_TOKEN": TOKEN}


@pytest.fixture
def told() -> ToldFleet:
    return ToldFleet()


@pytest.fixture
def surroundings(told: ToldFleet) -> Surroundings:
    return Surroundings(environ=ENVIRON, transport=told.transport(), now=lambda: scenario.NOW)


@pytest.mark.parametrize("name", ["devices", "campaigns", "rollouts", "releases", "models", "alerts"])
def test_json_of_a_list_is_exactly_the_apis(
    name: str, surroundings: Surroundings, told: ToldFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert getattr(commands, name)(["list", "--json"], surroundings) == ExitCode.OK
    output = capsys.readouterr()
    assert json.loads(output.out) == [value.model_dump(mode="json") for value in getattr(told, name)]
    assert output.err == ""


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("devices", "wrist-05"),
        ("campaigns", "5ca1ab1e"),
        ("rollouts", "b0a710ad"),
        ("releases", "…e7d30f51"),
        ("models", "c0ffee1"),
        ("alerts", "a1e27001"),
    ],
)
def test_show_takes_enough_of_an_id_and_gives_one_object(
    name: str, part: str, surroundings: Surroundings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert getattr(commands, name)(["show", part, "--json"], surroundings) == ExitCode.OK
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert any(str(value).endswith(part.removeprefix("…")) for value in shown.values())


@pytest.mark.parametrize("name", ["devices", "campaigns", "rollouts", "releases", "models", "alerts"])
def test_tables_have_no_escape_sequences_in_a_pipe(
    name: str, surroundings: Surroundings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert getattr(commands, name)(["list"], surroundings) == ExitCode.OK
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert text.strip()


def test_the_device_table_says_why_one_is_not_at_its_target(
    surroundings: Surroundings, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.devices(["list", "--filter", "opset"], surroundings)
    text = capsys.readouterr().out
    assert "Expected opset 23 or older, got 24" in text
    assert "wrist-01" not in text
    assert "9 of 11 online" in text


def test_privacy_over_all_campaigns_is_the_apis_json_or_a_table(
    surroundings: Surroundings, told: ToldFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.devices(["privacy", "--json"], surroundings) == ExitCode.OK
    shown = json.loads(capsys.readouterr().out)
    assert shown == [account.model_dump(mode="json") for account in scenario.accounts()]
    assert commands.devices(["privacy", "wrist-10"], surroundings) == ExitCode.OK
    text = capsys.readouterr().out
    assert "wrist-04" not in text
    assert "ε 7.60 of 8" in text
    assert "all its data" in text
    assert "some work it was asked for may not be paid yet" in text
    assert "its ledger paid for more than is known here" in text


def test_a_token_comes_with_the_exact_command(surroundings: Surroundings, capsys: pytest.CaptureFixture[str]) -> None:
    commands.tokens(["create", "--device-id", "press-07", "--tag", "site=berlin", "--expires-in", "2h"], surroundings)
    text = capsys.readouterr().out
    assert "fleetlearn agent enrol --state /var/lib/fleetlearn --device-id press-07 --token fle1.c2VjcmV0" in text
    assert "expires in 2 h" in text


def test_a_long_token_is_printed_on_one_line(
    surroundings: Surroundings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.fleet.told.TOKEN_TEXT", "fle1." + "a" * 700)
    commands.tokens(["create"], surroundings)
    assert "fle1." + "a" * 700 in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h", 3600), ("7d", 604_800), ("1.5h", 5400)]
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "--expires-in", "soon"],
        ["create", "--expires-in", "90d"],
        ["create", "--tag", "site"],
        ["create", "--device-id", "Not An Id"],
        ["create", "--bogus"],
        ["destroy"],
    ],
)
def test_a_command_line_that_is_not_understood_is_a_usage_error(
    arguments: list[str], surroundings: Surroundings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.tokens(arguments, surroundings) == ExitCode.USAGE
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err


def test_a_rollout_is_shown_first_and_started_only_after_yes(
    surroundings: Surroundings, told: ToldFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["start", "e7d30f51", "--wave", "0.2", "--wave", "1.0", "--soak-s", "7", "--yes", "--json"]
    assert commands.rollouts(arguments, surroundings) == ExitCode.OK
    output = capsys.readouterr()
    started = json.loads(output.out)
    assert (started["state"], started["release_id"], started["soak_s"]) == ("running", scenario.NEW_RELEASE, 7)
    assert "wave 1 canary: 2 devices: wrist-01, wrist-02" in output.err


def test_a_rollout_nobody_confirms_is_stopped(
    surroundings: Surroundings, told: ToldFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "n")
    assert commands.rollouts(["start", "e7d30f51"], surroundings) == ExitCode.FAILED
    assert told.rollouts[0].state is RolloutState.STOPPED


def test_a_lifecycle_that_says_no_is_an_error_with_a_hint(surroundings: Surroundings) -> None:
    with pytest.raises(ApiError) as caught:
        commands.rollouts(["resume", "b0a710ad"], surroundings)
    assert caught.value.api_code == "illegal_transition"
    assert caught.value.hint


def test_closing_an_alert_shows_it_closed(
    surroundings: Surroundings, told: ToldFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.alerts(["close", "a1e27001", "--json"], surroundings) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["closed_at"] == scenario.NOW


def test_a_signing_key_is_made_once_and_listed_by_its_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key_file = tmp_path / "keys" / "targets.pem"
    assert commands.keys(["make", str(key_file), "--json"]) == ExitCode.OK
    made = json.loads(capsys.readouterr().out)
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert commands.keys(["list", str(key_file.parent), "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"targets.pem": made["key_id"]}


def test_help_is_no_error(surroundings: Surroundings, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.devices(["list", "--help"], surroundings) == ExitCode.OK
    assert "--token-file" in capsys.readouterr().out
