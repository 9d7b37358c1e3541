"""The largest few numbers travel: top-k sparsification (Aji and Heafield 2017, arXiv:1704.05021).

Guarantees:
    What does not travel has at most `1 - k / parameters` of the squared norm (Stich et al. 2018, arXiv:1809.07599).
    Biased: use it with error feedback.
    Equal magnitudes at the boundary may fall either way, on different devices differently.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_SAMPLED_EVERY = 97
_SAMPLED_FROM = 1 << 16
"""Below so many numbers a plain selection is as fast."""


def largest(values: "torch.Tensor", k: int) -> "torch.Tensor":
    """Positions of the k largest magnitudes of each row, ascending, `(clients, k)` int64."""
    import torch

    magnitudes = values.abs()
    if values.device.type == "cpu" and values.shape[1] >= _SAMPLED_FROM:
        return torch.stack([_largest_by_sample(row, k) for row in magnitudes])
    return magnitudes.topk(k, sorted=False).indices.sort().values


def _largest_by_sample(magnitudes: "torch.Tensor", k: int) -> "torch.Tensor":
    """The same for one long row: a sample's quantile leaves few candidates, and the selection among them is exact."""
    sample = magnitudes[::_SAMPLED_EVERY]
    wanted = 1.2 * k / len(magnitudes) * len(sample) + 10
    candidates = None
    if wanted < len(sample):
        threshold = sample.kthvalue(len(sample) - int(wanted)).values
        candidates = (magnitudes >= threshold).nonzero()[:, 0]
    if candidates is None or len(candidates) < k:  # the sample misled
        return magnitudes.topk(k, sorted=False).indices.sort().values
    chosen = magnitudes[candidates].topk(k, sorted=False).indices
    return candidates[chosen].sort().values
