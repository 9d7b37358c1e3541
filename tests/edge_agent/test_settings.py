"""The agent's settings: an option wins over its variable, which wins over the default; a wrong one is named."""

import argparse
from pathlib import Path

import pytest

from edge_agent.errors import InvalidSettingError
from edge_agent.settings import AgentSettings, add_run_options, read_settings


def _read(*arguments: str, **environment: str) -> AgentSettings:
    parser = argparse.ArgumentParser()
    add_run_options(parser)
    return read_settings(parser.parse_args(["--state", "/state", *arguments]), environment)


def test_a_device_trains_with_privacy_only_unless_its_owner_says_otherwise() -> None:
    assert not _read().allow_without_privacy
    assert _read("--allow-without-privacy").allow_without_privacy
    assert _read(FLEETLEARN_ALLOW_WITHOUT_PRIVACY="1").allow_without_privacy
    assert not _read(FLEETLEARN_ALLOW_WITHOUT_PRIVACY="0").allow_without_privacy


def test_an_option_wins_over_its_variable() -> None:
    assert _read("--epsilon-limit", "3", FLEETLEARN_EPSILON_LIMIT="5").epsilon_limit == 3
    assert _read(FLEETLEARN_EPSILON_LIMIT="5").epsilon_limit == 5


def test_nothing_given_is_the_default() -> None:
    assert _read() == AgentSettings(Path("/state"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--epsilon-limit", "0"),
        ("--epsilon-limit", "nan"),
        ("--delta", "1"),
        ("--serve-port", "65536"),
        ("--drift-window", "-1"),
        ("--heartbeat-s", "soon"),
    ],
)
def test_a_wrong_value_names_its_setting(option: str, value: str) -> None:
    with pytest.raises(InvalidSettingError, match=option.removeprefix("--")):
        _read(f"{option}={value}")


def test_a_wrong_variable_names_its_setting() -> None:
    with pytest.raises(InvalidSettingError, match="allow-without-privacy"):
        _read(FLEETLEARN_ALLOW_WITHOUT_PRIVACY="perhaps")
