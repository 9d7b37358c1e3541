"""`fleetlearn tui`: the terminal app."""

from typing import Annotated

import typer

from fleet.commands.common import CaOption, DataOption, Surroundings, TokenFileOption, UrlOption
from fleet.profile import Flags, read_profile

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def tui(
    context: typer.Context,
    url: UrlOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    data: DataOption = None,
    poll_s: Annotated[float, typer.Option("--poll-s", help="Seconds between two looks.", min=0.2, max=60)] = 1.5,
) -> None:
    """Watch and operate the fleet in the terminal."""
    surroundings: Surroundings = context.obj
    profile = read_profile(Flags(url=url, token_file=token_file, ca_file=ca, data=data), surroundings.environ)
    # Deferred: Textual takes 0.3 s and 30 MB that no other command needs.
    from fleet.app import FleetApp
    from fleet.client import AsyncCoordinatorClient

    client = AsyncCoordinatorClient(profile.url, token=profile.token, ca_file=profile.ca_file)
    FleetApp(client, url=profile.url, poll_s=poll_s, now=surroundings.now).run()
