"""The four panels of the overview: devices, campaign, rollout, alerts."""

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import DataTable, Input, Static

from fleet import formats
from fleet.fleet_state import FleetState
from fleet.palette import ACCENT, MUTED
from fleet.rendering import line, text
from fleet.views import alerts, campaigns, devices, registry, rollouts
from fleet.views.table import Cell, Table, Tone, filtered, ordered
from fleet.widgets.plots import Curve, LinePlot
from fleet.widgets.view_table import ViewTable
from shared.lifecycles import JobState


class Panel(Vertical):
    """A bordered part of the overview with a title."""

    title = ""

    def on_mount(self) -> None:
        self.border_title = self.title

    def show(self, state: FleetState, *, now: float) -> None:
        """Draws its part of the state."""
        raise NotImplementedError


class DevicesPanel(Panel):
    """All devices, filtered and sorted."""

    title = "1 Devices"

    def __init__(self) -> None:
        super().__init__(id="devices", classes="panel")
        self._table = Table(devices.COLUMNS)
        self._words = ""
        self._column: int | None = None

    def compose(self) -> ComposeResult:
        yield Input(placeholder="filter: words in any column", id="filter")
        yield ViewTable(id="devices-table", width_max=48)
        yield Static(id="device-note")

    def show(self, state: FleetState, *, now: float) -> None:
        self._table = devices.device_table(state.devices, now=now)
        self._refresh()

    def filter_by(self, words: str) -> None:
        self._words = words
        self._refresh()

    def sort_next(self) -> None:
        """Sorts by the next column; after the last one, by device again."""
        following = 1 if self._column is None else self._column + 1
        self._column = following if following < len(devices.COLUMNS) else None
        self._refresh()

    def _refresh(self) -> None:
        shown = ordered(filtered(self._table, self._words), self._column)
        self.query_one(ViewTable).show(shown)
        self._show_note()
        by = "" if self._column is None else f" · by {devices.COLUMNS[self._column]}"
        self.border_subtitle = f"{len(shown.rows)} of {len(self._table.rows)}{by}"

    @on(DataTable.RowHighlighted)
    def _show_note(self) -> None:
        """Under the table: why the device under the cursor is not where it should be."""
        key = self.query_one(ViewTable).selected_key
        row = next((row for row in self._table.rows if row.key == key), None)
        note = row.cells[-1] if row is not None else Cell("")
        about = [Cell(row.key, Tone.MUTED), note] if row is not None and note.text else []
        self.query_one("#device-note", Static).update(line(about))


class CampaignPanel(Panel):
    """The running campaign: headline, accuracy per round, what each device does."""

    title = "2 Training"

    def __init__(self) -> None:
        super().__init__(id="campaign", classes="panel")

    def compose(self) -> ComposeResult:
        yield Static(id="campaign-headline", classes="headline")
        yield Static(id="campaign-error", classes="reason")
        yield LinePlot(id="accuracy-plot")
        yield ViewTable(id="outcomes")

    def show(self, state: FleetState, *, now: float) -> None:
        campaign = state.campaign
        self.set_class(campaign is None, "-empty")
        headline = [
            line(registry.job_headline(job, now=now)) for job in state.jobs if _is_worth_a_line(job.state, job.kind)
        ]
        if campaign is None:
            empty = text(Cell("No campaign yet: fleetlearn campaigns start TASK --model ID --epsilon 8", Tone.MUTED))
            self.query_one("#campaign-headline", Static).update(stacked([*headline, empty]))
            return
        bar = Cell(formats.bar(campaigns.progress(campaign), width=40).replace(" ", "░"), Tone.BUSY)
        rows = [*headline, line(campaigns.headline(campaign, now=now)), text(bar)]
        _show_reason(self.query_one("#campaign-error", Static), campaign.error, Tone.BAD)
        self.query_one("#campaign-headline", Static).update(stacked(rows))
        self._show_accuracy(campaigns.accuracy_points(campaign), campaign.start_accuracy)
        newest = campaigns.current_round(campaign)
        self.query_one(ViewTable).show(campaigns.outcome_table(newest))
        self.border_subtitle = f"round {newest.round}: {newest.state}" if newest else ""

    def _show_accuracy(self, points: list[tuple[float, float]], start: float | None) -> None:
        curves = [Curve([(x, y * 100) for x, y in points], ACCENT)]
        if start is not None:
            curves.append(Curve([(0.0, start * 100)], MUTED, is_level=True))
        self.query_one(LinePlot).show(curves, ticks=campaigns.round_ticks(points))


class RolloutPanel(Panel):
    """The rollout to watch: waves, devices, and why one does not move."""

    title = "3 Rollout"

    def __init__(self) -> None:
        super().__init__(id="rollout", classes="panel")

    def compose(self) -> ComposeResult:
        yield Static(id="rollout-headline", classes="headline")
        yield Static(id="rollout-reason", classes="reason")
        yield Static(id="waves")
        yield ViewTable(id="rollout-table")

    def show(self, state: FleetState, *, now: float) -> None:
        rollout = state.rollout
        self.set_class(rollout is None, "-empty")
        headline = self.query_one("#rollout-headline", Static)
        if rollout is None:
            headline.update(text(Cell("No rollout yet: press n to choose a release.", Tone.MUTED)))
            return
        headline.update(line(rollouts.headline(rollout, now=now)))
        _show_reason(self.query_one("#rollout-reason", Static), rollout.reason, Tone.WARN)
        self.query_one("#waves", Static).update(lines_of(rollouts.wave_table(rollout, now=now)))
        self.query_one(ViewTable).show(rollouts.device_table(rollout))


class AlertsPanel(Panel):
    """Alerts, open ones first."""

    title = "4 Alerts"

    def __init__(self) -> None:
        super().__init__(id="alerts", classes="panel")

    def compose(self) -> ComposeResult:
        yield Static(text(Cell("All quiet.", Tone.MUTED)), id="alerts-empty")
        yield ViewTable(id="alerts-table")

    def show(self, state: FleetState, *, now: float) -> None:
        self.set_class(not state.alerts, "-empty")
        self.query_one(ViewTable).show(alerts.alert_table(state.alerts, now=now))
        critical, total = alerts.open_counts(state.alerts)
        self.border_subtitle = f"{total} open, {critical} critical" if total else ""
        self.set_class(critical > 0, "-critical")


def lines_of(table: Table) -> Text:
    """A short table as aligned lines, without a cursor."""
    widths = [max((len(row.cells[i].text) for row in table.rows), default=0) for i in range(len(table.columns))]
    padded = (
        [Cell(cell.text.ljust(width), cell.tone) for cell, width in zip(row.cells, widths, strict=True)]
        for row in table.rows
    )
    return stacked([line(cells) for cells in padded])


def _show_reason(widget: Static, reason: str, tone: Tone) -> None:
    widget.display = bool(reason)
    wrapped = text(Cell(reason, tone))
    wrapped.no_wrap = False
    widget.update(wrapped)


def stacked(rows: list[Text]) -> Text:
    """Lines one under the other."""
    return Text("\n").join(rows)


def _is_worth_a_line(state: JobState, kind: str) -> bool:
    return kind != "campaign" and state in (JobState.RUNNING, JobState.QUEUED)
