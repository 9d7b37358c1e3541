"""`fleetlearn tokens`: one-time tokens that let a device enrol."""

import re
from typing import Annotated

import typer
from rich.text import Text

from fleet import calls, formats
from fleet.commands.common import Session, as_json_text, build, command, group
from fleet.palette import ACCENT, MUTED
from shared.api.enrolment import TokenCreate, TokenCreated
from shared.ids import InvalidIdError, parse_device_id

app = group("Make enrolment tokens.")
STATE_DIR = "/var/lib/fleetlearn"
"""Where the printed command keeps a device's state; any other folder of its own does as well."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@app.callback()
def tokens() -> None:
    """Make enrolment tokens."""


def parse_duration(text: str) -> float:
    """Seconds in `90s`, `30m`, `1h` or `7d`. Raises typer.BadParameter."""
    match = re.fullmatch(r"\s*(\d{1,7}(?:\.\d{1,3})?)\s*([smhd])\s*", text)
    if not match:
        raise typer.BadParameter(f"expected a time such as 90s, 30m, 1h or 7d, got {text!r}")
    return float(match[1]) * _UNITS[match[2]]


def parse_tag(text: str) -> tuple[str, str]:
    """Name and value in `name=value`. Raises typer.BadParameter."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise typer.BadParameter(f"expected a tag such as site=berlin, got {text!r}")
    return name, value


@command(app, "create")
def create_token(
    session: Session,
    device_id: Annotated[str | None, typer.Option("--device-id", help="Enrols this device only.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="For the device, name=value; repeat it.")] = None,
    expires_in: Annotated[str, typer.Option("--expires-in", help="How long it is good: 90s, 30m, 1h, 7d.")] = "1h",
) -> None:
    """Makes a token, shown once, and prints the command that enrols a device with it."""
    request = build(
        TokenCreate,
        device_id=None if device_id is None else _device_id(device_id),
        expires_in_s=parse_duration(expires_in),
        tags=dict(parse_tag(text) for text in tag or []),
    )
    created = session.client.send(calls.create_token(request))
    if session.output.as_json:
        print(as_json_text(created))
    else:
        # Not folded: a token with a line break in it is none.
        session.output.console.print(_drawn(created, device_id=device_id, now=session.now), soft_wrap=True)


def enrol_command(created: TokenCreated, *, device_id: str | None) -> str:
    """The command to run on the device."""
    name = f" --device-id {device_id}" if device_id else ""
    return f"fleetlearn agent enrol --state {STATE_DIR}{name} --token {created.token}"


def _device_id(text: str) -> str:
    try:
        return parse_device_id(text)
    except InvalidIdError as error:
        raise typer.BadParameter(error.message) from error


def _drawn(created: TokenCreated, *, device_id: str | None, now: float) -> Text:
    expires = formats.until(created.expires_at, now=now)
    command_line = enrol_command(created, device_id=device_id)
    return Text.assemble(
        (f"{created.token}\n\n", ACCENT),
        (f"Good for one device, expires {expires}. On the device:\n\n", MUTED),
        f"  {command_line}",
    )
