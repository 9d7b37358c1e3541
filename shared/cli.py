"""The one command, `fleetlearn`: finds the subcommand among the installed packages' and hands it the arguments.

A package contributes a subcommand by an entry point in the group `fleetlearn.commands`, a function from the remaining
arguments to an exit code. Only the chosen one is imported, so each needs only the extras it uses.
"""

import sys
from importlib.metadata import EntryPoint, entry_points, version

from shared.errors import ExtraNotInstalledError, FleetlearnError
from shared.exit_codes import ExitCode

_PURPOSES = {
    "up": "Start the local hub and the coordinator for real use",
    "demo": "Run the whole loop on this machine, on real data, and show what happened",
    "agent": "Enrol this machine as a device, and run the agent",
    "tui": "Watch and operate the fleet in the terminal",
    "devices": "List and show devices",
    "campaigns": "List, show and start federated training campaigns",
    "analytics": "Ask what a feature looks like over the fleet, with privacy",
    "models": "List and show model versions",
    "releases": "List, show and publish releases",
    "rollouts": "List, show, start and stop rollouts",
    "alerts": "List and show alerts",
    "tokens": "Make enrolment tokens",
    "keys": "Make and keep the keys that sign releases",
    "task": "List tasks, check one, write its data",
    "hub": "Run the local, IoT Hub-compatible hub by itself",
    "coordinator": "Run the coordinator by itself",
    "simulate": "Run federated experiments on this machine, compare them, and search for better ones",
    "bench": "Measure ours beside the baseline, in one run",
}
_EXTRA_BY_COMMAND = {
    "agent": "agent",
    "coordinator": "cloud",
    "hub": "cloud",
    "up": "cloud",
    "demo": "sim",
    "bench": "sim",
    "simulate": "sim",
    "task": "train,tasks",
}


def main(argv: list[str] | None = None) -> int:
    """Runs one subcommand and returns its exit code; an error of ours becomes one clear line, not a traceback."""
    arguments = sys.argv[1:] if argv is None else argv
    commands = {point.name: point for point in entry_points(group="fleetlearn.commands")}
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help(commands))
        return ExitCode.OK
    name, *rest = arguments
    if name == "--version":
        print(f"fleetlearn {version('fleetlearn')}")
        return ExitCode.OK
    if name not in commands:
        print(f"fleetlearn: no command {name!r}; `fleetlearn --help` lists them", file=sys.stderr)
        return ExitCode.USAGE
    return _run(commands[name], rest)


def _run(point: EntryPoint, arguments: list[str]) -> int:
    try:
        return int(_load(point)(arguments) or ExitCode.OK)
    except FleetlearnError as error:
        print(f"fleetlearn {point.name}: {error.message} [{error.code}]", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return ExitCode.FAILED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def _load(point: EntryPoint):  # type: ignore[no-untyped-def]  # an entry point is whatever its package says
    try:
        return point.load()
    except ModuleNotFoundError as error:
        extra = _EXTRA_BY_COMMAND.get(point.name, "tui")
        raise ExtraNotInstalledError(f"`fleetlearn {point.name}` ({error.name})", extra=extra) from error


def _help(commands: dict[str, EntryPoint]) -> str:
    known = [name for name in _PURPOSES if name in commands]
    others = sorted(set(commands) - set(known))
    rows = [f"  {name:<12} {_PURPOSES.get(name, '')}".rstrip() for name in known + others]
    return "\n".join(["usage: fleetlearn COMMAND [--help] ...", "", *rows])
