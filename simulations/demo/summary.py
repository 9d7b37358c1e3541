"""What the demonstration measured, as one value: printed for people, or as JSON for programs."""

from collections.abc import Sequence

from pydantic import Field
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from shared.api.alerts import Alert
from shared.api.base import Shape


class DeviceFigures(Shape):
    """One device."""

    device_id: str
    slices: list[str]
    units: int
    """What privacy protects as a whole and training saw, by name in `privacy_unit`."""
    epsilon: float | None
    """Spent on its data, by its own ledger; None without privacy."""
    epsilon_limit: float | None
    agent_rss_mib: float
    """Resident memory of the agent, the int8 model loaded and serving."""
    release_state: str


class Accuracies(Shape):
    """Fractions of windows classified right, on data that nothing was trained, tuned or gated on."""

    base: float
    federated: float
    """The campaign's result, fp32."""
    int8: float
    """The release that the devices serve, evaluated at packaging."""
    served: float
    """Answers of a device's endpoint over HTTP."""
    without_noise: float
    """The same rounds, neither clipped nor noised: the difference is what privacy cost in this run."""
    in_one_place: float
    """Trained centrally on all data, which federation avoids: the difference is what that costs."""


class Latency(Shape):
    """One example a request, one client, milliseconds."""

    json_p50_ms: float
    json_p99_ms: float
    binary_p50_ms: float
    binary_p99_ms: float


class WaveFigures(Shape):
    number: int
    devices: list[str]
    state: str
    seconds: float


class Summary(Shape):
    """The whole run; every number was measured in it."""

    task: str
    devices: list[DeviceFigures]
    rounds: int
    accuracy: Accuracies
    validation_accuracy_per_round: list[float]
    """The first entry is the starting model's."""
    epsilon_asked: float | None
    delta: float | None
    privacy_unit: str
    bytes_down_per_round: float
    bytes_up_per_round: float
    fp32_bytes: int
    int8_bytes: int
    latency: Latency
    waves: list[WaveFigures]
    alerts: list[Alert]
    drift: dict[str, dict[str, float]] = Field(default_factory=dict)
    """PSI as a multiple of its threshold, by device and feature; above 1 is drift."""
    disturbed_device: str | None
    """None where no feature of the task would show a broken sensor."""
    disturbed_feature: str | None
    step_seconds: dict[str, float]
    data_dir: str
    picture: str


def show(summary: Summary, console: Console) -> None:
    """Prints the summary."""
    console.print(
        Panel(
            Group(_accuracy(summary), Text(), _devices(summary), Text(), _figures(summary), Text(), _next(summary)),
            title=f"fleetlearn · {summary.task} · {_count(summary.devices)} · {summary.rounds} rounds",
            border_style="cyan",
            padding=(1, 2),
        )
    )


def _accuracy(summary: Summary) -> RenderableType:
    table = Table(title="Accuracy on unseen data", title_justify="left", box=None, pad_edge=False)
    table.add_column("model")
    table.add_column("accuracy", justify="right")
    table.add_column("")
    a = summary.accuracy
    rows = [
        ("base, public data only", a.base, "cyan"),
        (f"federated, {_epsilon_text(summary)}", a.federated, "cyan"),
        ("its int8 release", a.int8, "cyan"),
        ("that release, served by a device", a.served, "cyan"),
        ("to compare: the rounds without noise", a.without_noise, "bright_black"),
        ("to compare: all data in one place", a.in_one_place, "bright_black"),
    ]
    for name, value, style in rows:
        table.add_row(name, f"{value:.3f}", Text("█" * round(value * 30), style=style))
    return table


def _epsilon_text(summary: Summary) -> str:
    if summary.epsilon_asked is None:
        return "no privacy"
    return f"epsilon {summary.epsilon_asked:g} per {summary.privacy_unit}"


def _devices(summary: Summary) -> RenderableType:
    table = Table(title="Devices", title_justify="left", box=None, pad_edge=False)
    for name in ("device", "data", f"{summary.privacy_unit}s", "epsilon / limit", "release", "memory"):
        table.add_column(name, justify="left" if name in ("device", "data", "release") else "right")
    for d in summary.devices:
        spent = "-" if d.epsilon is None else f"{d.epsilon:.2f} / {d.epsilon_limit:g}"
        table.add_row(
            d.device_id, ", ".join(d.slices), str(d.units), spent, d.release_state, f"{d.agent_rss_mib:.0f} MiB"
        )
    return table


def _figures(summary: Summary) -> RenderableType:
    table = Table.grid(padding=(0, 3))
    s, latency = summary, summary.latency
    table.add_row(
        "bytes a round", f"{s.bytes_down_per_round / 1e3:,.0f} kB down, {s.bytes_up_per_round / 1e3:,.0f} kB up"
    )
    table.add_row("model size", f"fp32 {s.fp32_bytes / 1e3:,.1f} kB, int8 {s.int8_bytes / 1e3:,.1f} kB")
    table.add_row(
        "latency p50 / p99",
        f"JSON {latency.json_p50_ms:.2f} / {latency.json_p99_ms:.2f} ms, "
        f"binary {latency.binary_p50_ms:.2f} / {latency.binary_p99_ms:.2f} ms",
    )
    for wave in s.waves:
        name = "canary" if wave.number == 1 else "rest"
        table.add_row(f"wave {wave.number} ({name})", f"{_count(wave.devices)} {wave.state} in {wave.seconds:.1f} s")
    for alert in s.alerts:
        table.add_row(f"{alert.kind} alert", alert.message)
    table.add_row("time", f"{sum(s.step_seconds.values()):.0f} s in all")
    return table


def _next(summary: Summary) -> RenderableType:
    data = summary.data_dir
    table = Table.grid(padding=(0, 3))
    table.add_row("picture", summary.picture)
    table.add_row("files", data)
    table.add_row("while it runs", f"fleetlearn tui --data {data}/cloud")
    table.add_row("", "(--keep-running leaves it running)")
    return table


def _count(devices: Sequence[object]) -> str:
    return f"{len(devices)} device{'' if len(devices) == 1 else 's'}"
