"""`fleetlearn models`: the registry, and training a task's base model."""

from typing import Annotated

import typer
from rich.text import Text

from fleet import calls
from fleet.abbreviations import resolve
from fleet.commands.common import Session, build, command, group
from fleet.commands.progress import job_progress
from fleet.rendering import line, rich_facts, rich_table
from fleet.views import registry as views
from fleet.views.table import Cell
from fleet.waiting import Patience, wait_for_job
from shared.api.jobs import Job, TrainingCreate

app = group("List and show model versions, train a base model, approve and retire.")
ModelArgument = Annotated[str, typer.Argument(help="The model version's id, or enough of it.", metavar="MODEL")]


@command(app, "list")
def list_models(session: Session) -> None:
    """All model versions, newest first."""
    found = session.client.send(calls.models())
    empty = Text("No models yet. `fleetlearn models train TASK --wait` trains a base model.")
    session.output.show(found, lambda: rich_table(views.model_table(found, now=session.now)) if found else empty)


@command(app, "show")
def show_model(session: Session, model: ModelArgument) -> None:
    """One model version: metrics and where it comes from."""
    found = session.client.send(calls.model(find_model(session, model)))
    session.output.show(found, lambda: rich_facts(views.model_facts(found, now=session.now)))


@command(app, "train")
def train_model(
    session: Session,
    task: Annotated[str, typer.Argument(help="The task to learn.", metavar="TASK")],
    seed: Annotated[int, typer.Option("--seed", help="For initial weights and order.")] = 0,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress, and end with the job.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout-s", help="With --wait: how long.", min=1)] = 24 * 3600,
) -> None:
    """Trains the task's base model on its public data, in the cloud."""
    job = session.client.send(calls.start_training(build(TrainingCreate, task=task, seed=seed)))
    show_job(session, job, title=f"train {task}", wait=wait, timeout_s=timeout_s)


@command(app, "approve")
def approve_model(session: Session, model: ModelArgument) -> None:
    """Says that a model version may be used."""
    approved = session.client.send(calls.approve_model(find_model(session, model)))
    session.output.show(approved, lambda: rich_facts(views.model_facts(approved, now=session.now)))


@command(app, "retire")
def retire_model(session: Session, model: ModelArgument) -> None:
    """Says that a model version is no longer to be used."""
    retired = session.client.send(calls.retire_model(find_model(session, model)))
    session.output.show(retired, lambda: rich_facts(views.model_facts(retired, now=session.now)))


def show_job(session: Session, job: Job, *, title: str, wait: bool, timeout_s: float) -> None:
    """Shows a job, after its end where it is waited for."""
    if wait:
        with job_progress(session.output, title) as update:
            patience = Patience(timeout_s=timeout_s)
            job = wait_for_job(session.client, job.job_id, on_progress=update, patience=patience)
    facts = [Cell(f"{name} {value}") for name, value in job.result.items() if not isinstance(value, dict | list)]
    session.output.show(job, lambda: line([*views.job_headline(job, now=session.now), *facts]))


def find_model(session: Session, given: str) -> str:
    """The id of the one model version this names."""
    return resolve(given, [model.model_version_id for model in session.client.send(calls.models())])
