"""`fleetlearn campaigns`: federated training over the devices."""

from pathlib import Path
from typing import Annotated

import click
import typer
from rich.console import Group, RenderableType
from rich.text import Text

from fleet import calls
from fleet.abbreviations import resolve
from fleet.commands.campaign_options import Audience, Learning, Privacy, Waiting, campaign_request
from fleet.commands.common import Session, command, group
from fleet.commands.flower_apps import flower_request
from fleet.commands.models import find_model
from fleet.commands.progress import campaign_progress
from fleet.rendering import rich_facts, rich_table
from fleet.trace_file import trace_csv
from fleet.views import campaigns as views
from fleet.waiting import Patience, wait_for_campaign
from shared.api.campaigns import Campaign, CampaignClone
from shared.files import write_atomically

app = group("List, show, start, pause, clone, cancel and trace federated training campaigns.")
CampaignArgument = Annotated[str, typer.Argument(help="The campaign's id, or enough of it.", metavar="CAMPAIGN")]
StartOption = Annotated[
    float | None, typer.Option("--start-in-s", help="Start so many seconds from now, not at once.", min=0)
]


@command(app, "list")
def list_campaigns(session: Session) -> None:
    """All campaigns, newest first."""
    found = session.client.send(calls.campaigns())
    empty = Text("No campaigns yet. `fleetlearn campaigns start TASK --model ID` starts one.")
    session.output.show(found, lambda: rich_table(views.campaign_table(found, now=session.now)) if found else empty)


@command(app, "show")
def show_campaign(session: Session, campaign: CampaignArgument) -> None:
    """One campaign: every round, and what each device did in the newest."""
    found = session.client.send(calls.campaign(_find(session, campaign)))
    session.output.show(found, lambda: _drawn(found, now=session.now))


@command(app, "start")
def start_campaign(
    session: Session,
    task: Annotated[str | None, typer.Argument(help="The task to learn.", metavar="[TASK]")] = None,
    model: Annotated[str | None, typer.Option("--model", help="The model version to start from.")] = None,
    flower_app: Annotated[
        Path | None,
        typer.Option(
            "--flower-app",
            help="Instead of a task: run the Flower app in this folder, which coordinator and devices have installed.",
            metavar="PATH",
        ),
    ] = None,
    *,
    learning: Learning,
    privacy: Privacy,
    audience: Audience,
    start_in_s: StartOption = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what it would ask for and cost in privacy, and start nothing.")
    ] = False,
    waiting: Waiting,
) -> None:
    """Starts federated rounds from a model version, or a Flower app."""
    start_at = _later(session, start_in_s)
    if flower_app is not None:
        app_request = flower_request(flower_app, learning=learning, audience=audience, start_at=start_at)
        _started(session, session.client.send(calls.create_flower_campaign(app_request)), waiting)
        return
    if task is None or model is None:
        raise click.UsageError("Expected a TASK and --model, or --flower-app")
    version = find_model(session, model)
    request = campaign_request(task, version, learning=learning, privacy=privacy, audience=audience, start_at=start_at)
    if plan:
        planned = session.client.send(calls.plan_campaign(request))
        session.output.show(planned, lambda: rich_facts(views.plan_facts(planned)))
        return
    _started(session, session.client.send(calls.create_campaign(request)), waiting)


@command(app, "clone")
def clone_campaign(
    session: Session,
    campaign: CampaignArgument,
    model: Annotated[str | None, typer.Option("--model", help="Start from this model version instead.")] = None,
    rounds: Annotated[int | None, typer.Option("--rounds", help="Another number of rounds.", min=1)] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Another seed.")] = None,
    start_in_s: StartOption = None,
) -> None:
    """Starts a campaign that asks for the same as another, but for the options given."""
    changes = CampaignClone(
        model_version_id=None if model is None else find_model(session, model),
        rounds=rounds,
        seed=seed,
        start_at=_later(session, start_in_s),
    )
    started = session.client.send(calls.clone_campaign(_find(session, campaign), changes))
    session.output.show(started, lambda: _drawn(started, now=session.now))


@command(app, "pause")
def pause_campaign(session: Session, campaign: CampaignArgument) -> None:
    """Stops asking devices; answers that still come are kept."""
    found = session.client.send(calls.pause_campaign(_find(session, campaign)))
    session.output.show(found, lambda: rich_facts(views.facts(found, now=session.now)))


@command(app, "resume")
def resume_campaign(session: Session, campaign: CampaignArgument) -> None:
    """Goes on with a paused campaign, in the round it was in."""
    found = session.client.send(calls.resume_campaign(_find(session, campaign)))
    session.output.show(found, lambda: rich_facts(views.facts(found, now=session.now)))


@command(app, "cancel")
def cancel_campaign(session: Session, campaign: CampaignArgument) -> None:
    """Ends a campaign after the step it is in; finished rounds stay."""
    found = session.client.send(calls.cancel_campaign(_find(session, campaign)))
    session.output.show(found, lambda: rich_facts(views.facts(found, now=session.now)))


@command(app, "trace")
def trace_fleet(
    session: Session,
    path: Annotated[Path, typer.Argument(help="Where to write it, as CSV.", metavar="FILE")],
    limit: Annotated[
        int, typer.Option("--limit", help="The newest pieces of work to take.", min=1, max=50_000)
    ] = 10_000,
) -> None:
    """Writes what devices did lately, for simulations to replay."""
    found = session.client.send(calls.trace(limit=limit))
    write_atomically(path, trace_csv(found))
    session.output.show(found, lambda: rich_facts(views.trace_facts(found, path=path)))


def _started(session: Session, campaign: Campaign, waiting: Waiting) -> None:
    shown = _wait(session, campaign, timeout_s=waiting.timeout_s) if waiting.wait else campaign
    session.output.show(shown, lambda: _drawn(shown, now=session.now))


def _wait(session: Session, campaign: Campaign, *, timeout_s: float) -> Campaign:
    with campaign_progress(session.output) as update:
        patience = Patience(timeout_s=timeout_s)
        return wait_for_campaign(session.client, campaign.campaign_id, on_progress=update, patience=patience)


def _later(session: Session, start_in_s: float | None) -> float | None:
    return None if start_in_s is None else session.now + start_in_s


def _find(session: Session, given: str) -> str:
    return resolve(given, [campaign.campaign_id for campaign in session.client.send(calls.campaigns())])


def _drawn(campaign: Campaign, *, now: float) -> RenderableType:
    parts: list[RenderableType] = [rich_facts(views.facts(campaign, now=now))]
    if campaign.history:
        parts += [Text("\nRounds", style="bold"), rich_table(views.round_table(campaign, now=now))]
    newest = views.current_round(campaign)
    if newest is not None:
        parts += [
            Text(f"\nDevices in round {newest.round}", style="bold"),
            rich_table(views.outcome_table(newest)),
        ]
    if campaign.privacy_spent:
        parts += [Text("\nPrivacy spent, by device", style="bold"), rich_table(views.privacy_table(campaign))]
    return Group(*parts)
