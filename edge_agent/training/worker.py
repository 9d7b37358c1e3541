"""The training process of a device: `python -m edge_agent.training.worker`.

Speaks JSON lines with its parent. It says `{"type": "ready"}` once, or `{"type": "refused"}` with a reason, such as a
damaged ledger, and ends; then, for each line on standard input with `work`,
`model_path` and `update_path`, one `{"type": "result", "result": WorkResult}` on standard output. It ends at the end of
its input, and when its parent dies, even amid training: the work is charged then, and can be done again.
"""

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from edge_agent.errors import DamagedStateError

if TYPE_CHECKING:
    from edge_agent.training.flower_apps import FlowerApps
    from edge_agent.training.secure import SecureRounds

PARENT_CHECK_S = 0.5
LINE_BYTES_MAX = 1 << 20
NICENESS = 10
"""Training gives way to serving."""


def main(argv: list[str] | None = None) -> int:
    """Serves jobs until standard input ends."""
    arguments = _parser().parse_args(argv)
    parent = os.getppid()
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    os.nice(NICENESS)
    with _protocol_output() as output:
        try:
            _serve(arguments, output)
        except DamagedStateError as error:
            _say(output, {"type": "refused", "reason": f"{error.message}. {error.hint}"})
            return 1
    return 0


def _serve(arguments: argparse.Namespace, output: TextIO) -> None:
    # Here and not at the top: the watch over the parent must run while these seconds of imports pass.
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    import torch

    from edge_agent.identity import read_key
    from edge_agent.training.jobs import Job, Worker
    from edge_agent.training.ledger import Ledger
    from shared.accountant import epsilon_of
    from shared.messages.base import MalformedMessageError
    from shared.privacy import PrivacyLimits

    torch.set_num_threads(1)
    ledger = Ledger(
        arguments.state,
        limits=PrivacyLimits(
            epsilon_limit=arguments.epsilon_limit,
            device_epsilon_limit=arguments.device_epsilon_limit,
            delta=arguments.delta,
        ),
        epsilon_of=epsilon_of,
        key=read_key(arguments.key),
    )
    worker = Worker(
        arguments.data,
        ledger,
        arguments.allow_without_privacy,
        secure=_secure(arguments),
        secure_min=arguments.secure_min,
        flower=_flower(arguments),
    )
    _say(output, {"type": "ready", "pid": os.getpid()})
    while line := sys.stdin.readline(LINE_BYTES_MAX):
        try:
            result = worker.perform(Job.parse(line))
        except MalformedMessageError as error:
            _say(output, {"type": "error", "reason": error.message})
        else:
            _say(output, {"type": "result", "result": result.model_dump(mode="json")})
    ledger.close()


def _secure(arguments: argparse.Namespace) -> "SecureRounds | None":
    from edge_agent.training.secure import secure_rounds

    if not arguments.identity:
        return None
    return secure_rounds(arguments.identity, arguments.state / "secure", clients_min=arguments.secure_min)


def _flower(arguments: argparse.Namespace) -> "FlowerApps | None":
    from edge_agent.training.flower_apps import FlowerApps

    if not arguments.flower_apps:
        return None
    node_config = {"data-dir": str(arguments.data), **json.loads(arguments.node_config)}
    return FlowerApps(arguments.flower_apps, arguments.state / "flower", node_config=node_config)


def _say(output: TextIO, document: dict[str, object]) -> None:
    print(json.dumps(document), file=output, flush=True)


def _protocol_output() -> TextIO:
    """Standard output for the protocol alone: whatever a library prints goes to standard error instead."""
    descriptor = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(descriptor, "w", encoding="utf-8")


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edge_agent.training.worker", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with this device's data")
    parser.add_argument("--state", type=Path, required=True, help="folder of the privacy ledger and finished updates")
    parser.add_argument("--key", type=Path, required=True, help="the device's key, which signs the ledger")
    parser.add_argument("--epsilon-limit", type=float, required=True, help="most that one data set may spend")
    parser.add_argument("--device-epsilon-limit", type=float, required=True, help="most that all its data may spend")
    parser.add_argument("--delta", type=float, required=True, help="at which epsilon is stated")
    parser.add_argument("--allow-without-privacy", action="store_true", help="let updates leave that no noise protects")
    parser.add_argument("--secure-min", type=int, default=0, help="let updates leave only in sums of so many devices")
    parser.add_argument("--flower-apps", type=Path, help="folder of the Flower apps that may run")
    parser.add_argument("--node-config", default="{}", help="what they are told of this device, as JSON")
    parser.add_argument("--identity", type=Path, help="folder of the device's identity, for secure aggregation")
    return parser


if __name__ == "__main__":
    sys.exit(main())
