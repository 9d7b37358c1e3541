"""`fleetlearn analytics`: what a feature looks like over the fleet, without seeing anybody's data."""

from typing import Annotated

import click
import typer
from rich.console import Group, RenderableType
from rich.text import Text

from fleet import calls
from fleet.abbreviations import resolve
from fleet.commands.common import Session, build, command, group
from fleet.rendering import rich_facts, rich_table
from fleet.views import analytics as views
from fleet.views import campaigns as campaign_views
from fleet.waiting import Patience, wait_for_analysis
from shared.analytics.query import Protected, Query, Statistic
from shared.api.analytics import Analysis, AnalysisCreate
from shared.api.campaigns import PrivacyBudget, SecureAggregation, SelectionRules
from shared.strategies import assignments

SECURE_VALUE_MAX = 2.0**16
"""Of one sum of one device: more examples than that on a device, and it refuses to be masked."""

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
def run_analysis(  # one keyword for each option of the command line
    session: Session,
    task: Annotated[str, typer.Argument(help="The task whose feature it is.", metavar="TASK")],
    feature: Annotated[str, typer.Option("--feature", help="Its name, of the task's schema.")],
    low: Annotated[float, typer.Option("--low", help="What smaller values count as.")],
    high: Annotated[float, typer.Option("--high", help="What larger values count as.")],
    statistics: Annotated[
        list[Statistic] | None,
        typer.Option("--statistic", help="Only this one, for less noise; repeat it. All unless said."),
    ] = None,
    quantile: Annotated[
        list[float] | None, typer.Option("--quantile", help="Which, between 0 and 1; repeat it. Quartiles unless said.")
    ] = None,
    bins: Annotated[int, typer.Option("--bins", help="Of the histogram.", min=2, max=512)] = 32,
    protects: Annotated[
        Protected, typer.Option("--protects", help="What nobody can tell the presence of.")
    ] = Protected.UNIT,
    examples_max: Annotated[
        int, typer.Option("--examples-max", help="Examples that one of what is protected counts for.", min=1)
    ] = 1,
    epsilon: Annotated[
        float | None, typer.Option("--epsilon", help="What the answer may cost; none: no noise.")
    ] = None,
    delta: Annotated[float, typer.Option("--delta", help="At which delta.")] = 1e-5,
    secure: Annotated[
        bool, typer.Option("--secure", help="Add up securely: devices share the noise, the coordinator sees the sum.")
    ] = False,
    secure_min: Annotated[int, typer.Option("--secure-min", help="Fewest devices in such a sum.", min=3)] = 3,
    device: Annotated[list[str] | None, typer.Option("--device", help="Only this one; repeat it.")] = None,
    select: Annotated[
        list[str] | None,
        typer.Option("--select", help="Whom it asks, such as sites=north; repeat it.", metavar="KEY=VALUE"),
    ] = None,
    quorum: Annotated[int, typer.Option("--quorum", help="Fewest devices that make an answer.", min=1)] = 3,
    timeout_s: Annotated[float, typer.Option("--timeout-s", help="How long devices are waited for.", min=1)] = 120,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="End with the answer, or at once.")] = True,
) -> None:
    """Asks the fleet about one feature of its data."""
    query = build(
        Query,
        feature=feature,
        low=low,
        high=high,
        bins=bins,
        protects=protects,
        examples_max=examples_max,
        **({"statistics": tuple(statistics)} if statistics else {}),
    )
    if quantile and Statistic.QUANTILES not in query.statistics:
        raise click.UsageError("--quantile: ask for `--statistic quantiles` too, or for no statistic by name.")
    request = build(
        AnalysisCreate,
        task=task,
        query=query,
        privacy=None if epsilon is None else build(PrivacyBudget, epsilon=epsilon, delta=delta),
        secure=build(SecureAggregation, clients_min=secure_min, value_max=SECURE_VALUE_MAX) if secure else None,
        devices=device or [],
        selection=build(SelectionRules, **assignments(select or [])),
        quorum=quorum,
        timeout_s=timeout_s,
        **({"quantiles": quantile} if quantile else {}),
    )
    found = session.client.send(calls.create_analysis(request))
    if wait:
        # Devices are waited for twice at most: until a quorum is there, and until it has answered.
        patience = Patience(timeout_s=2 * timeout_s + 60, poll_s=0.2)
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
