"""One device: serving latency, drift of each feature, release and its error, privacy ledgers."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer, Static

from fleet.fleet_state import DeviceState
from fleet.messages import DeviceSeen
from fleet.palette import ACCENT, AMBER
from fleet.rendering import line, rich_facts, rich_table, text
from fleet.views import devices, privacy, serving
from fleet.views.table import Cell, Tone
from fleet.widgets.plots import Curve, LinePlot
from fleet.widgets.status_line import StatusLine


class DeviceScreen(Screen[None]):
    """Shows `DeviceSeen`; the app looks at `device_id` while this screen is open."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "app.pop_screen", "back"),
        Binding("r", "app.look", "look again"),
    ]

    def __init__(self, device_id: str) -> None:
        super().__init__()
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]
        self.device_id = device_id
        self.state: DeviceState | None = None

    def compose(self) -> ComposeResult:
        yield StatusLine(id="status")
        with VerticalScroll(id="device"), Horizontal(id="device-columns"):
            with Vertical(classes="column"):
                yield _section(self.device_id, "facts")
                yield _section("Release", "release")
                yield _section("Privacy: spent on this device's own data", "privacy")
                yield _section("Privacy: spent for", "spending")
            with Vertical(classes="column"):
                with Vertical(classes="panel section") as panel:
                    panel.border_title = "Serving: latency in ms"
                    yield Static(id="load")
                    yield LinePlot(id="latency-plot")
                yield _section("Drift: population stability of each feature", "drift")
                yield _section("Served", "history")
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#facts", Static).update(text(Cell(f"Looking at {self.device_id} …", Tone.MUTED)))

    @on(DeviceSeen)
    def show(self, message: DeviceSeen) -> None:
        if message.state.device.device_id == self.device_id:
            self.state = message.state
            self.draw(now=self.app.now())  # type: ignore[attr-defined]  # FleetApp

    def draw(self, *, now: float) -> None:
        """Draws the newest state, its ages included."""
        if self.state is None:
            return
        device, windows = self.state.device, self.state.windows
        self.query_one("#facts", Static).update(rich_facts(devices.facts(device, now=now)))
        self.query_one("#release", Static).update(rich_facts(devices.release_facts(device)))
        none = text(Cell("No ledger yet: it has not trained with noise.", Tone.MUTED))
        self.query_one("#privacy", Static).update(
            rich_table(devices.privacy_table(device.privacy)) if device.privacy else none
        )
        nothing = text(Cell("Nothing that is known here.", Tone.MUTED))
        spent = rich_table(privacy.spending_table(self.state.accounts))
        self.query_one("#spending", Static).update(spent if self.state.accounts else nothing)
        few = text(Cell("Not enough examples yet.", Tone.MUTED))
        self.query_one("#drift", Static).update(rich_table(devices.drift_table(device.drift)) if device.drift else few)
        self.query_one("#load", Static).update(line(serving.load_line(windows)))
        self.query_one("#history", Static).update(rich_table(serving.release_history(windows, now=now)))
        p50, p99 = serving.latency_points(windows, now=now)
        self.query_one(LinePlot).show(
            [Curve(p99, AMBER, "p99"), Curve(p50, ACCENT, "p50")], ticks=serving.time_ticks(p99 or p50), y_low=0
        )


def _section(title: str, name: str) -> Vertical:
    section = Vertical(Static(id=name), classes="panel section")
    section.border_title = title
    return section
