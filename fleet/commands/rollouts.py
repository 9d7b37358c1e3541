"""`fleetlearn rollouts`: moving devices to a release, in waves."""

from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from fleet import calls
from fleet.abbreviations import resolve
from fleet.commands.common import Session, build, command, confirm, group
from fleet.commands.releases import find_release
from fleet.rendering import lines, rich_facts, rich_table
from fleet.views import rollouts as views
from shared.api.rollouts import Rollout, RolloutCreate

app = group("List, show, plan, start, stop and resume rollouts.")
RolloutArgument = Annotated[str, typer.Argument(help="The rollout's id, or enough of it.", metavar="ROLLOUT")]
ReleaseArgument = Annotated[str, typer.Argument(help="The release to move devices to.", metavar="RELEASE")]
WaveOption = Annotated[
    list[float] | None,
    typer.Option("--wave", help="Share of the fleet after this wave, 0 to 1; repeat it (0.2 1.0)."),
]
DeviceOption = Annotated[list[str] | None, typer.Option("--device", help="Only this one; repeat it.")]
SoakOption = Annotated[float, typer.Option("--soak-s", help="How long a wave must stay healthy.", min=0)]
FailuresOption = Annotated[int, typer.Option("--failures-max", help="More in a wave halt the rollout.", min=0)]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@command(app, "list")
def list_rollouts(session: Session) -> None:
    """All rollouts, newest first."""
    found = session.client.send(calls.rollouts())
    empty = Text("No rollouts yet. `fleetlearn rollouts start RELEASE` plans one and asks.")
    session.output.show(found, lambda: rich_table(views.rollout_table(found, now=session.now)) if found else empty)


@command(app, "show")
def show_rollout(session: Session, rollout: RolloutArgument) -> None:
    """One rollout: its waves, its devices, and why one does not move."""
    found = session.client.send(calls.rollout(_find(session, rollout)))
    session.output.show(found, lambda: _drawn(found, now=session.now))


@command(app, "plan")
def plan_rollout(
    session: Session,
    release: ReleaseArgument,
    wave: WaveOption = None,
    device: DeviceOption = None,
    soak_s: SoakOption = 5,
    failures_max: FailuresOption = 0,
) -> None:
    """Computes and stores a plan; nothing moves. `rollouts go ROLLOUT` starts it."""
    planned = _plan(session, release, wave=wave, device=device, soak_s=soak_s, failures_max=failures_max)
    session.output.show(planned, lambda: _drawn(planned, now=session.now))


@command(app, "go")
def go(session: Session, rollout: RolloutArgument, yes: YesOption = False) -> None:
    """Starts a rollout that was planned before."""
    planned = session.client.send(calls.rollout(_find(session, rollout)))
    _start(session, planned, yes=yes)


@command(app, "start")
def start_rollout(
    session: Session,
    release: ReleaseArgument,
    wave: WaveOption = None,
    device: DeviceOption = None,
    soak_s: SoakOption = 5,
    failures_max: FailuresOption = 0,
    yes: YesOption = False,
) -> None:
    """Plans a rollout, shows the plan, asks, and starts it. Answering no stops the plan."""
    planned = _plan(session, release, wave=wave, device=device, soak_s=soak_s, failures_max=failures_max)
    try:
        _start(session, planned, yes=yes)
    except typer.Abort:
        session.client.send(calls.stop_rollout(planned.rollout_id))
        raise


@command(app, "stop")
def stop_rollout(session: Session, rollout: RolloutArgument) -> None:
    """Stops a rollout: devices that moved keep the release, the others keep theirs."""
    stopped = session.client.send(calls.stop_rollout(_find(session, rollout)))
    session.output.show(stopped, lambda: _drawn(stopped, now=session.now))


@command(app, "resume")
def resume_rollout(session: Session, rollout: RolloutArgument) -> None:
    """Goes on with a rollout that a gate halted."""
    resumed = session.client.send(calls.resume_rollout(_find(session, rollout)))
    session.output.show(resumed, lambda: _drawn(resumed, now=session.now))


def _plan(
    session: Session,
    release: str,
    *,
    wave: list[float] | None,
    device: list[str] | None,
    soak_s: float,
    failures_max: int,
) -> Rollout:
    request = build(
        RolloutCreate,
        release_id=find_release(session, release),
        devices=device or [],
        wave_fractions=wave or [0.2, 1.0],
        soak_s=soak_s,
        failures_max=failures_max,
    )
    return session.client.send(calls.plan_rollout(request))


def _start(session: Session, planned: Rollout, *, yes: bool) -> None:
    session.output.notes.print(Padding(lines(views.plan_lines(planned)), (1, 2)))
    confirm("Start it?", assume_yes=yes)
    started = session.client.send(calls.start_rollout(planned.rollout_id))
    session.output.show(started, lambda: _drawn(started, now=session.now))


def _find(session: Session, given: str) -> str:
    return resolve(given, [rollout.rollout_id for rollout in session.client.send(calls.rollouts())])


def _drawn(rollout: Rollout, *, now: float) -> RenderableType:
    parts: list[RenderableType] = [
        rich_facts(views.facts(rollout, now=now)),
        rich_table(views.wave_table(rollout, now=now)),
    ]
    if any(wave.devices for wave in rollout.waves):
        parts.append(rich_table(views.device_table(rollout)))
    return Group(*parts)
