"""`fleetlearn hub`: the local hub's own commands, and those about other hubs."""

import argparse
import sys

from cloud.hubs.mqtt.acl import ACL_BY_BROKER
from cloud.hubs.planning import add_plan
from cloud.localhub.__main__ import main as local_hub
from shared.hub.mqtt.address import FLEET


def main(argv: list[str] | None = None) -> int:
    """Runs one subcommand and returns its exit code."""
    return local_hub(
        argv,
        more={
            "acl": ("print the access list of an MQTT broker", _add_acl),
            "plan": ("cost and limits of Azure IoT Hub for a fleet of this size", add_plan),
        },
    )


def _add_acl(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_acl)
    parser.add_argument("--broker", choices=ACL_BY_BROKER, required=True, help="whose format")
    parser.add_argument("--fleet", default=FLEET, help="as in mqtts://HOST/FLEET (default: %(default)s)")


def _acl(arguments: argparse.Namespace) -> int:
    print(ACL_BY_BROKER[arguments.broker](arguments.fleet), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
