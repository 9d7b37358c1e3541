"""`fleetlearn analytics`: what a feature looks like over the fleet, without seeing anybody's data."""

from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from fleet import calls
from fleet.abbreviations import resolve
from fleet.commands.analytics_options import Audience, Privacy, Question, analysis_request
from fleet.commands.common import Session, command, group
from fleet.rendering import rich_facts, rich_table
from fleet.views import analytics as views
from fleet.views import campaigns as campaign_views
from fleet.waiting import Patience, wait_for_analysis
from shared.api.analytics import Analysis

app = group("Ask what a feature looks like over the fleet: counts, mean, variance, histogram, quantiles.")
AnalysisArgument = Annotated[str, typer.Argument(help="The analysis' id, or enough of it.", metavar="ANALYSIS")]


@command(app, "list")
def list_analyses(session: Session) -> None:
    """All analyses, newest first."""
    found = session.client.send(calls.analyses())
    empty = Text("No analyses yet. `fleetlearn analytics run TASK --feature NAME --low X --high Y` asks.")
    session.output.show(found, lambda: rich_table(views.analysis_table(found, now=session.now)) if found else empty)


@command(app, "show")
def show_analysis(session: Session, analysis: AnalysisArgument) -> None:
    """One analysis: what was asked, what it costs, the answer, and what each device did."""
    found = session.client.send(calls.analysis(_find(session, analysis)))
    session.output.show(found, lambda: _drawn(found, now=session.now))


@command(app, "run")
def run_analysis(
    session: Session,
    task: Annotated[str, typer.Argument(help="The task whose feature it is.", metavar="TASK")],
    question: Question,
    privacy: Privacy,
    audience: Audience,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="End with the answer, or at once.")] = True,
) -> None:
    """Asks the fleet about one feature of its data."""
    request = analysis_request(task, question=question, privacy=privacy, audience=audience)
    found = session.client.send(calls.create_analysis(request))
    if wait:
        # Devices are waited for twice at most: until a quorum is there, and until it has answered.
        patience = Patience(timeout_s=2 * audience.timeout_s + 60, poll_s=0.2)
        found = wait_for_analysis(session.client, found.analysis_id, patience=patience)
    session.output.show(found, lambda: _drawn(found, now=session.now))


@command(app, "cancel")
def cancel_analysis(session: Session, analysis: AnalysisArgument) -> None:
    """Stops asking; devices that already answered have spent what it cost."""
    found = session.client.send(calls.cancel_analysis(_find(session, analysis)))
    session.output.show(found, lambda: rich_facts(views.facts(found, now=session.now)))


def _find(session: Session, given: str) -> str:
    return resolve(given, [analysis.analysis_id for analysis in session.client.send(calls.analyses())])


def _drawn(analysis: Analysis, *, now: float) -> RenderableType:
    parts: list[RenderableType] = [rich_facts(views.facts(analysis, now=now))]
    if found := analysis.findings:
        parts += [Text("\nAnswer", style="bold"), rich_table(views.finding_table(found))]
        if found.histogram:
            parts += [Text("\nHistogram", style="bold"), rich_table(views.histogram_table(found.histogram))]
    if analysis.history:
        outcomes = campaign_views.outcome_table(analysis.history[-1])
        parts += [Text("\nDevices", style="bold"), rich_table(outcomes)]
    return Group(*parts)
