from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from sqlmodel import SQLModel

from cloud.auth.operators import Principal
from cloud.blobs.store import BlobStore
from cloud.db import open_engine, session_factory
from cloud.jobs.context import JobCancelledError, JobContext
from cloud.jobs.models import JobRecord
from cloud.registry.service import get_version, list_versions
from cloud.training.job import examples_digest, run
from cloud.training.service import start_training
from shared.api.jobs import TrainingCreate
from shared.hub.memory import MemoryHub
from shared.lifecycles import JobState, VersionStage
from shared.tasks.errors import UnknownTaskError
from shared.tasks.registry import load_task
from shared.tasks.task import Examples, Role
from shared.tensors import decode

SPEC = {"task": "digits", "seed": 3}


class KilledError(BaseException):
    """Not an Exception: nothing in a program handles it."""


class Coordinator:
    """What a job sees, and what it reported."""

    def __init__(self, folder: Path) -> None:
        engine = open_engine(f"sqlite:///{folder}/coordinator.sqlite")
        SQLModel.metadata.create_all(engine)
        self.sessions = session_factory(engine)
        self.blobs = BlobStore(str(folder / "blobs"))
        self.folder = folder
        self.progress: list[dict[str, Any]] = []

    def context(self, *, check: Callable[[int], None] = lambda _: None) -> JobContext:
        def report(*, fraction: float, step: str, **figures: Any) -> None:
            self.progress.append({"fraction": fraction, "step": step, **figures})

        return JobContext(
            job_id="job-1",
            sessions=self.sessions,
            blobs=self.blobs,
            work_dir=self.folder / "job-1",
            open_hub=lambda: MemoryHub(Random(0)).fleet(),
            report_progress=report,
            check_cancelled=lambda: check(len(self.progress)),
            now=lambda: 1_000.0,
        )

    def weights_digest(self, result: Any) -> str:
        with self.sessions() as session, session.begin():
            return get_version(session, result["model_version_id"]).weights.digest


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator(tmp_path)


def test_registers_a_candidate_with_metrics_and_lineage(coordinator: Coordinator) -> None:
    result = run(coordinator.context(), SPEC)

    with coordinator.sessions() as session, session.begin():
        version = get_version(session, result["model_version_id"])
    assert version.stage is VersionStage.CANDIDATE
    assert version.metrics["validation_accuracy"] > 0.7
    assert version.metrics["unseen_accuracy"] == result["unseen_accuracy"]
    assert version.lineage["seed"] == 3
    assert version.lineage["job_id"] == "job-1"
    assert version.lineage["data_digest"] == examples_digest(load_task("digits").central_data(Role.PUBLIC))
    assert set(decode(coordinator.blobs.get(version.weights.digest))) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_reports_each_epoch_with_its_figures(coordinator: Coordinator) -> None:
    run(coordinator.context(), SPEC)

    epochs = [entry for entry in coordinator.progress if "epoch" in entry]
    fractions = [entry["fraction"] for entry in coordinator.progress]
    assert [entry["epoch"] for entry in epochs] == list(range(1, 16))
    assert fractions == sorted(fractions)
    assert epochs[-1]["accuracy"] > epochs[0]["accuracy"]
    assert epochs[-1]["loss"] < epochs[0]["loss"]


def test_a_killed_training_goes_on_from_its_checkpoint_and_ends_with_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole, killed = Coordinator(tmp_path / "whole"), Coordinator(tmp_path / "killed")
    expected = whole.weights_digest(run(whole.context(), SPEC))

    def kill_in_epoch_seven(reports: int) -> None:
        if reports == 7:
            raise KilledError

    with pytest.raises(KilledError):
        run(killed.context(check=kill_in_epoch_seven), SPEC)
    killed.progress.clear()
    found = killed.weights_digest(run(killed.context(), SPEC))

    assert found == expected
    assert [entry["epoch"] for entry in killed.progress if "epoch" in entry] == list(range(8, 16))


def test_running_a_finished_training_again_registers_nothing_twice(coordinator: Coordinator) -> None:
    first, second = run(coordinator.context(), SPEC), run(coordinator.context(), SPEC)

    assert first == second
    with coordinator.sessions() as session, session.begin():
        assert len(list_versions(session, limit=10)) == 1


def test_stops_between_epochs_when_it_is_cancelled(coordinator: Coordinator) -> None:
    def cancel(_: int) -> None:
        raise JobCancelledError

    with pytest.raises(JobCancelledError):
        run(coordinator.context(check=cancel), SPEC)

    with coordinator.sessions() as session, session.begin():
        assert list_versions(session, limit=10) == []


def test_asking_for_training_queues_a_job(coordinator: Coordinator) -> None:
    asked = TrainingCreate(task="digits", seed=3)
    with coordinator.sessions() as session, session.begin():
        job = start_training(session, asked, job_id="job-9", now=5.0, principal=Principal("ada", "admin"))

    assert (job.kind, job.state) == ("train_base", JobState.QUEUED)
    with coordinator.sessions() as session, session.begin():
        assert session.get_one(JobRecord, "job-9").spec == SPEC


def test_an_unknown_task_is_refused_before_there_is_a_job(coordinator: Coordinator) -> None:
    asked = TrainingCreate(task="weather")
    with coordinator.sessions() as session, session.begin(), pytest.raises(UnknownTaskError, match="digits"):
        start_training(session, asked, job_id="job-9", now=5.0, principal=Principal("ada", "admin"))

    with coordinator.sessions() as session, session.begin():
        assert session.get(JobRecord, "job-9") is None


def test_the_digest_of_data_names_values_types_and_shapes() -> None:
    def digest(**changed: Any) -> str:
        fields: dict[str, Any] = {
            "inputs": np.zeros((2, 4), np.float32),
            "labels": np.zeros(2, np.int64),
            "units": np.zeros(2, np.int64),
        }
        return examples_digest(Examples(**{**fields, **changed}))

    changed = [
        digest(inputs=np.ones((2, 4), np.float32)),
        digest(inputs=np.zeros((4, 2), np.float32)),
        digest(units=np.ones(2, np.int64)),
    ]
    assert len({digest(), *changed}) == 4
    assert digest() == digest()
