"""What the demonstration was asked to do: parsed and checked before anything is written or started."""

import argparse
import errno
import ipaddress
import math
import socket
from collections.abc import Sequence
from pathlib import Path

from shared.errors import FleetlearnError

PORT, HUB_REST_PORT, HUB_MQTT_PORT = 8444, 8443, 8883
EPSILON_MAX = 10.0
"""The agent's own default limit for a data set: a device refuses to spend more."""
_ROUNDS_MAX = 1000


class DemoError(FleetlearnError):
    """The demonstration cannot run as asked."""

    code = "demo_error"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options. Ends the process with code 2 and one sentence for a value that makes no sense."""
    parser = argparse.ArgumentParser(
        prog="fleetlearn demo",
        description="The main job on this machine, on real data and real processes, through public interfaces only.",
    )
    parser.add_argument("--devices", type=int, default=5, help="devices to enrol, each a process (default: 5)")
    parser.add_argument("--rounds", type=_rounds, default=10, help="federated rounds (default: 10)")
    parser.add_argument("--epsilon", type=_epsilon, default=8.0, help="privacy budget of a unit of data (default: 8)")
    parser.add_argument("--keep-running", action="store_true", help="leave everything running until Ctrl-C")
    parser.add_argument(
        "--json", action="store_true", help="print the summary as JSON; progress goes to standard error"
    )
    parser.add_argument("--task", default="physio", help="an installed task with device slices (default: physio)")
    parser.add_argument(
        "--data", type=Path, default=Path("demo-data"), help="folder for all files (default: demo-data)"
    )
    parser.add_argument(
        "--address", type=_loopback, default="127.0.0.1", help="loopback address to listen on (default: 127.0.0.1)"
    )
    return parser.parse_args(argv)


def refuse_taken_ports(address: str) -> None:
    """Raises DemoError when the hub or the coordinator could not listen on this address."""
    for port in (PORT, HUB_REST_PORT, HUB_MQTT_PORT):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                raise _cannot_listen(address, port, error) from error


def _cannot_listen(address: str, port: int, error: OSError) -> DemoError:
    if error.errno == errno.EADDRINUSE:
        return DemoError(
            f"Expected port {port} of {address} free, got a process that listens there",
            hint="Is another demonstration or `fleetlearn up` running? Stop it, or give another --address, 127.0.0.2.",
        )
    return DemoError(
        f"Expected an address of this machine to listen on, got {address}: {error.strerror}",
        hint="127.0.0.1 is always one; macOS knows no other loopback address until you add it.",
    )


def _rounds(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= _ROUNDS_MAX):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {_ROUNDS_MAX}, got {text!r}")
    return int(text)


def _epsilon(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= EPSILON_MAX:
        raise argparse.ArgumentTypeError(
            f"expected a number above 0 and at most {EPSILON_MAX:g}, the limit that each device keeps, got {text!r}"
        )
    return value


def _loopback(text: str) -> str:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise argparse.ArgumentTypeError(f"expected an address of 127.0.0.1 to 127.255.255.254, got {text!r}")
    return text
