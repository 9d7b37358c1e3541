"""`fleetlearn agent enrol|run|status`: the device's side of the command line. Light: only `run` loads the runtime."""

import argparse
import json
import os
import socket
import sys
import time
from pathlib import Path

from edge_agent.errors import AlreadyRunningError, NotEnrolledError
from edge_agent.light_imports import without
from edge_agent.settings import add_run_options, read_settings
from shared.errors import FleetlearnError
from shared.exit_codes import ExitCode

_EXIT_BY_ERROR: dict[type[FleetlearnError], ExitCode] = {
    NotEnrolledError: ExitCode.NOT_ENROLLED,
    AlreadyRunningError: ExitCode.ALREADY_RUNNING,
}

_TOKEN_CHARS_MAX = 1 << 16


def main(argv: list[str] | None = None) -> int:
    """Runs one of the three; an error becomes one clear line and an exit code of docs/reference/exit_codes.md."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as error:  # argparse has said why
        return ExitCode.OK if error.code in (0, None) else ExitCode.USAGE
    try:
        return int(arguments.action(arguments))
    except FleetlearnError as error:
        print(f"fleetlearn agent: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return _EXIT_BY_ERROR.get(type(error), ExitCode.FAILED)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fleetlearn agent", description="Enrol this machine, and run its agent.")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    enrol = actions.add_parser("enrol", help="turn a one-time token into this device's identity")
    enrol.add_argument(
        "--token",
        help="from `fleetlearn tokens create`; '-' reads it from standard input; or the variable "
        "FLEETLEARN_ENROLMENT_TOKEN",
    )
    enrol.add_argument("--state", type=Path, required=True, help="directory to keep the identity and all state in")
    enrol.add_argument("--device-id", help="a-z, 0-9 and inner '-'; made of this machine's name if not given")
    enrol.add_argument("--data", type=Path, help="folder with this device's own data")
    enrol.set_defaults(action=_enrol)
    run = actions.add_parser("run", help="run the agent: hub, releases, endpoint, training")
    add_run_options(run)
    run.set_defaults(action=_run)
    status = actions.add_parser("status", help="show what this device is and does")
    status.add_argument("--state", type=Path, required=True, help="state directory")
    status.add_argument("--json", action="store_true", help="one JSON object")
    status.set_defaults(action=_status)
    return parser


def _enrol(arguments: argparse.Namespace) -> int:
    from edge_agent.enrolment import EnrolmentOrder, default_device_id, enrol
    from edge_agent.state_dir import StateDir
    from shared.api.enrolment import EnrolmentToken
    from shared.ids import parse_device_id

    token = EnrolmentToken.decode(_token_text(arguments.token))
    name = arguments.device_id
    device_id = default_device_id(socket.gethostname()) if name is None else parse_device_id(name)
    enrolment = enrol(EnrolmentOrder(token, device_id, arguments.data), StateDir(arguments.state.absolute()))
    hub = enrolment.hub_url or enrolment.hub_hostname
    print(f"enrolled {enrolment.device_id} with {enrolment.coordinator_url}, hub {hub}")
    print(f"next: fleetlearn agent run --state {arguments.state}")
    return ExitCode.OK


def _token_text(option: str | None) -> str:
    """The token as given; a command line shows it to the machine's other users, `-` and the variable do not."""
    if option == "-":
        return sys.stdin.readline(_TOKEN_CHARS_MAX).strip()
    return option or os.environ.get("FLEETLEARN_ENROLMENT_TOKEN", "")


def _run(arguments: argparse.Namespace) -> int:
    settings = read_settings(arguments, os.environ)
    # structlog would load rich and greenlet where they are installed: 4 MB for pictures of tracebacks.
    with without("rich", "greenlet"):
        _configure_logs(settings.log_format)
    # Before numpy loads: its linear algebra would keep threads and their buffers, and nothing here multiplies matrices.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # The runtime, the hub's SDK and the endpoint: 60 MB that enrol and status do without.
    from edge_agent.compose import run_agent

    exit_code = run_agent(settings)
    sys.stdout.flush()
    return exit_code


def _status(arguments: argparse.Namespace) -> int:
    from edge_agent.state_dir import StateDir
    from edge_agent.status import status, table

    document = status(StateDir(arguments.state.absolute()), now=time.time())
    print(json.dumps(document) if arguments.json else table(document))
    return ExitCode.OK


def _configure_logs(log_format: str) -> None:
    import structlog

    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if log_format == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


if __name__ == "__main__":
    sys.exit(main())
