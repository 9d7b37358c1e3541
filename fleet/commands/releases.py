"""`fleetlearn releases`: packages that devices can serve; signed on this machine, never in the cloud."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from fleet import calls, formats
from fleet.abbreviations import resolve
from fleet.commands.common import Session, command, confirm, group
from fleet.commands.models import find_model, show_job
from fleet.rendering import lines, rich_facts, rich_table
from fleet.views import registry as views
from fleet.views.table import Cell, Tone
from shared.api.releases import ReleaseCreate, SignedTargets

if TYPE_CHECKING:
    from fleet.signing import SigningReview

app = group("List, show, package and publish releases.")
ReleaseArgument = Annotated[str, typer.Argument(help="The release's id, or enough of it.", metavar="RELEASE")]
TARGETS_KEY_FILE = "targets.pem"


@command(app, "list")
def list_releases(session: Session) -> None:
    """All releases, newest first."""
    found = session.client.send(calls.releases())
    empty = Text("No releases yet. `fleetlearn releases package MODEL --wait` makes one.")
    session.output.show(found, lambda: rich_table(views.release_table(found, now=session.now)) if found else empty)


@command(app, "show")
def show_release(session: Session, release: ReleaseArgument) -> None:
    """One release: files, accuracy before and after quantization, and where it comes from."""
    found = session.client.send(calls.release(find_release(session, release)))
    session.output.show(found, lambda: rich_facts(views.release_facts(found, now=session.now)))


@command(app, "package")
def package_release(
    session: Session,
    model: Annotated[str, typer.Argument(help="The model version to package.", metavar="MODEL")],
    wait: Annotated[bool, typer.Option("--wait", help="Show progress, and end with the job.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout-s", help="With --wait: how long.", min=1)] = 3600,
) -> None:
    """Exports, quantizes and checks a model version; the result is a draft."""
    model_version_id = find_model(session, model)
    job = session.client.send(calls.package_release(ReleaseCreate(model_version_id=model_version_id)))
    show_job(session, job, title="package", wait=wait, timeout_s=timeout_s)


@command(app, "publish")
def publish_release(
    session: Session,
    release: ReleaseArgument,
    keys: Annotated[Path, typer.Option("--keys", help=f"Folder with the key that signs, {TARGETS_KEY_FILE}.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Shows what would be signed, signs it on this machine, and publishes it."""
    # Deferred: only signing needs TUF's libraries (0.2 s).
    from fleet.signing import remember_published, review_targets, sign_targets

    key_file = keys / TARGETS_KEY_FILE
    release_id = find_release(session, release)
    request = session.client.send(calls.request_signing(release_id))
    review = review_targets(request.targets_metadata, targets_key_file=key_file)
    session.output.notes.print(lines(_review_lines(review, now=session.now)))
    confirm("Sign and publish this?", assume_yes=yes)
    signed = sign_targets(request.targets_metadata, targets_key_file=key_file)
    published = session.client.send(calls.publish_release(release_id, SignedTargets(targets_metadata=signed)))
    remember_published(signed, targets_key_file=key_file)
    session.output.show(published, lambda: rich_facts(views.release_facts(published, now=session.now)))


def find_release(session: Session, given: str) -> str:
    """The id of the one release this names."""
    return resolve(given, [release.release_id for release in session.client.send(calls.releases())])


def _review_lines(review: "SigningReview", *, now: float) -> list[Cell]:
    expires = formats.until(review.expires.timestamp(), now=now)
    files = [
        Cell(f"  {file.path}  {formats.size(file.size_bytes)}  sha256 {file.sha256[:16]}…", Tone.MUTED)
        for file in review.files
    ]
    new = ", ".join(review.releases) or "no new release"
    return [
        Cell(f"Targets metadata version {review.version}, expires {expires}", Tone.STRONG),
        Cell(f"makes installable: {new}", Tone.PLAIN),
        *files,
    ]
