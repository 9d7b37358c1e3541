"""The arithmetic of user-level privacy that both sides need: clip whole updates, and know how much noise hides them.

Whoever adds the noise clips first: the coordinator, or each client, whose shares of noise together make all of it.
torch is imported where it computes; a device that only serves never pays for it.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shared.privacy import NoiseBy, UserPrivacySpec
from shared.secagg.messages import SummedNoise

if TYPE_CHECKING:
    import torch

_INSIDE = 1 - 2.0**-20
"""Clipped updates end this far inside the bound, so that float32's rounding does not carry them over it."""


def clip_factors(deltas: "torch.Tensor", bound: "torch.Tensor | float") -> tuple["torch.Tensor", "torch.Tensor"]:
    """What to multiply each update with, and which updates were within the bound: `(clients,)` float64 and bool.

    An update with NaN or infinity has factor 0, and counts as beyond the bound.

    Args:
        deltas: `(clients, parameters)` float32.
        bound: Of the L2 norm.
    """
    import torch

    norms = torch.linalg.vector_norm(deltas, dim=1, dtype=torch.float64)
    factors = torch.where(norms > bound, _INSIDE * bound / norms, torch.ones_like(norms))
    return factors.where(norms.isfinite(), torch.zeros_like(norms)), norms <= bound


def clipped_with_noise(
    deltas: "torch.Tensor", bound: float, spec: UserPrivacySpec, *, normal: "torch.Tensor"
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """What clients send where they add the noise: updates `(clients, parameters)`, and whether within, `(clients, 1)`.

    Guarantees:
        The sum over any `spec.noise_clients_min` clients has all of the noise that `spec` promises: a share has that
        part of the whole variance. It holds against whoever sees only sums of so many.

    Args:
        deltas: `(clients, parameters)` float32.
        bound: Of this round, as it was sent.
        spec: Of the campaign.
        normal: Standard normal numbers, `(clients, parameters + 1)`, each client's unknown to all others.
    """
    factors, within = clip_factors(deltas, bound)
    of_sum, of_count = (deviation / math.sqrt(spec.noise_clients_min) for deviation in deviations(spec, bound))
    clipped = (factors[:, None] * deltas.nan_to_num()).to(deltas.dtype)
    around_zero = within[:, None].to(deltas.dtype) - 0.5
    return clipped + of_sum * normal[:, :-1], around_zero + of_count * normal[:, -1:]


def summed_noise(spec: UserPrivacySpec, bound: float) -> SummedNoise | None:
    """The noise that devices make together in a round with this bound; nothing where the server adds it.

    Sum and count are one vector under one noise: the count is scaled so that its own deviation becomes the sum's. That
    vector's bound is then the deviation by the multiplier, whether the bound adapts or not.
    """
    if spec.noise_by is not NoiseBy.CLIENTS:
        return None
    of_sum, _ = deviations(spec, bound)
    return SummedNoise(deviation=of_sum, norm_max=of_sum / spec.noise_multiplier, clients=spec.noise_clients_min)


def count_scale(spec: UserPrivacySpec, bound: float) -> float:
    """What the count is multiplied with, to be the last number of the vector; 0 where there is none."""
    of_sum, of_count = deviations(spec, bound)
    return of_sum / of_count if of_count else 0.0


def clipped_with_count(values: NDArray[np.float32], spec: UserPrivacySpec, bound: float) -> NDArray[np.float64]:
    """A device's part of the sum before noise, `(parameters,)`, or one longer where the bound adapts."""
    import torch

    (factor,), (within,) = clip_factors(torch.from_numpy(values)[None], bound)
    clipped = float(factor) * np.nan_to_num(np.asarray(values, np.float64), posinf=0.0, neginf=0.0)
    scale = count_scale(spec, bound)
    return np.append(clipped, scale * (float(within) - 0.5)) if scale else clipped


def deviations(spec: UserPrivacySpec, bound: float) -> tuple[float, float]:
    """Standard deviations of all the noise, on the sum of updates and on the count of those within the bound.

    With adaptive clipping the two releases together cost what `spec.noise_multiplier` alone would (Andrew et al. 2021,
    theorem 1). A client moves the count of `within - 1/2` by half, so that its multiplier is twice its deviation.
    """
    if spec.adaptive is None:
        return spec.noise_multiplier * bound, 0.0
    of_count = spec.adaptive.count_noise * spec.expected_clients
    left = spec.noise_multiplier**-2 - (2 * of_count) ** -2
    return bound / math.sqrt(left), of_count
