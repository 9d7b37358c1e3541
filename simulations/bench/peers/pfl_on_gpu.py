"""`pfl_rounds` on one GPU, which all of its processes share.

pfl gives each process a card of its own and adds up over NCCL, which refuses two processes on one card; here they share
the card and add up over gloo. pfl's own figures for several processes on a card were made over Horovod.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import distributed


def main() -> None:
    os.environ["PFL_PYTORCH_DEVICE"] = "cuda:0"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        _share_one_card()
    # pfl looks at the environment and joins its group as it is imported.
    from simulations.bench.peers.pfl_rounds import main as rounds

    rounds()


def _share_one_card() -> None:
    join: Callable[..., None] = distributed.init_process_group

    def join_over_gloo(*arguments: Any, backend: str, **options: Any) -> None:  # torch's own
        join(*arguments, backend="gloo", **options)

    torch.cuda.set_device = lambda device: None
    distributed.init_process_group = join_over_gloo  # type: ignore[assignment]  # as pfl calls it


if __name__ == "__main__":
    main()
