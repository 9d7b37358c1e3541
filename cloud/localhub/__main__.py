"""`fleetlearn hub`: runs the local hub, and prints the connection strings of its policies."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cloud.localhub.errors import LocalHubError, StartError
from cloud.localhub.faults import Fault, parse_toml
from cloud.localhub.partitions import PARTITIONS_MAX
from cloud.localhub.policies import connection_string, events_connection_string
from cloud.localhub.throttles import UNITS_MAX, Plan, Tier
from cloud.localhub.tls import ca_file

if TYPE_CHECKING:
    from cloud.localhub.calling import RunningHub

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
    _add_enroll(commands.add_parser("enroll", help="let devices register themselves, print what they do it with"))
    _add_query(commands.add_parser("query", help="print what a query finds, one JSON object a line"))
    _add_send(commands.add_parser("send", help="send a message to a device"))
    for name, (text, add_options) in more.items():
        add_options(commands.add_parser(name, help=text))
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_serve)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="where the hub keeps its state")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--mqtt-port", type=int, default=8883, help="for devices; Azure's SDKs know only 8883")
    parser.add_argument("--rest-port", type=int, default=8443, help="for services (default: %(default)s)")
    parser.add_argument("--amqp-port", type=int, metavar="PORT", help="for consumers of events, 5671 (default: none)")
    parser.add_argument("--hostname", default="", metavar="H", help="what devices dial (default: the address)")
    parser.add_argument("--certificate", type=Path, metavar="PEM", help="the hub's own (default: it makes one)")
    parser.add_argument("--key", type=Path, metavar="PEM", help="its private key")
    parser.add_argument("--client-ca", type=Path, metavar="PEM", help="who signs devices' certificates")
    parser.add_argument(
        "--partitions", type=int, choices=range(1, PARTITIONS_MAX + 1), metavar="N", help="of a new event log (4)"
    )
    parser.add_argument("--tier", choices=list(Tier), help="hold the throttles of a tier of Azure's (default: none)")
    parser.add_argument("--units", type=int, default=1, metavar="N", help="of the tier (default: %(default)s)")
    parser.add_argument("--faults", type=Path, metavar="TOML", help="faults to inject")


def _add_connection_string(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_connection_string)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="where the hub keeps its state")
    parser.add_argument("--policy", default="iothubowner", help="whose key (default: %(default)s)")
    parser.add_argument("--hostname", default="localhost:8443", metavar="H:PORT", help="(default: %(default)s)")
    parser.add_argument("--events", action="store_true", help="of the endpoint for consumers of events, by AMQP")


def _add_add_device(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_add_device)
    parser.add_argument("device_id", metavar="DEVICE_ID")
    _add_running_hub(parser)


def _add_enroll(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_enroll)
    parser.add_argument("enrollment_id", metavar="ID", help="the registration id, or the group's name")
    parser.add_argument("--group", action="store_true", help="for all who hold a key derived from the group's")
    _add_running_hub(parser)


def _add_query(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_query)
    parser.add_argument("text", metavar="QUERY", help="such as: SELECT * FROM devices WHERE tags.site = 'north'")
    _add_running_hub(parser)


def _add_send(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_send)
    parser.add_argument("device_id", metavar="DEVICE_ID")
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument("--property", action="append", default=[], metavar="KEY=VALUE", help="may be repeated")
    parser.add_argument("--message-id", metavar="ID", help="what the feedback calls the message")
    parser.add_argument("--ack", choices=("none", "positive", "negative", "full"), help="the feedback that is wanted")
    parser.add_argument("--expiry", metavar="TIME", help="in ISO 8601, within two days (default: in an hour)")
    _add_running_hub(parser)


def _add_running_hub(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the running hub's data folder")
    parser.add_argument("--hostname", default="localhost:8443", metavar="H:PORT", help="(default: %(default)s)")
    parser.add_argument("--ca", type=Path, metavar="PEM", help="whom to trust (default: DIR/tls/ca.pem)")


def _serve(arguments: argparse.Namespace) -> int:
    # Only the server needs uvicorn; a connection string is printed without loading it (0.1 s).
    import uvloop

    from cloud.localhub import logs
    from cloud.localhub.server import Settings, serve

    certificate, key, client_ca = _certificate(arguments)
    plan, faults = _plan(arguments), _faults(arguments.faults)
    logs.configure()
    settings = Settings(
        data_dir=arguments.data,
        certificate=certificate,
        key=key,
        client_ca=client_ca,
        address=arguments.address,
        mqtt_port=arguments.mqtt_port,
        rest_port=arguments.rest_port,
        amqp_port=arguments.amqp_port,
        hostname=arguments.hostname,
        partitions=arguments.partitions,
        plan=plan,
        faults=faults,
    )
    uvloop.run(serve(settings))  # An event costs less than on asyncio's own loop.
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


def _plan(arguments: argparse.Namespace) -> Plan | None:
    if not 1 <= arguments.units <= UNITS_MAX:
        raise StartError(f"Expected --units of 1 to {UNITS_MAX}, got {arguments.units}")
    return None if arguments.tier is None else Plan(Tier(arguments.tier), arguments.units)


def _faults(path: Path | None) -> tuple[Fault, ...]:
    try:
        return () if path is None else parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"Expected a file of faults, got: {error}") from error


# Only the commands that call a hub load ssl and urllib (40 ms).


def _running_hub(arguments: argparse.Namespace) -> "RunningHub":
    from cloud.localhub.calling import RunningHub

    return RunningHub(arguments.data, arguments.hostname, arguments.ca or ca_file(arguments.data))


def _add_device(arguments: argparse.Namespace) -> int:
    from cloud.localhub.commands import add_device

    print(add_device(_running_hub(arguments), arguments.device_id))
    return _OK


def _enroll(arguments: argparse.Namespace) -> int:
    from cloud.localhub.commands import enroll
    from cloud.localhub.enrollments import Kind

    kind = Kind.GROUP if arguments.group else Kind.INDIVIDUAL
    print(enroll(_running_hub(arguments), arguments.enrollment_id, kind))
    return _OK


def _query(arguments: argparse.Namespace) -> int:
    from cloud.localhub.commands import query

    for row in query(_running_hub(arguments), arguments.text):
        print(json.dumps(row, ensure_ascii=False))
    return _OK


def _send(arguments: argparse.Namespace) -> int:
    from cloud.localhub.commands import send

    given = {
        "iothub-messageid": arguments.message_id,
        "iothub-ack": arguments.ack,
        "iothub-expiry": arguments.expiry,
    }
    system = {name: value for name, value in given.items() if value is not None}
    hub = _running_hub(arguments)
    send(hub, arguments.device_id, arguments.text, properties=arguments.property, system=system)
    return _OK


def _connection_string(arguments: argparse.Namespace) -> int:
    if arguments.events:
        host = arguments.hostname.partition(":")[0]  # The port is always 5671.
        print(events_connection_string(arguments.data, hostname=host, policy=arguments.policy))
    else:
        print(connection_string(arguments.data, hostname=arguments.hostname, policy=arguments.policy))
    return _OK


if __name__ == "__main__":
    sys.exit(main())
