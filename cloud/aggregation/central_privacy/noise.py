"""Where the noise comes from: nobody can predict it in a campaign, everybody can repeat it in a simulation."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from shared.randomness import SecureRandomness


class Noise(Protocol):
    """A source of standard normal numbers."""

    def normal(self, count: int, *, round_number: int, device: torch.device) -> torch.Tensor:
        """`(count,)` on the device, float32 or wider; never the same twice in one campaign."""
        ...


@dataclass(frozen=True)
class SecureNoise:
    """From ChaCha20 under a fresh key of the operating system's, each time."""

    def normal(self, count: int, *, round_number: int, device: torch.device) -> torch.Tensor:
        return torch.from_numpy(SecureRandomness.from_system().normal((count,))).to(device)


@dataclass(frozen=True)
class KeyedNoise:
    """From ChaCha20 under a key that one round's sum alone has: a killed campaign draws the same noise once more."""

    key: bytes = field(repr=False)

    def normal(self, count: int, *, round_number: int, device: torch.device) -> torch.Tensor:
        return torch.from_numpy(SecureRandomness(self.key).normal((count,))).to(device)


@dataclass(frozen=True)
class SeededNoise:
    """From torch's generator, seeded anew in each round, so that a resumed simulation draws the same.

    It promises nothing: whoever knows the seed can subtract it. Devices of other types draw other numbers.
    """

    seed: int

    def normal(self, count: int, *, round_number: int, device: torch.device) -> torch.Tensor:
        # Hashed, since torch's generator on the CPU looks at 32 bits of a seed alone.
        hashed = np.random.SeedSequence([self.seed, round_number]).generate_state(1, np.uint32)
        generator = torch.Generator(device).manual_seed(int(hashed[0]))
        return torch.randn(count, generator=generator, device=device)
