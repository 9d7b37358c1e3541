"""The reference pages name all there is: a new event, exit code or setting without a line there fails here."""

import argparse
from pathlib import Path

import pytest
from pydantic import BaseModel

from edge_agent.settings import ENVIRONMENT_PREFIX, add_run_options
from shared.exit_codes import ExitCode
from shared.lifecycles import ReleaseState
from shared.messages import desired, events, work
from shared.messages.work import DOORBELL, WorkKind
from shared.strategies import STRATEGIES

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
MESSAGES: tuple[type[BaseModel], ...] = (
    events.Envelope,
    events.Heartbeat,
    events.ReleaseStatus,
    events.WorkResult,
    events.FeatureDrift,
    events.ServingReport,
    desired.DesiredDocument,
    desired.DesiredRelease,
    desired.ReportedDocument,
    desired.ReportedRelease,
    work.Work,
    work.WorkList,
)


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("message", MESSAGES)
def test_every_field_of_every_message_is_named(message: type[BaseModel]) -> None:
    assert [field for field in message.model_fields if f"`{field}`" not in page("messages.md")] == []


def test_every_kind_state_and_command_is_named() -> None:
    values = [*events.EventKind, *events.WorkStatus, *ReleaseState, *WorkKind, DOORBELL]
    assert [value for value in values if f"`{value}`" not in page("messages.md")] == []


def test_every_strategy_is_named_with_its_settings() -> None:
    lines = {line.split("`")[1]: line for line in page("strategies.md").splitlines() if line.startswith("| `")}
    assert set(STRATEGIES) <= lines.keys()
    for name, kind in STRATEGIES.items():
        settings = [setting for setting in kind.model_fields if setting != "name"]
        assert [setting for setting in settings if f"`{setting}`" not in lines[name]] == [], name


def test_every_exit_code_is_named_with_its_number() -> None:
    text = page("exit_codes.md")
    assert [code for code in ExitCode if f"| {code.value} | `{code.name}` |" not in text] == []


def test_every_setting_of_the_agent_is_named_with_its_variable() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    add_run_options(parser)
    options = [option for action in parser._actions for option in action.option_strings]
    names = [f"{ENVIRONMENT_PREFIX}{option.removeprefix('--').replace('-', '_').upper()}" for option in options]
    missing = [name for name in [*options, *names] if f"`{name}`" not in page("agent.md")]
    assert missing == []
