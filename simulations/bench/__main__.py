"""`fleetlearn bench NAME [--json]`: runs one bench; with --json the last line of output is one object."""

import argparse
import sys
from collections.abc import Callable
from importlib import import_module

from shared.errors import FleetlearnError
from shared.exit_codes import ExitCode
from simulations.bench.frame import BenchOptions, BenchResult, Say, table
from simulations.demo.processes import interrupt_on_signals

BENCHES = {
    "agent": ("simulations.bench.agent", "Memory and start-up of a serving agent, beside one that imports everything"),
    "aggregation": (
        "simulations.bench.aggregation",
        "Replies of a 10 MB model becoming the next, beside Flower's FedAvg",
    ),
    "compression": ("simulations.bench.compression", "Bytes to the same accuracy, and the cost of encoding"),
    "dp": ("simulations.bench.dp", "A private training step by book-keeping, beside a plain one and Opacus"),
    "fleet": ("simulations.bench.fleet", "Rounds among ten thousand simulated devices, and their checking in"),
    "gpu": ("simulations.bench.gpu", "Cohorts on a GPU, beside pfl-research on the same card"),
    "growth": ("simulations.bench.growth", "Rounds as clients, parameters and cohort grow"),
    "hub": ("simulations.bench.hub", "Durable events, idle devices and latency of the local hub, beside Mosquitto"),
    "round": ("simulations.bench.round", "A federated round without training, beside Flower's deployment"),
    "simulation": (
        "simulations.bench.simulation",
        "Federated rounds of seven workloads, beside pfl-research, Flower and the plain loop",
    ),
    "population": ("simulations.bench.population", "Planning a round for a thousand to ten million clients"),
    "training": ("simulations.bench.training", "What a device's training process costs beyond the training itself"),
    "serve": ("simulations.bench.serve", "The inference endpoint, beside the bare call, FastAPI and MLServer"),
}
"""Name to (module with `run(options, say) -> BenchResult`, what it measures)."""


def main(argv: list[str] | None = None) -> int:
    """Runs the bench that the arguments name."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as error:  # argparse has said why
        return ExitCode.OK if error.code in (0, None) else ExitCode.USAGE
    interrupt_on_signals()
    options = BenchOptions(is_quick=arguments.quick, with_mlserver=not arguments.without_mlserver, only=arguments.only)
    run: Callable[[BenchOptions, Say], BenchResult] = import_module(BENCHES[arguments.name][0]).run
    try:
        result = run(options, _say)
    except FleetlearnError as error:
        print(f"fleetlearn bench: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return ExitCode.FAILED
    print(table(result))
    if arguments.json:
        print(result.json_line())
    return ExitCode.OK


def _parser() -> argparse.ArgumentParser:
    listing = "\n".join(f"  {name:<10} {purpose}" for name, (_, purpose) in BENCHES.items())
    parser = argparse.ArgumentParser(
        prog="fleetlearn bench",
        description="Measures ours beside the baseline, in one run.",
        epilog=f"benches:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=sorted(BENCHES), metavar="NAME")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--quick", action="store_true", help="a short run whose figures mean little")
    parser.add_argument("--without-mlserver", action="store_true", help="leave out MLServer and its 400 MB environment")
    parser.add_argument("--only", default="", metavar="PART", help="one part of a bench that has several, as w3")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
