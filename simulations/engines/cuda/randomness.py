"""Where dropout and noise come from: each client's own seed, whoever it is computed with.

On a CPU, a generator for each client, which draws as the reference does; on a GPU, counters (`kernels/chance.py`),
which give other numbers of the same distribution.
"""

from collections.abc import Callable

import torch

Tensor = torch.Tensor
Drop = Callable[[Tensor], Tensor]
"""Applies one draw of dropout to a tensor: the same numbers fall each time."""


class OwnStreams:
    """One generator for each client.

    Args:
        capacity: Clients at most.
    """

    def __init__(self, capacity: int) -> None:
        self._generators = [torch.Generator() for _ in range(capacity)]

    def seed(self, seeds: Tensor) -> None:
        for own, seed in zip(self._generators, seeds.tolist(), strict=False):
            own.manual_seed(seed)

    def begin_step(self) -> None: ...

    def dropout(self, x: Tensor, p: float) -> Drop:
        streams = self._generators[: len(x)]
        kept = torch.stack([torch.empty(x.shape[1:]).bernoulli_(1 - p, generator=own) for own in streams]).div_(1 - p)
        return kept.mul

    def add_normal(self, target: Tensor, deviations: Tensor) -> None:
        """Adds to each client's row, in place, normal numbers of the client's deviation."""
        for row, deviation, own in zip(target, deviations, self._generators, strict=False):
            row.add_(torch.randn(row.shape, generator=own) * deviation)


class Counters:
    """Seeds, and how many draws there were: on the device, so that a captured step counts on.

    Args:
        capacity: Clients at most.
        device: A GPU.
    """

    def __init__(self, capacity: int, device: torch.device) -> None:
        self._seeds = torch.zeros(capacity, dtype=torch.int64, device=device)
        self._step = torch.zeros((), dtype=torch.int32, device=device)
        self._draws = 0
        """In this step: which it is belongs to the code of the step, not to its data."""

    def seed(self, seeds: Tensor) -> None:
        # From pinned memory, since torch's plain copy to a GPU waits for all that the GPU has still to do.
        self._seeds[: len(seeds)].copy_(seeds.pin_memory(), non_blocking=True)
        self._step.zero_()

    def begin_step(self) -> None:
        self._step += 1
        self._draws = 0

    def dropout(self, x: Tensor, p: float) -> Drop:
        from simulations.engines.cuda.kernels import chance  # Triton comes with CUDA builds of torch only

        draw = self._next()
        return lambda value: chance.dropout(value, p, self._seeds, self._step, draw)

    def add_normal(self, target: Tensor, deviations: Tensor) -> None:
        """Adds to each client's row, in place, normal numbers of the client's deviation."""
        from simulations.engines.cuda.kernels import chance  # as above

        chance.add_normal(target, deviations, self._seeds, self._step, self._next())

    def _next(self) -> int:
        self._draws += 1
        return self._draws


Randomness = OwnStreams | Counters
