"""Several processes that run one experiment together, one for each GPU or machine, started by torchrun.

    torchrun --nproc-per-node=4 -m simulations.simulate EXPERIMENT.toml

All make the same decisions from the same seeds, and end each round with the same model. The first alone shows, writes
and is asked to stop; what it alone knows, it tells the others.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from simulations.engines.distributed import DistributedEngine
from simulations.engines.port import Engine

T = TypeVar("T")
_TIMEOUT = timedelta(minutes=10)
"""That one may be behind the others: in evaluation, or in writing."""


@dataclass(frozen=True)
class Processes:
    """This one among them."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def told(self, value: T) -> T:
        """What the first one says; all must ask, and what the others bring does not count."""
        if self.count == 1:
            return value
        said = [value]
        distributed.broadcast_object_list(said)
        return said[0]

    def sharing(self, engine: Engine) -> Engine:
        """An engine that trains this process's share of each cohort."""
        return engine if self.count == 1 else DistributedEngine(engine)


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """Those that torchrun started, whose environment tells; without it this process is alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_TIMEOUT)
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
