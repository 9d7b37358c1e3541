"""The agent's settings: read once, from the command line and then `FLEETLEARN_*` variables, into one frozen value."""

import argparse
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from edge_agent.errors import InvalidSettingError
from edge_agent.training_limits import TrainingLimits, Window
from shared.privacy import PrivacyLimits

ENVIRONMENT_PREFIX = "FLEETLEARN_"
_ASSIGNMENT = re.compile(r"""\S+?=(?:'[^']*'|"[^"]*"|\S+)""")
NodeConfig = dict[str, bool | int | float | str]
_T = TypeVar("_T")


@dataclass(frozen=True)
class AgentSettings:
    """How `fleetlearn agent run` behaves. docs/reference/agent.md lists them; a test keeps that page complete."""

    state_dir: Path
    data_dir: Path | None = None
    """The device's own data; None: what enrolment was told, if anything."""
    hub: str = ""
    """`mqtts://HOST[:PORT][/FLEET]`: another broker than enrolment said; empty: as enrolment said."""
    serve_address: str = "127.0.0.1"
    serve_port: int = 8080
    """0 takes a free port; serving.json says which."""
    serve_anyone: bool = False
    """Allows an address that other machines reach."""
    heartbeat_s: float = 10.0
    report_window_s: float = 60.0
    """How long one serving report covers."""
    fetch_interval_s: float = 60.0
    """How often work is asked for without a doorbell, give or take a quarter."""
    epsilon_limit: float = 10.0
    """The device owner's, for each data set; work that would pass it is refused."""
    device_epsilon_limit: float = 0.0
    """The same for the device with all its data, in user-level privacy; 0: as for a data set."""
    delta: float = 1e-5
    allow_without_privacy: bool = False
    """The device owner's leave to train without clipping and noise; otherwise such work is refused."""
    train_on_charger_only: bool = False
    """Training work is refused on battery."""
    metered_interfaces: tuple[str, ...] = ()
    """Patterns of network interfaces; training work is refused while traffic leaves by one."""
    train_window: Window | None = None
    """Local time in which training work is taken."""
    train_a_day_max: int = 0
    """Most training work begun in a local day; 0: no limit."""
    secure_min: int = 0
    """Above 0, updates leave only where they are aggregated securely, in sums of at least so many devices."""
    flower_apps: Path | None = None
    """Folder of the Flower apps that the device owner installed; without one, none runs."""
    node_config: NodeConfig = field(default_factory=dict)
    """What Flower apps are told of this device."""
    system_root: Path = Path("/")
    """Where the machine's `/sys` and `/proc` are: in a container, where the host's are mounted."""
    drift_window: int = 0
    """Recent examples that drift rests on; 0: as many as the release's profile asks for."""
    log_format: str = "text"
    """`text` for people, `json` for collectors."""

    @property
    def privacy_limits(self) -> PrivacyLimits:
        """What may be spent of this device's privacy."""
        return PrivacyLimits(
            epsilon_limit=self.epsilon_limit,
            device_epsilon_limit=self.device_epsilon_limit or self.epsilon_limit,
            delta=self.delta,
        )

    @property
    def training_limits(self) -> TrainingLimits:
        """When the owner lets this device train."""
        return TrainingLimits(
            only_on_charger=self.train_on_charger_only,
            metered_interfaces=self.metered_interfaces,
            window=self.train_window,
            a_day_max=self.train_a_day_max,
        )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of `agent run`; an option not given is None, so that the environment may speak."""
    parser.add_argument("--state", type=Path, help="state directory, as given to `enrol`")
    parser.add_argument("--data", type=Path, help="folder with this device's own data")
    parser.add_argument("--hub", help="mqtts://HOST[:PORT][/FLEET]: another MQTT broker than enrolment said")
    parser.add_argument("--serve-address", help="address of the inference endpoint (127.0.0.1)")
    parser.add_argument("--serve-port", help="port of the inference endpoint; 0 takes a free one (8080)")
    parser.add_argument(
        "--serve-anyone", action="store_const", const="1", help="allow an address that other machines reach"
    )
    parser.add_argument("--heartbeat-s", help="seconds between heartbeats (10)")
    parser.add_argument("--report-window-s", help="seconds that one serving report covers (60)")
    parser.add_argument("--fetch-interval-s", help="seconds between asking for work without a doorbell (60)")
    parser.add_argument("--epsilon-limit", help="most privacy loss this device allows for a data set (10)")
    parser.add_argument(
        "--device-epsilon-limit", help="the same for the device with all its data, user-level (as for a data set)"
    )
    parser.add_argument("--delta", help="at which epsilon is stated (1e-5)")
    parser.add_argument(
        "--allow-without-privacy",
        action="store_const",
        const="1",
        help="let this device train without clipping and noise (refused)",
    )
    parser.add_argument(
        "--train-on-charger-only", action="store_const", const="1", help="refuse training work on battery"
    )
    parser.add_argument(
        "--metered-interfaces", help="refuse training while traffic leaves by one of these: 'wwan*,ppp*'"
    )
    parser.add_argument("--train-window", help="local time in which training work is taken, such as 22:00-06:00")
    parser.add_argument("--train-a-day-max", help="most training work begun in a local day; 0: no limit (0)")
    parser.add_argument("--secure-min", help="let updates leave only in secure sums of so many devices (0: as asked)")
    parser.add_argument("--flower-apps", type=Path, help="folder of the Flower apps that may run here (none)")
    parser.add_argument(
        "--node-config", help="what Flower apps are told of this device: 'partition-id=0 site=\"north\"'"
    )
    parser.add_argument("--system-root", help="where the machine's /sys and /proc are, in a container (/)")
    parser.add_argument("--drift-window", help="recent examples that drift rests on (the profile's own)")
    parser.add_argument("--log-format", choices=("text", "json"), help="how log lines look (text)")


def read_settings(given: argparse.Namespace, environment: Mapping[str, str]) -> AgentSettings:
    """The settings of this run. Raises InvalidSettingError, naming the setting."""

    def value(name: str, parse: Callable[[str], _T], default: _T) -> _T:
        text = getattr(given, name, None)
        if text is None:
            text = environment.get(f"{ENVIRONMENT_PREFIX}{name.upper()}")
        if text is None:
            return default
        try:
            return parse(str(text))
        except ValueError as error:
            raise InvalidSettingError(f"Expected {name.replace('_', '-')} {error}, got {str(text)[:80]!r}") from None

    state_dir = value("state", Path, Path())
    if state_dir == Path():
        raise InvalidSettingError("Expected a state directory, got none", hint="Give --state DIR.")
    data = value("data", Path, Path())
    defaults = AgentSettings(state_dir)
    return AgentSettings(
        state_dir=state_dir.absolute(),
        data_dir=None if data == Path() else data.absolute(),
        hub=value("hub", str, defaults.hub),
        serve_address=value("serve_address", str, defaults.serve_address),
        serve_port=value("serve_port", _port, defaults.serve_port),
        serve_anyone=value("serve_anyone", _flag, defaults.serve_anyone),
        heartbeat_s=value("heartbeat_s", _positive, defaults.heartbeat_s),
        report_window_s=value("report_window_s", _positive, defaults.report_window_s),
        fetch_interval_s=value("fetch_interval_s", _positive, defaults.fetch_interval_s),
        epsilon_limit=value("epsilon_limit", _positive, defaults.epsilon_limit),
        device_epsilon_limit=value("device_epsilon_limit", _positive, defaults.device_epsilon_limit),
        delta=value("delta", _probability, defaults.delta),
        allow_without_privacy=value("allow_without_privacy", _flag, defaults.allow_without_privacy),
        train_on_charger_only=value("train_on_charger_only", _flag, defaults.train_on_charger_only),
        metered_interfaces=value("metered_interfaces", _patterns, defaults.metered_interfaces),
        train_window=value("train_window", _window, defaults.train_window),
        train_a_day_max=value("train_a_day_max", _count, defaults.train_a_day_max),
        secure_min=value("secure_min", _count, defaults.secure_min),
        flower_apps=value("flower_apps", _folder, defaults.flower_apps),
        node_config=value("node_config", _node_config, defaults.node_config),
        system_root=value("system_root", Path, defaults.system_root),
        drift_window=value("drift_window", _count, defaults.drift_window),
        log_format=value("log_format", _log_format, defaults.log_format),
    )


def _folder(text: str) -> Path | None:
    return Path(text).absolute()


def _node_config(text: str) -> NodeConfig:
    """As `flower-supernode --node-config` takes it: TOML values, separated by spaces."""
    try:
        found = tomllib.loads("\n".join(_ASSIGNMENT.findall(text)))
    except tomllib.TOMLDecodeError:
        found = {}
    if not found or not all(isinstance(each, bool | int | float | str) for each in found.values()):
        raise ValueError("as key=value pairs, numbers, true or false, or text in quotes")
    return found


def _patterns(text: str) -> tuple[str, ...]:
    return tuple(pattern.strip() for pattern in text.split(",") if pattern.strip())


def _window(text: str) -> Window:
    try:
        return Window.parse(text)
    except ValueError:
        raise ValueError("as HH:MM-HH:MM") from None


def _positive(text: str) -> float:
    number = _number(text)
    if not 0 < number < float("inf"):
        raise ValueError("as a number above 0")
    return number


def _probability(text: str) -> float:
    number = _number(text)
    if not 0 < number < 1:
        raise ValueError("as a number between 0 and 1")
    return number


def _port(text: str) -> int:
    number = _count(text)
    if number > 65_535:
        raise ValueError("as a port of 0 to 65535")
    return number


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("as a whole number from 0 on")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("as a number") from None


def _flag(text: str) -> bool:
    if text.lower() not in ("0", "1", "true", "false"):
        raise ValueError("as 0 or 1")
    return text.lower() in ("1", "true")


def _log_format(text: str) -> str:
    if text not in ("text", "json"):
        raise ValueError("as text or json")
    return text
