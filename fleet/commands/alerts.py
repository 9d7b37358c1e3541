"""`fleetlearn alerts`: what an operator should look at."""

from typing import Annotated

import typer
from rich.text import Text

from fleet import calls
from fleet.abbreviations import resolve
from fleet.commands.common import Session, command, group
from fleet.rendering import rich_facts, rich_table
from fleet.views import alerts as views

app = group("List, show and close alerts.")
AlertArgument = Annotated[str, typer.Argument(help="The alert's id, or enough of it.", metavar="ALERT")]


@command(app, "list")
def list_alerts(
    session: Session, only_open: Annotated[bool, typer.Option("--open", help="Only open ones.")] = False
) -> None:
    """All alerts, open ones first, newest first."""
    found = session.client.send(calls.alerts(only_open=only_open))
    session.output.show(
        found,
        lambda: rich_table(views.alert_table_with_ids(found, now=session.now)) if found else Text("No alerts."),
    )


@command(app, "show")
def show_alert(session: Session, alert: AlertArgument) -> None:
    """One alert."""
    found = session.client.send(calls.alert(_find(session, alert)))
    session.output.show(found, lambda: rich_facts(views.facts(found, now=session.now)))


@command(app, "close")
def close_alert(session: Session, alert: AlertArgument) -> None:
    """Closes an alert; it opens again when its cause is seen again."""
    closed = session.client.send(calls.close_alert(_find(session, alert)))
    session.output.show(closed, lambda: rich_facts(views.facts(closed, now=session.now)))


def _find(session: Session, given: str) -> str:
    return resolve(given, [alert.alert_id for alert in session.client.send(calls.alerts())])
