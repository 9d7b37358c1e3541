"""A worker on real data, asked for one piece of work after another."""

import hashlib
from pathlib import Path
from typing import Any

from edge_agent.training.jobs import Job, Worker
from edge_agent.training.ledger import Ledger
from shared.accountant import epsilon_of
from shared.messages.base import ObjectRef
from shared.messages.events import WorkResult, WorkStatus
from shared.messages.work import Work
from shared.tasks.registry import load_task
from shared.tasks.torch_model import state_tensors
from shared.tensors import Tensors, decode, encode
from tests.edge_agent.training.ledgers import KEY, same_limits

TASK = load_task("digits")
MODEL = state_tensors(TASK.model(seed=0))
NAMES = tuple(name for name, _ in TASK.model(seed=0).named_parameters())


class Device:
    """A worker and its folder; `close` it."""

    def __init__(self, folder: Path, **worker: Any) -> None:  # fields of Worker
        folder.mkdir(exist_ok=True)
        self.ledger = Ledger(folder / "state", limits=same_limits(50.0), epsilon_of=epsilon_of, key=KEY)
        TASK.write_device_data(folder / "data", ("block-0",))
        self._folder = folder
        self._worker = Worker(folder / "data", self.ledger, **{"allow_without_privacy": True, **worker})

    def close(self) -> None:
        self.ledger.close()

    def perform(self, work_id: str, *, model: Tensors | None = None, **fields: Any) -> WorkResult:
        """What becomes of training work of campaign `c`. `Any`: fields of Work."""
        payload = encode(MODEL if model is None else model)
        (self._folder / "model").write_bytes(payload)
        work = Work.model_validate(
            {
                "work_id": work_id,
                "kind": "train",
                "campaign_id": "c",
                "round": 1,
                "task": "digits",
                "task_version": TASK.version,
                "model": ObjectRef(digest=hashlib.sha256(payload).hexdigest(), size_bytes=len(payload)),
                "deadline_s": 60,
                **fields,
            }
        )
        job = Job(work=work, model_path=str(self._folder / "model"), update_path=str(self._folder / "update"))
        return self._worker.perform(job)

    def does(self, work_id: str, **fields: Any) -> Tensors:
        """The update, of work that succeeds. `Any`: fields of Work."""
        result = self.perform(work_id, **fields)
        assert result.status is WorkStatus.DONE, result.reason
        return decode((self._folder / "update").read_bytes())

    def kept_after(self, work_id: str) -> Tensors:
        """What is kept of this work."""
        kept = self.ledger.kept("c", after_work=work_id)
        assert kept is not None
        return decode(kept)
