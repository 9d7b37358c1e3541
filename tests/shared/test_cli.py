"""The one command: what it lists, and how it says that something went wrong."""

from importlib.metadata import EntryPoint

import pytest

from shared import cli
from shared.exit_codes import ExitCode


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == ExitCode.OK
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in ("up", "demo", "agent", "devices", "bench"))


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["deploy"]) == ExitCode.USAGE
    assert "no command 'deploy'" in capsys.readouterr().err


def test_an_error_of_ours_is_one_sentence_its_code_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["task", "check", "no-such-task"]) == ExitCode.FAILED
    sentence, hint = capsys.readouterr().err.splitlines()
    assert sentence.startswith("fleetlearn task: Expected an installed task")
    assert sentence.endswith("[unknown_task]")
    assert hint.startswith("  Install the package")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    absent = EntryPoint(name="agent", value="a_package_that_is_not_installed:main", group="fleetlearn.commands")
    monkeypatch.setattr(cli, "entry_points", lambda group: [absent])
    assert cli.main(["agent", "run"]) == ExitCode.FAILED
    assert "pip install 'fleetlearn[agent]'" in capsys.readouterr().err
