"""`fleetlearn devices`: who is enrolled, how it fares, and no longer."""

from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from fleet import calls
from fleet.abbreviations import resolve
from fleet.commands.common import Session, command, confirm, group
from fleet.rendering import rich_facts, rich_table
from fleet.views import devices as views
from fleet.views import privacy as privacy_views
from fleet.views.table import filtered
from shared.api.devices import Device

app = group("List, show and revoke devices, and what their privacy was spent on.")
DeviceArgument = Annotated[str, typer.Argument(help="The device's id, or enough of it.", metavar="DEVICE")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@command(app, "list")
def list_devices(
    session: Session,
    words: Annotated[str, typer.Option("--filter", help="Only rows with these words, in the table.")] = "",
) -> None:
    """All devices: state, release, drift, privacy left, and why one is not where it should be."""
    found = session.client.send(calls.devices())
    session.output.show(found, lambda: _drawn(found, words=words, now=session.now))


@command(app, "show")
def show_device(session: Session, device: DeviceArgument) -> None:
    """One device: facts, release, privacy ledgers, drift of each feature."""
    found = session.client.send(calls.device(find_device(session, device)))
    session.output.show(found, lambda: _drawn_device(found, now=session.now))


@command(app, "privacy")
def show_privacy(
    session: Session, device: Annotated[str | None, typer.Argument(help="Only this one.", metavar="[DEVICE]")] = None
) -> None:
    """What privacy each device's data may have spent over all campaigns, on which, and what is left."""
    device_id = find_device(session, device) if device else ""
    found = session.client.send(calls.privacy(device_id=device_id))
    empty = Text("No device has spent any: none has taken part in anything with privacy.")
    session.output.show(found, lambda: rich_table(privacy_views.account_table(found)) if found else empty)


@command(app, "revoke")
def revoke_device(session: Session, device: DeviceArgument, yes: YesOption = False) -> None:
    """Closes hub and HTTPS to a device for good; its name is never used again."""
    device_id = find_device(session, device)
    confirm(f"Revoke {device_id}? It cannot come back under this name.", assume_yes=yes)
    session.client.send(calls.revoke_device(device_id))
    revoked = session.client.send(calls.device(device_id))
    session.output.show(revoked, lambda: Text(f"{device_id} is revoked."))


@command(app, "accept-ledger")
def accept_ledger(session: Session, device: DeviceArgument, yes: YesOption = False) -> None:
    """Takes a device's privacy ledger as it is, though it went back or forked: the device is asked to train again."""
    device_id = find_device(session, device)
    confirm(f"Forget what {device_id} told of its ledger? What its data has spent may be lost.", assume_yes=yes)
    accepted = session.client.send(calls.accept_ledger(device_id))
    session.output.show(accepted, lambda: Text(f"The ledger of {device_id} counts as it is from now on."))


def find_device(session: Session, given: str) -> str:
    """The id of the one device this names."""
    return resolve(given, [device.device_id for device in session.client.send(calls.devices())])


def _drawn(devices: list[Device], *, words: str, now: float) -> RenderableType:
    if not devices:
        return Text("No devices yet. `fleetlearn tokens create` makes a token to enrol the first.")
    figures = views.summary(devices)
    line = (
        f"{figures.online} of {figures.total} online, {figures.off_target} not at target, {figures.drifting} drifting"
    )
    return Group(rich_table(filtered(views.device_table(devices, now=now), words)), Text(line, style="dim"))


def _drawn_device(device: Device, *, now: float) -> RenderableType:
    parts: list[RenderableType] = [
        Text(device.device_id, style="bold"),
        rich_facts(views.facts(device, now=now)),
        Text("\nRelease", style="bold"),
        rich_facts(views.release_facts(device)),
    ]
    if device.privacy:
        parts += [Text("\nPrivacy", style="bold"), rich_table(views.privacy_table(device.privacy))]
    if device.drift:
        parts += [Text("\nDrift", style="bold"), rich_table(views.drift_table(device.drift))]
    return Group(*parts)
