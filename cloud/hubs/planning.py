"""`fleetlearn hub plan`: what Azure IoT Hub would cost and allow, as text or JSON."""

import argparse
import json
import math

from cloud.hubs.plan import Fleet, Plan, plan
from cloud.hubs.tiers import TIERS

_HOLDS, _DOES_NOT_HOLD = 0, 1


def add_plan(parser: argparse.ArgumentParser) -> None:
    """The options of `plan`, and what runs it."""
    parser.set_defaults(run=_plan)
    usual = Fleet(devices=1)
    parser.add_argument("--devices", type=_whole, required=True, metavar="N")
    parser.add_argument("--tier", choices=sorted(TIERS), default="S1", help="(default: %(default)s)")
    parser.add_argument("--units", type=_whole, metavar="U", help="default: the fewest that hold")
    parser.add_argument("--heartbeat-s", type=_seconds, default=usual.heartbeat_s, help="(default: %(default)s)")
    parser.add_argument(
        "--report-window-s", type=_seconds, default=usual.report_window_s, help="of telemetry (default: %(default)s)"
    )
    parser.add_argument("--cohort", type=_whole, default=usual.cohort, help="devices of a round (default: %(default)s)")
    parser.add_argument("--rollouts-per-day", type=_rate, default=usual.rollouts_per_day, help="(default: %(default)s)")
    parser.add_argument("--rounds-per-day", type=_rate, default=usual.rounds_per_day, help="(default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one object instead of text")


def _plan(arguments: argparse.Namespace) -> int:
    fleet = Fleet(
        devices=arguments.devices,
        heartbeat_s=arguments.heartbeat_s,
        report_window_s=arguments.report_window_s,
        cohort=arguments.cohort,
        rollouts_per_day=arguments.rollouts_per_day,
        rounds_per_day=arguments.rounds_per_day,
    )
    made = plan(fleet, TIERS[arguments.tier], units=arguments.units)
    print(json.dumps(_object(made)) if arguments.json else _text(made))
    return _HOLDS if made.holds else _DOES_NOT_HOLD


def _object(made: Plan) -> dict[str, object]:
    return {
        "tier": made.tier.name,
        "units": made.units,
        "usd_per_month": made.usd_per_month,
        "messages_per_day": round(made.messages_per_day),
        "holds": made.holds,
        "heartbeat_s_min": made.heartbeat_s_min,
        "checks": [
            {
                "name": check.name,
                "asked": check.asked,
                "allowed": check.allowed,
                "unit": check.unit,
                "holds": check.holds,
            }
            for check in made.checks
        ],
        "durations": [
            {"name": each.name, "seconds": round(each.seconds, 1), "bound_by": each.bound_by} for each in made.durations
        ],
    }


def _text(made: Plan) -> str:
    price = "free" if not made.usd_per_month else f"{made.usd_per_month:,.0f} USD a month (US list price)"
    lines = [f"{made.units} unit{'s' * (made.units > 1)} of {made.tier.name}: {price}", ""]
    for check in made.checks:
        verdict = "holds" if check.holds else "DOES NOT HOLD"
        lines.append(f"  {check.name:<14} {check.asked:>15,.0f} of {check.allowed:>13,.0f} {check.unit:<16} {verdict}")
    lines.append("")
    lines += [f"  {each.name:<32} {_time(each.seconds):>10}  ({each.bound_by})" for each in made.durations]
    lines += ["", _advice(made)]
    return "\n".join(lines)


def _advice(made: Plan) -> str:
    if made.heartbeat_s_min is None:
        return "No heartbeat interval fits: fewer reports, more units or a larger tier are needed."
    return f"The shortest heartbeat interval that fits is {made.heartbeat_s_min:,.0f} s."


def _time(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s"


def _whole(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 10_000_000:
        raise argparse.ArgumentTypeError(f"expected 1 to 10,000,000, got {value}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"expected 1 to 86,400 seconds, got {text}")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 10_000 or math.isnan(value):
        raise argparse.ArgumentTypeError(f"expected 0 to 10,000 a day, got {text}")
    return value
