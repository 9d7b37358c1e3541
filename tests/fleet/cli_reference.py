"""Writes docs/reference/cli.md from the commands themselves: `python -m tests.fleet.cli_reference`."""

import argparse
import importlib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import click
import typer

from fleet.commands.common import _CONNECTION
from shared.cli import _PURPOSES
from simulations.simulate import compare, sweep
from simulations.simulate.__main__ import resume_parser, run_parser

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
SIMULATE = (run_parser, resume_parser, compare.parser, sweep.parser)
OURS = ("devices", "campaigns", "analytics", "models", "releases", "rollouts", "alerts", "tokens", "keys", "tui")
HEAD = """# The command line

<!-- Written by `python -m tests.fleet.cli_reference`; a test keeps it complete. -->

`fleetlearn COMMAND ...`. `--help` works everywhere. Standard output holds the answer and nothing else; progress,
questions and errors go to standard error. With `--json`, `list` prints an array and every other command one object,
exactly in the API's shapes. Exit codes: 0 done, 1 not done (one line says why, a second what to do), 2 the command line
was not understood, 130 stopped by Ctrl-C.

Where a command takes an id, four or more characters of its beginning or end are enough, as long as they fit one.

## Connection

The operator's commands find their coordinator in this order: flags, the directory of `--data`, the environment, then
`$FLEETLEARN_DATA_DIR` or `./fleetlearn-data` if nothing else names one. There is no flag for the token itself: other
users of a machine can read command lines.

| flag | environment | what |
|---|---|---|
| `--url URL` | `FLEETLEARN_URL` | the coordinator; plain `http` only on this machine |
| `--token-file FILE` | `FLEETLEARN_TOKEN_FILE`, or the token in `FLEETLEARN_TOKEN` | the operator's token |
| `--ca FILE` | `FLEETLEARN_CA` | the CA that signed the coordinator's certificate, in PEM |
| `--data DIR` | `FLEETLEARN_DATA_DIR` | a coordinator's directory on this machine, which has all three |

Proxies of the environment are not used: the token goes to the coordinator and nowhere else.

## All commands

"""


def page() -> str:
    """The whole page, from the entry points and the commands' own help."""
    names = sorted(point.name for point in entry_points(group="fleetlearn.commands"))
    rows = [f"| `fleetlearn {name}` | {_PURPOSES.get(name, '')} |" for name in names]
    sections = [line for name in OURS for line in _section(name)]
    sections += ["## fleetlearn simulate", "", *(line for parser in SIMULATE for line in _parser(parser()))]
    return HEAD + "\n".join(["| command | what |", "|---|---|", *rows, "", *sections]).rstrip() + "\n"


def _parser(parser: argparse.ArgumentParser) -> Iterator[str]:
    positionals = [str(action.metavar) for action in parser._actions if not action.option_strings]
    yield f"### `{' '.join([parser.prog, *positionals])}`"
    yield ""
    yield str(parser.description)
    yield ""
    for action in parser._actions:
        if action.option_strings and action.dest != "help" and action.help != argparse.SUPPRESS:
            value = f" {action.metavar}" if action.metavar else ""
            yield f"- `{', '.join(action.option_strings)}{value}`: {action.help}."
    yield ""


def _section(name: str) -> Iterator[str]:
    command = typer.main.get_command(importlib.import_module(f"fleet.commands.{name}").app)
    yield f"## fleetlearn {name}"
    yield ""
    if isinstance(command, click.Group):
        for sub_name, sub in command.commands.items():
            yield from _command(f"{name} {sub_name}", sub)
    else:
        yield from _command(name, command)


def _command(path: str, command: click.Command) -> Iterator[str]:
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    options = [p for p in command.params if isinstance(p, click.Option) and p.name not in _CONNECTION]
    usage = " ".join([f"fleetlearn {path}", *(str(a.metavar or a.name) for a in arguments)])
    yield f"### `{usage}`"
    yield ""
    yield (command.help or "").strip()
    yield ""
    for option in options:
        default = (
            f" Default: {option.default}." if isinstance(option.default, int | float | str) and option.default else ""
        )
        yield f"- `{'`, `'.join(option.opts)}`: {option.help}{default}"
    if options:
        yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
