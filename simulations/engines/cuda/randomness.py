"""Where dropout and noise come from.

On a CPU, each client's own generator, as the reference draws; on a GPU, one stream for the block of clients, seeded by
their seeds: no two clients share a number, but they are other numbers than the reference's.
"""

from collections.abc import Sequence

import torch

Tensor = torch.Tensor


class OwnStreams:
    """One generator for each client."""

    def __init__(self, seeds: Tensor) -> None:
        self._generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def kept(self, shape: Sequence[int], probability: float) -> Tensor:
        rows = [torch.empty(*shape[1:]).bernoulli_(probability, generator=own) for own in self._generators[: shape[0]]]
        return torch.stack(rows)

    def normal(self, shape: Sequence[int]) -> Tensor:
        return torch.stack([torch.randn(*shape[1:], generator=own) for own in self._generators[: shape[0]]])


class OneStream:
    """One generator on the device, which captured graphs advance too."""

    def __init__(self, device: torch.device) -> None:
        self.generator = torch.Generator(device)
        self._device = device

    def seed(self, seeds: Tensor) -> None:
        """From here on a function of these seeds, in this order."""
        # A polynomial in the seeds, modulo 2^63: any change of any seed changes it.
        total = 0
        for seed in seeds.tolist():
            total = (total * 6364136223846793005 + seed + 1442695040888963407) % 2**63
        self.generator.manual_seed(total)

    def kept(self, shape: Sequence[int], probability: float) -> Tensor:
        return torch.rand(*shape, generator=self.generator, device=self._device).lt_(probability)

    def normal(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(*shape, generator=self.generator, device=self._device)
