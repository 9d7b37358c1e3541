"""What a device served lately: latency over time, load, and which release when."""

from collections.abc import Sequence
from itertools import groupby

from fleet import formats
from fleet.views.table import Cell, Row, Table, Tone
from shared.api.alerts import ServingWindow

Points = list[tuple[float, float]]


def latency_points(windows: Sequence[ServingWindow], *, now: float) -> tuple[Points, Points]:
    """p50 and p99 as (seconds before now as a negative number, milliseconds), oldest first."""
    p50 = [(w.received_at - now, w.latency_p50_ms) for w in windows if w.latency_p50_ms is not None]
    p99 = [(w.received_at - now, w.latency_p99_ms) for w in windows if w.latency_p99_ms is not None]
    return p50, p99


def time_ticks(points: Points, *, count: int = 5) -> list[tuple[float, str]]:
    """Where the x axis of a plot over time has its labels: evenly, as time ago."""
    if len(points) < 2:
        return []
    oldest, newest = points[0][0], points[-1][0]
    places = [oldest + (newest - oldest) * step / (count - 1) for step in range(count)]
    return [(place, f"{formats.span(-place)} ago") for place in places]


def load_line(windows: Sequence[ServingWindow]) -> list[Cell]:
    """Requests a second, errors and latency of the newest window, and a sparkline of the load."""
    if not windows:
        return [Cell("No requests yet.", Tone.MUTED)]
    newest = windows[-1]
    rates = [window.requests / window.window_s for window in windows if window.window_s > 0]
    errors = sum(window.errors for window in windows)
    return [
        Cell(f"{rates[-1] if rates else 0:.1f} requests/s", Tone.STRONG),
        Cell(formats.sparkline(rates, width=14, high=max([*rates, 1e-9])), Tone.ACCENT),
        Cell(f"p50 {formats.number(newest.latency_p50_ms)} ms"),
        Cell(f"p99 {formats.number(newest.latency_p99_ms)} ms"),
        Cell(f"{errors} errors", Tone.BAD if errors else Tone.MUTED),
    ]


def release_history(windows: Sequence[ServingWindow], *, now: float) -> Table:
    """Which release answered requests when, newest first."""
    spans = [list(group) for _, group in groupby(windows, key=lambda window: window.release_id)]
    return Table.of(
        ("release", "from", "to", "examples"),
        (
            Row(
                f"{span[0].release_id}:{span[0].received_at}",
                (
                    Cell(formats.short(span[0].release_id), Tone.STRONG),
                    Cell(formats.ago(span[0].received_at - span[0].window_s, now=now), Tone.MUTED),
                    Cell(formats.ago(span[-1].received_at, now=now), Tone.MUTED),
                    Cell(str(sum(window.examples for window in span))),
                ),
            )
            for span in reversed(spans)
        ),
    )
