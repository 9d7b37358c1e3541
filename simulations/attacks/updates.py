"""Lies about an update: honest rows `(liars, parameters)` in, what is sent instead out.

A liar draws from a seed of its own, so the same client tells the same lie in whatever block its update arrives.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

Strength = Annotated[float, Field(gt=0, le=1e9)]


class _Attack(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SignFlip(_Attack):
    """The opposite of the honest update, `strength` times as long."""

    name: Literal["sign_flip"] = "sign_flip"
    strength: Strength = 1.0

    def lies(self, deltas: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        return -self.strength * deltas


class Scaling(_Attack):
    """The liar's update `strength` times as long: model replacement (Bagdasaryan et al. 2020, arXiv:1807.00459).

    After a backdoor was trained, a strength of `cohort / liars` makes the mean the liars' own model.
    """

    name: Literal["scaling"] = "scaling"
    strength: Strength = 10.0

    def lies(self, deltas: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        return self.strength * deltas


class Gaussian(_Attack):
    """A random direction, `strength` times as long as the honest update (Blanchard et al. 2017, section 6)."""

    name: Literal["gaussian"] = "gaussian"
    strength: Strength = 10.0

    def lies(self, deltas: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        noise = torch.stack([_normal(len(row), seed) for row, seed in zip(deltas, seeds, strict=True)]).to(deltas)
        stretch: torch.Tensor = self.strength * deltas.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True)
        return noise * stretch


def _normal(count: int, seed: int) -> torch.Tensor:
    # On the CPU, so that a liar lies alike on every device.
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


class ALittle(_Attack):
    """All liars send the same: the mean of their own honest updates, moved by `deviations` standard deviations.

    "A little is enough" (Baruch, Baruch and Goldberg 2019, arXiv:1902.06156): they hide among the honest, who spread as
    far. Liars must see each other's updates, so all of a round's have to come in one call.
    """

    name: Literal["a_little"] = "a_little"
    deviations: Strength = 1.5

    def lies(self, deltas: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        return (deltas.mean(dim=0) - self.deviations * deltas.std(dim=0, correction=0)).expand_as(deltas)


UpdateAttack = SignFlip | Scaling | Gaussian | ALittle
