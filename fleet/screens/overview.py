"""The overview: four panels, side by side where there is room, one at a time where there is not."""

from typing import ClassVar, Protocol, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Input

from fleet.fleet_state import FleetState
from fleet.messages import FleetSeen
from fleet.screens.device import DeviceScreen
from fleet.screens.help import HelpScreen
from fleet.views.rollouts import allows
from fleet.widgets.panels import AlertsPanel, CampaignPanel, DevicesPanel, Panel, RolloutPanel
from fleet.widgets.status_line import StatusLine
from fleet.widgets.tiles import Tiles
from fleet.widgets.view_table import ViewTable
from shared.api.rollouts import Rollout
from shared.lifecycles import RolloutEvent

PANELS = ("devices", "campaign", "rollout", "alerts")
_TABLES = {"devices": "devices-table", "campaign": "outcomes", "rollout": "rollout-table", "alerts": "alerts-table"}


class Operator(Protocol):
    """What the overview asks of the app: everything that talks to the coordinator."""

    def now(self) -> float: ...
    def begin_rollout(self) -> None: ...
    def start_rollout(self, rollout: Rollout) -> None: ...
    def stop_rollout(self, rollout: Rollout) -> None: ...
    def resume_rollout(self, rollout: Rollout) -> None: ...
    def close_alert(self, alert_id: str) -> None: ...
    def watch_device(self, screen: DeviceScreen) -> None: ...


class OverviewScreen(Screen[None]):
    """Shows `FleetSeen`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"go('{name}')", show=False) for number, name in enumerate(PANELS, start=1)),
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("s", "sort", "sort"),
        Binding("n", "new_rollout", "new rollout"),
        Binding("g", "start", "start"),
        Binding("x", "stop", "stop"),
        Binding("e", "resume", "resume"),
        Binding("c", "close", "close alert"),
        Binding("r", "app.look", "refresh", show=False),
        Binding("question_mark", "help", "help", key_display="?"),
        Binding("q", "app.quit", "quit"),
        Binding("escape", "leave_filter", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]
        self.state = FleetState()

    @property
    def operator(self) -> Operator:
        return cast("Operator", self.app)

    def compose(self) -> ComposeResult:
        yield StatusLine(id="status")
        yield Tiles(id="tiles")
        with Grid(id="panels"):
            yield DevicesPanel()
            yield CampaignPanel()
            yield RolloutPanel()
            yield AlertsPanel()
        yield Footer()

    def on_mount(self) -> None:
        self.action_go("devices")

    @on(FleetSeen)
    def show(self, message: FleetSeen) -> None:
        self.state = message.state
        self.draw(now=self.operator.now())
        self.refresh_bindings()

    def draw(self, *, now: float) -> None:
        """Draws the newest state, its ages included."""
        self.query_one(Tiles).show(self.state)
        for panel in self.query(Panel):
            panel.show(self.state, now=now)

    def action_go(self, name: str) -> None:
        """Brings a panel to the front and its table under the keys."""
        for panel in self.query(Panel):
            panel.set_class(panel.id == name, "-current")
        self.query_one(f"#{_TABLES[name]}").focus()

    def action_filter(self) -> None:
        self.action_go("devices")
        self.query_one("#filter", Input).add_class("-open").focus()

    def action_leave_filter(self) -> None:
        self.query_one("#filter", Input).value = ""
        self._end_filter()

    def _end_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.set_class(bool(field.value), "-open")
        self.query_one("#devices-table").focus()

    def action_sort(self) -> None:
        self.query_one(DevicesPanel).sort_next()

    def action_new_rollout(self) -> None:
        self.operator.begin_rollout()

    def action_start(self) -> None:
        if self.state.rollout:
            self.operator.start_rollout(self.state.rollout)

    def action_stop(self) -> None:
        if self.state.rollout:
            self.operator.stop_rollout(self.state.rollout)

    def action_resume(self) -> None:
        if self.state.rollout:
            self.operator.resume_rollout(self.state.rollout)

    def action_close(self) -> None:
        key = self.query_one("#alerts-table", ViewTable).selected_key
        if key is not None:
            self.operator.close_alert(key)

    def action_help(self) -> None:
        self.app.push_screen(HelpScreen())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that would do nothing now are not offered."""
        event = {"start": RolloutEvent.START, "stop": RolloutEvent.STOP, "resume": RolloutEvent.RESUME}.get(action)
        if event is not None:
            return self.state.rollout is not None and allows(self.state.rollout, event)
        if action == "close":
            return any(alert.closed_at is None for alert in self.state.alerts)
        return True

    @on(DataTable.RowSelected, "#devices-table, #rollout-table, #outcomes")
    def open_device(self, event: DataTable.RowSelected) -> None:
        if event.row_key.value is not None:
            self.operator.watch_device(DeviceScreen(event.row_key.value))

    @on(Input.Changed, "#filter")
    def filter_devices(self, event: Input.Changed) -> None:
        self.query_one(DevicesPanel).filter_by(event.value)

    @on(Input.Submitted, "#filter")
    def keep_filter(self) -> None:
        self._end_filter()
