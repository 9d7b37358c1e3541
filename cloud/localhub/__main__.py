"""`fleetlearn hub`: runs the local hub, and prints the connection strings of its policies."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from cloud.localhub.errors import LocalHubError, StartError
from cloud.localhub.policies import connection_string
from cloud.localhub.tls import ca_file

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
    _add_add_device(commands.add_parser("add-device", help="register a device, print what it connects with"))
    for name, (text, add_options) in more.items():
        add_options(commands.add_parser(name, help=text))
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_serve)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="where the hub keeps its state")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--mqtt-port", type=int, default=8883, help="for devices; Azure's SDKs know only 8883")
    parser.add_argument("--rest-port", type=int, default=8443, help="for services (default: %(default)s)")
    parser.add_argument("--hostname", default="", metavar="H", help="what devices dial (default: the address)")
    parser.add_argument("--certificate", type=Path, metavar="PEM", help="the hub's own (default: it makes one)")
    parser.add_argument("--key", type=Path, metavar="PEM", help="its private key")
    parser.add_argument("--client-ca", type=Path, metavar="PEM", help="who signs devices' certificates")


def _add_connection_string(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_connection_string)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="where the hub keeps its state")
    parser.add_argument("--policy", default="iothubowner", help="whose key (default: %(default)s)")
    parser.add_argument("--hostname", default="localhost:8443", metavar="H:PORT", help="(default: %(default)s)")


def _add_add_device(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_add_device)
    parser.add_argument("device_id", metavar="DEVICE_ID")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the running hub's data folder")
    parser.add_argument("--hostname", default="localhost:8443", metavar="H:PORT", help="(default: %(default)s)")
    parser.add_argument("--ca", type=Path, metavar="PEM", help="whom to trust (default: DIR/tls/ca.pem)")


def _serve(arguments: argparse.Namespace) -> int:
    # Only the server needs uvicorn; a connection string is printed without loading it (0.1 s).
    from cloud.localhub import logs
    from cloud.localhub.server import Settings, serve

    certificate, key, client_ca = _certificate(arguments)
    logs.configure()
    settings = Settings(
        data_dir=arguments.data,
        certificate=certificate,
        key=key,
        client_ca=client_ca,
        address=arguments.address,
        mqtt_port=arguments.mqtt_port,
        rest_port=arguments.rest_port,
        hostname=arguments.hostname,
    )
    asyncio.run(serve(settings))
    return _OK


def _certificate(arguments: argparse.Namespace) -> tuple[Path, Path, Path]:
    """The files of the certificate, its key and the clients' CA: all three as told, or all the hub's own."""
    told = (arguments.certificate, arguments.key, arguments.client_ca)
    if all(told):
        return told
    if any(told):
        raise StartError("Expected all of --certificate, --key and --client-ca, or none of them, got some")
    # Only a hub without a certificate makes one: cryptography takes 30 ms to load.
    from cloud.localhub.own_certificate import ensure_certificate

    files = ensure_certificate(arguments.data, address=arguments.address)
    return files.server, files.server, files.ca


def _add_device(arguments: argparse.Namespace) -> int:
    # ssl and urllib are for this command alone.
    from cloud.localhub.adding import add_device

    ca = arguments.ca or ca_file(arguments.data)
    print(add_device(arguments.data, arguments.device_id, hostname=arguments.hostname, ca=ca))
    return _OK


def _connection_string(arguments: argparse.Namespace) -> int:
    print(connection_string(arguments.data, hostname=arguments.hostname, policy=arguments.policy))
    return _OK


if __name__ == "__main__":
    sys.exit(main())
