"""`fleetlearn hub`: runs the local hub, and prints the connection strings of its policies."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from cloud.localhub.errors import LocalHubError
from cloud.localhub.policies import connection_string

AddOptions = Callable[[argparse.ArgumentParser], None]
_OK, _FAILED, _USAGE = 0, 1, 2


def main(argv: list[str] | None = None, *, more: Mapping[str, tuple[str, AddOptions]] | None = None) -> int:
    """Runs one subcommand and returns its exit code; `more` are those of who embeds this, each with its help."""
    try:
        arguments = _parser(more or {}).parse_args(argv)
    except SystemExit as exit_:
        return _USAGE if exit_.code else _OK
    try:
        return int(arguments.run(arguments))
    except LocalHubError as error:
        print(f"fleetlearn hub: {error}", file=sys.stderr)
        return _FAILED


def _parser(more: Mapping[str, tuple[str, AddOptions]]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fleetlearn hub", description="The local, IoT Hub-compatible hub.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="run the hub until SIGTERM or Ctrl-C"))
    _add_connection_string(commands.add_parser("connection-string", help="print what a service connects with"))
    for name, (text, add_options) in more.items():
        add_options(commands.add_parser(name, help=text))
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_serve)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="where the hub keeps its state")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--mqtt-port", type=int, default=8883, help="for devices; Azure's SDKs know only 8883")
    parser.add_argument("--rest-port", type=int, default=8443, help="for services (default: %(default)s)")
    parser.add_argument("--certificate", type=Path, required=True, metavar="PEM", help="the hub's own certificate")
    parser.add_argument("--key", type=Path, required=True, metavar="PEM", help="its private key")
    parser.add_argument("--client-ca", type=Path, required=True, metavar="PEM", help="who signs devices' certificates")


def _add_connection_string(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_connection_string)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="where the hub keeps its state")
    parser.add_argument("--policy", default="iothubowner", help="whose key (default: %(default)s)")
    parser.add_argument("--hostname", default="localhost:8443", metavar="H:PORT", help="(default: %(default)s)")


def _serve(arguments: argparse.Namespace) -> int:
    # Only the server needs uvicorn; a connection string is printed without loading it (0.1 s).
    from cloud.localhub import logs
    from cloud.localhub.server import Settings, serve

    logs.configure()
    settings = Settings(
        data_dir=arguments.data,
        certificate=arguments.certificate,
        key=arguments.key,
        client_ca=arguments.client_ca,
        address=arguments.address,
        mqtt_port=arguments.mqtt_port,
        rest_port=arguments.rest_port,
    )
    asyncio.run(serve(settings))
    return _OK


def _connection_string(arguments: argparse.Namespace) -> int:
    print(connection_string(arguments.data, hostname=arguments.hostname, policy=arguments.policy))
    return _OK


if __name__ == "__main__":
    sys.exit(main())
