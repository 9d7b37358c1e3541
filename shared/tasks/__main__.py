"""`fleetlearn task`: list the installed tasks, check one, write a device's data."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from shared.errors import ExtraNotInstalledError
from shared.exit_codes import ExitCode
from shared.tasks.flower_app import write_flower_app
from shared.tasks.registry import installed_tasks, load_task


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand; returns 1 when a checked task is unsound."""
    arguments = _parser().parse_args(argv)
    code: int = arguments.run(arguments)
    return code


def _list(arguments: argparse.Namespace) -> int:
    tasks = installed_tasks()
    if arguments.json:
        print(json.dumps(tasks))
    else:
        print("\n".join(f"{name:<20} version {version}" for name, version in tasks.items()) or "no task is installed")
    return ExitCode.OK


def _check(arguments: argparse.Namespace) -> int:
    task = load_task(arguments.name)
    try:
        # torch, Opacus and the exporter cost seconds: only a check pays for them.
        from shared.tasks.check import check_task
    except ModuleNotFoundError as error:
        raise ExtraNotInstalledError(f"`fleetlearn task check` ({error.name})", extra="cloud") from error
    findings = check_task(task)
    sound = all(finding.sound for finding in findings)
    if arguments.json:
        print(json.dumps({"task": task.name, "sound": sound, "findings": [asdict(each) for each in findings]}))
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.sound else 'FAIL'}  {finding.name:<22} {finding.message}")
        print(f"{task.name} {task.version} is {'sound' if sound else 'not sound'}")
    return ExitCode.OK if sound else ExitCode.FAILED


def _data(arguments: argparse.Namespace) -> int:
    task = load_task(arguments.name)
    slices = tuple(arguments.slice)
    if not slices:
        known = list(task.device_slices())
        print(json.dumps({"slices": known}) if arguments.json else "\n".join(known))
        return ExitCode.OK
    if arguments.out is None:
        raise SystemExit("fleetlearn task data: --out DIR is needed to write slices")
    task.write_device_data(arguments.out, slices)
    data = task.device_data(arguments.out)
    figures = {"dataset_id": data.dataset_id, "train": len(data.train), "held_out": len(data.held_out)}
    if arguments.json:
        print(json.dumps({"task": task.name, "out": str(arguments.out), **figures}))
    else:
        print(f"wrote {figures['train']} examples and {figures['held_out']} held out to {arguments.out}")
    return ExitCode.OK


def _flower_app(arguments: argparse.Namespace) -> int:
    task = load_task(arguments.name)
    write_flower_app(task, arguments.out)
    if arguments.json:
        print(json.dumps({"task": task.name, "out": str(arguments.out)}))
    else:
        print(f"wrote the Flower app of {task.name} to {arguments.out}\nnext: flwr run {arguments.out}")
    return ExitCode.OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fleetlearn task", description="The learning problems on this machine")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="installed tasks and their versions")
    check = commands.add_parser("check", help="is a task sound?")
    data = commands.add_parser("data", help="a task's natural slices: name them, or write some as a device's data")
    flower_app = commands.add_parser("flower-app", help="writes a task as a Flower app, for Flower's own SuperLink")
    for command, run in ((listing, _list), (check, _check), (data, _data), (flower_app, _flower_app)):
        command.add_argument("--json", action="store_true", help="one JSON document")
        command.set_defaults(run=run)
    check.add_argument("name")
    flower_app.add_argument("name")
    flower_app.add_argument("--out", type=Path, required=True, metavar="DIR", help="the app's folder")
    data.add_argument("name")
    data.add_argument("--slice", nargs="+", default=[], metavar="S", help="slices to write; none lists them")
    data.add_argument("--out", type=Path, metavar="DIR", help="the device's data folder")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
