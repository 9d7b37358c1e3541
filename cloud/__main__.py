"""`fleetlearn up` and `fleetlearn coordinator`: arguments in, an exit code out. Settings are read here, once."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from shared.exit_codes import ExitCode

if TYPE_CHECKING:
    from cloud.settings import Settings


def up(argv: list[str]) -> int:
    """Starts the local hub and the coordinator, and watches them."""
    parser = _parser("fleetlearn up", "Starts the local hub and the coordinator, and watches them until Ctrl-C.")
    _add_settings(parser)
    parser.add_argument("--mqtt-port", type=int, metavar="PORT", help="of the hub, for devices (8883)")
    parser.add_argument("--check", action="store_true", help="only ask a running one how it is")
    arguments = vars(parser.parse_args(argv))
    is_check = arguments.pop("check")
    return _with_settings(arguments, _check if is_check else _up)


def coordinator(argv: list[str]) -> int:
    """Runs the coordinator by itself."""
    parser = _parser("fleetlearn coordinator", "The coordinator by itself; its hub runs elsewhere.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_settings(commands.add_parser("serve", help="run it until SIGTERM or Ctrl-C"))
    return _with_settings(vars(parser.parse_args(argv)), _serve)


def _parser(program: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=program, description=description, epilog="Every setting: docs/reference/settings.md."
    )


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", dest="data_dir", type=Path, metavar="DIR", help="data folder (fleetlearn-data)")
    parser.add_argument("--address", metavar="IP", help="address to listen on, which devices dial (127.0.0.1)")
    parser.add_argument("--port", type=int, metavar="PORT", help="of the coordinator (8444)")
    parser.add_argument("--hub-rest-port", type=int, metavar="PORT", help="of the hub, for the coordinator (8443)")


def _with_settings(flags: dict[str, object], run: "Callable[[Settings], int]") -> int:
    # Everything of the coordinator waits until the command line is understood: --help answers at once.
    from cloud.locks import AlreadyRunningError
    from cloud.settings import read_settings

    try:
        return run(read_settings(flags, os.environ))
    except AlreadyRunningError as error:
        print(f"fleetlearn: {error.message}\n  {error.hint}", file=sys.stderr)
        return ExitCode.ALREADY_RUNNING


def _up(settings: "Settings") -> int:
    from cloud.up import up

    return up(settings)


def _serve(settings: "Settings") -> int:
    from cloud.serve import serve

    serve(settings)
    return ExitCode.OK


def _check(settings: "Settings") -> int:
    from cloud.health import OK
    from cloud.up import check

    states = check(settings)
    for name, state in states.items():
        print(f"{name:<12} {state}")
    return ExitCode.OK if set(states.values()) == {OK} else ExitCode.FAILED
