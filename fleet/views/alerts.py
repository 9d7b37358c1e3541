"""Alerts as rows and lines, newest first."""

from collections.abc import Sequence

from fleet import formats
from fleet.views.table import NOTHING, Cell, Row, Table, Tone
from shared.api.alerts import Alert

COLUMNS = ("seen", "severity", "device", "what", "times", "message")


def alert_table(alerts: Sequence[Alert], *, now: float) -> Table:
    """One row for each alert: open ones first, then by the last time it was seen."""
    newest_first = sorted(alerts, key=lambda alert: (alert.closed_at is not None, -alert.last_seen_at))
    return Table.of(COLUMNS, (_alert_row(alert, now=now) for alert in newest_first))


def alert_table_with_ids(alerts: Sequence[Alert], *, now: float) -> Table:
    """The same rows, each with its id in front, for commands that take one."""
    table = alert_table(alerts, now=now)
    rows = (Row(row.key, (Cell(row.key, Tone.STRONG), *row.cells)) for row in table.rows)
    return Table.of(("alert", *COLUMNS), rows)


def _alert_row(alert: Alert, *, now: float) -> Row:
    return Row(
        alert.alert_id,
        (
            Cell(formats.ago(alert.last_seen_at, now=now).removesuffix(" ago"), Tone.MUTED, order=-alert.last_seen_at),
            severity_badge(alert),
            Cell(alert.device_id) if alert.device_id else NOTHING,
            _what(alert),
            Cell(f"×{alert.count}", Tone.MUTED, order=alert.count),
            Cell(alert.message),
        ),
    )


def _what(alert: Alert) -> Cell:
    parts = [alert.kind.replace("_", " "), formats.short(alert.subject, width=20)]
    if alert.value is not None:
        parts.append(_value_cell(alert).text)
    return Cell(" ".join(part for part in parts if part), Tone.STRONG if alert.closed_at is None else Tone.MUTED)


def severity_badge(alert: Alert) -> Cell:
    if alert.closed_at is not None:
        return Cell("✓ closed", Tone.MUTED, order=2)
    if alert.severity == "critical":
        return Cell("▲ critical", Tone.BAD, order=0)
    return Cell(f"△ {alert.severity}", Tone.WARN, order=1)


def _value_cell(alert: Alert) -> Cell:
    if alert.value is None:
        return NOTHING
    text = formats.number(alert.value)
    return Cell(text if alert.threshold is None else f"{text} > {formats.number(alert.threshold)}", order=-alert.value)


def open_counts(alerts: Sequence[Alert]) -> tuple[int, int]:
    """Open alerts: critical ones, and all."""
    still_open = [alert for alert in alerts if alert.closed_at is None]
    return sum(alert.severity == "critical" for alert in still_open), len(still_open)


def facts(alert: Alert, *, now: float) -> list[tuple[str, Cell]]:
    """One alert as name and value."""
    lines = [
        ("alert", Cell(alert.alert_id, Tone.STRONG)),
        ("what", Cell(alert.kind.replace("_", " "))),
        ("severity", severity_badge(alert)),
        ("message", Cell(alert.message)),
        ("device", Cell(alert.device_id or "–")),
        ("subject", Cell(alert.subject or "–")),
        ("value", _value_cell(alert)),
        ("opened", Cell(formats.ago(alert.opened_at, now=now))),
        ("last seen", Cell(f"{formats.ago(alert.last_seen_at, now=now)}, {alert.count} times")),
    ]
    if alert.closed_at is not None:
        lines.append(("closed", Cell(formats.ago(alert.closed_at, now=now))))
    return lines
