"""A random few numbers travel: positions follow from a seed, so that only the seed and the values do.

Konečný et al. 2016 (arXiv:1610.05492, "random mask"); Stich et al. 2018 (arXiv:1809.07599). A deviation: the vector is
cut into k strata as equal as they can be, and one position is drawn in each. Every position has the same chance within
its stratum, the promises are those of a uniform choice, and choosing takes time in k alone and gives sorted positions.

With one seed for a whole cohort the choice is linear: the sum of what devices send is what they would send of their
sum. That is the one compression that secure aggregation admits.

Guarantees:
    Times `spread_factors`, the expectation is the vector itself. Without, what does not travel has in expectation
    `1 - k / parameters` of the squared norm (to the unequal length of strata), which is what error feedback needs.
"""

from typing import TYPE_CHECKING

from shared.compression.draws import words

if TYPE_CHECKING:
    import torch


def positions(seeds: "torch.Tensor", *, k: int, parameters: int) -> "torch.Tensor":
    """One position in each of k strata, for each seed, ascending, `(clients, k)` int64."""
    starts, lengths = _strata(seeds, k=k, parameters=parameters)
    # The upper 31 bits times the length, without overflow; the chances of two positions differ by length / 2**31.
    chance = (words(seeds, 0, k) >> 33).bitwise_and_((1 << 31) - 1)
    return chance.mul_(lengths).bitwise_right_shift_(31).add_(starts)


def spread_factors(seeds: "torch.Tensor", *, k: int, parameters: int) -> "torch.Tensor":
    """What makes each value unbiased: its stratum's length, `(k,)` float32."""
    return _strata(seeds, k=k, parameters=parameters)[1].float()


def _strata(like: "torch.Tensor", *, k: int, parameters: int) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Starts and lengths of the k strata, `(k,)` int64 each."""
    import torch

    bounds = torch.arange(k + 1, device=like.device) * parameters // k
    return bounds[:-1], bounds[1:] - bounds[:-1]
