from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlmodel import SQLModel

from cloud.auth.operators import Principal
from cloud.blobs.store import BlobStore
from cloud.db import SessionFactory, open_engine, session_factory
from cloud.jobs.context import JobContext
from cloud.jobs.service import create_job
from cloud.registry.service import NewVersion, register
from shared.hub.port import FleetHub
from shared.tasks.registry import load_task
from shared.tasks.task import Role
from shared.tasks.torch_model import state_tensors
from shared.tensors import Tensors, encode

NOW = 1_800_000_000.0


@dataclass
class Workshop:
    """A database, blobs and jobs to package models with."""

    folder: Path
    sessions: SessionFactory
    blobs: BlobStore
    steps: list[str] = field(default_factory=list)
    check_cancelled: Callable[[], None] = lambda: None

    def context(self, job_id: str) -> JobContext:
        def report(*, fraction: float, step: str, **figures: Any) -> None:
            assert 0 <= fraction <= 1
            self.steps.append(step)

        return JobContext(
            job_id=job_id,
            sessions=self.sessions,
            blobs=self.blobs,
            work_dir=self.folder / "jobs" / job_id,
            open_hub=_no_hub,
            report_progress=report,
            check_cancelled=lambda: self.check_cancelled(),
            now=lambda: NOW,
        )

    def job(self, job_id: str, model_version_id: str) -> JobContext:
        """A queued packaging job's context."""
        spec = {"model_version_id": model_version_id}
        with self.sessions() as session, session.begin():
            create_job(session, kind="package", spec=spec, job_id=job_id, now=NOW, principal=Principal("eve", "admin"))
        return self.context(job_id)

    def model(self, task_name: str, tensors: Tensors) -> str:
        """A registered model version with these weights."""
        task = load_task(task_name)
        version_id = f"version-of-{task_name}"
        new = NewVersion(
            origin=version_id,
            task=task.name,
            task_version=task.version,
            weights=self.blobs.put(encode(tensors)),
            metrics={"validation_accuracy": 0.5},
            lineage={"campaign_id": "campaign-1", "epsilon": 8.0},
        )
        with self.sessions() as session, session.begin():
            register(session, new, model_version_id=version_id, now=NOW)
        return version_id


def _no_hub() -> FleetHub:
    raise AssertionError("packaging needs no hub")


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    engine = open_engine(f"sqlite:///{tmp_path / 'db.sqlite'}")
    SQLModel.metadata.create_all(engine)
    return Workshop(tmp_path, session_factory(engine), BlobStore(str(tmp_path / "blobs")))


@pytest.fixture(scope="session")
def digits_tensors() -> Tensors:
    """A digits model, trained for a second."""
    task = load_task("digits")
    model, examples = task.model(seed=0), task.central_data(Role.PUBLIC)
    inputs, labels = torch.from_numpy(examples.inputs), torch.from_numpy(examples.labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        loss = task.loss(model(inputs), labels)
        torch.autograd.backward(loss)
        optimizer.step()
    return state_tensors(model)
