"""Who trains whom, where several processes share a cohort."""

import torch


def shares(steps: torch.Tensor, processes: int) -> list[torch.Tensor]:
    """Positions for each process, with nearly the same number of steps in all: the longest first, to the least busy."""
    busy = [0] * processes
    dealt: list[list[int]] = [[] for _ in range(processes)]
    for position in torch.argsort(steps, descending=True, stable=True).tolist():
        least = busy.index(min(busy))
        dealt[least].append(position)
        busy[least] += int(steps[position])
    return [torch.tensor(sorted(own), dtype=torch.int64) for own in dealt]
