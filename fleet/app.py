"""The operator's terminal app: looks at the coordinator every second or two, and never waits for it.

Each look and each action is a worker; screens get values by message and draw them. While the coordinator is away the
last state stays on the screen, with its age. At most one look is under way, however slow the answer is.
"""

import time
from collections.abc import Callable
from typing import ClassVar, TypeVar

from textual.app import App
from textual.binding import BindingType
from textual.theme import Theme
from textual.worker import Worker

from fleet import calls, palette
from fleet.calls import Call
from fleet.fleet_state import SendsCalls, fetch_device, fetch_fleet
from fleet.formats import printable
from fleet.link import Link, after_answer, after_miss
from fleet.messages import DeviceSeen, FleetSeen
from fleet.screens.confirm import ConfirmScreen
from fleet.screens.device import DeviceScreen
from fleet.screens.overview import OverviewScreen
from fleet.screens.releases import ReleasesScreen
from fleet.views.rollouts import headline, plan_lines
from fleet.widgets.status_line import StatusLine
from shared.api.releases import ReleaseStage
from shared.api.rollouts import Rollout, RolloutCreate
from shared.errors import FleetlearnError

AnswerT = TypeVar("AnswerT")

THEME = Theme(
    name="fleetlearn",
    primary=palette.ACCENT,
    secondary=palette.BLUE,
    accent=palette.ACCENT,
    warning=palette.AMBER,
    error=palette.RED,
    success=palette.GREEN,
    foreground=palette.TEXT,
    background=palette.BACKGROUND,
    surface=palette.SURFACE,
    panel=palette.PANEL,
    dark=True,
    variables={
        "footer-background": palette.SURFACE,
        "footer-key-foreground": palette.ACCENT,
        "footer-description-foreground": palette.MUTED,
        "border": palette.ACCENT,
        "border-blurred": palette.LINE,
        "line": palette.LINE,
        "muted": palette.MUTED,
        "block-cursor-background": palette.PANEL,
        "block-cursor-foreground": palette.BRIGHT,
        "block-cursor-blurred-background": palette.SURFACE,
        "input-selection-background": palette.LINE,
    },
)


class FleetApp(App[None]):
    """Watches and operates the fleet.

    Args:
        client: Sends calls to the coordinator; closed with the app if it can be.
        url: Shown in the status line.
        poll_s: Seconds between two looks.
        now: Seconds since the epoch.
    """

    TITLE = "fleetlearn"
    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = []

    def __init__(
        self, client: SendsCalls, *, url: str, poll_s: float = 1.5, now: Callable[[], float] = time.time
    ) -> None:
        super().__init__()
        self.client = client
        self.url = url
        self.now = now
        self.link = Link()
        self._poll_s = poll_s
        self._looking: Worker[None] | None = None

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Our own variables, for the time before the theme is chosen."""
        return {"line": palette.LINE, "muted": palette.MUTED}

    def on_mount(self) -> None:
        self.register_theme(THEME)
        self.theme = THEME.name
        self.push_screen(OverviewScreen())
        self.set_interval(self._poll_s, self.action_look)
        self.set_interval(1.0, self._show_link)
        self.call_after_refresh(self.action_look)

    def action_look(self) -> None:
        """Looks at the coordinator, unless a look is under way."""
        if self._looking is None or self._looking.is_finished:
            self._looking = self.run_worker(self._look(), group="look", exit_on_error=True)

    async def _look(self) -> None:
        try:
            state = await fetch_fleet(self.client)
            for screen in self.screen_stack:
                if isinstance(screen, OverviewScreen):
                    screen.post_message(FleetSeen(state))
                elif isinstance(screen, DeviceScreen):
                    screen.post_message(DeviceSeen(await fetch_device(self.client, screen.device_id)))
        except FleetlearnError as error:
            self.link, told = after_miss(self.link, error.message, now=self.now())
            if told:
                self.notify(_plain(told), title="Coordinator away", severity="warning", markup=False)
        else:
            self.link, told = after_answer(self.link, now=self.now())
            if told:
                self.notify(told, title="Recovered", markup=False)
        self._show_link()

    def _show_link(self) -> None:
        for screen in self.screen_stack:
            for status in screen.query(StatusLine):
                status.show(self.link, url=self.url, now=self.now())

    def watch_device(self, screen: DeviceScreen) -> None:
        """Opens a device's screen and looks at it at once."""
        self.push_screen(screen)
        self._show_link()
        self.run_worker(self._look_at(screen), group="device")

    async def _look_at(self, screen: DeviceScreen) -> None:
        try:
            screen.post_message(DeviceSeen(await fetch_device(self.client, screen.device_id)))
        except FleetlearnError as error:
            self._complain(error)

    def begin_rollout(self) -> None:
        """Lets the operator choose a release, shows the plan, and starts it if wanted."""
        self.run_worker(self._begin_rollout(), group="act", exclusive=True)

    async def _begin_rollout(self) -> None:
        try:
            releases = await self.client.send(calls.releases())
            published = [release for release in releases if release.stage is ReleaseStage.PUBLISHED]
            if not published:
                self.notify(
                    "There is no published release: fleetlearn releases publish RELEASE --keys DIR", markup=False
                )
                return
            release_id = await self.push_screen_wait(ReleasesScreen(published, now=self.now()))
            if release_id is None:
                return
            planned = await self.client.send(calls.plan_rollout(RolloutCreate(release_id=release_id)))
            await self._start_if_wanted(planned)
        except FleetlearnError as error:
            self._complain(error)
        self.action_look()

    async def _start_if_wanted(self, planned: Rollout) -> None:
        if await self.push_screen_wait(ConfirmScreen("Start this rollout?", plan_lines(planned))):
            await self.client.send(calls.start_rollout(planned.rollout_id))
            self.notify("The rollout is started.")
        else:
            await self.client.send(calls.stop_rollout(planned.rollout_id))
            self.notify("Not started; the plan is stopped.")

    def start_rollout(self, rollout: Rollout) -> None:
        self._confirm_and_send("Start this rollout?", rollout, calls.start_rollout(rollout.rollout_id), "Started.")

    def stop_rollout(self, rollout: Rollout) -> None:
        self._confirm_and_send("Stop this rollout?", rollout, calls.stop_rollout(rollout.rollout_id), "Stopped.")

    def resume_rollout(self, rollout: Rollout) -> None:
        self._confirm_and_send("Resume this rollout?", rollout, calls.resume_rollout(rollout.rollout_id), "Resumed.")

    def close_alert(self, alert_id: str) -> None:
        """Closes an alert; it opens again by itself when its cause comes back, so nobody is asked."""
        self.run_worker(self._send(calls.close_alert(alert_id), "The alert is closed."), group="act")

    def _confirm_and_send(self, question: str, rollout: Rollout, call: Call[Rollout], done: str) -> None:
        async def ask_and_send() -> None:
            details = plan_lines(rollout) if question.startswith("Start") else headline(rollout, now=self.now())
            if await self.push_screen_wait(ConfirmScreen(question, details)):
                await self._send(call, done)

        self.run_worker(ask_and_send(), group="act", exclusive=True)

    async def _send(self, call: Call[AnswerT], done: str) -> None:
        try:
            await self.client.send(call)
        except FleetlearnError as error:
            self._complain(error)
        else:
            self.notify(done, markup=False)
        self.action_look()

    def _complain(self, error: FleetlearnError) -> None:
        text = f"{error.message}\n{error.hint}" if error.hint else error.message
        self.notify(_plain(text), title="Not done", severity="error", markup=False)


def _plain(text: str) -> str:
    return "\n".join(printable(part) for part in text.splitlines())
