"""Norms and weighted sums of gradients that are products: of what went into a layer, and of what came back to it.

A dense layer's gradient for one example is `B^T A`: activations A `(tokens, in)`, output gradients B `(tokens, out)`.
Its norm needs no gradient. With one token it is |a| |b| (Goodfellow 2015, arXiv:1510.01799); with more it follows from
the inner products among tokens, the *ghost norm* (Li et al. 2022, arXiv:2110.05679), or from the gradient itself where
that is the smaller thing (Bu et al. 2022, arXiv:2205.10683). The clipped sum is then one GEMM for the whole batch
("book-keeping": Bu et al. 2022, arXiv:2210.00038).

Pure functions; all take any leading dimensions (clients of a stacked cohort) before those they name. Devices and
simulations clip by these.

Example, one dense layer of a cohort:
    >>> A, B = torch.randn(20, 8, 5), torch.randn(20, 8, 3)       # 20 clients, 8 examples each
    >>> weights = clip_factors(squared_norms(A, B), max_norm=1.0)  # (20, 8)
    >>> weighted_sum(A, B, weights).shape
    torch.Size([20, 3, 5])
"""

import torch

_NORM_FLOOR = 1e-6
"""As Opacus has it: a norm is taken for this much larger, so that nothing divides by 0 and rounding stays below."""


def squared_norms(activations: torch.Tensor, gradients: torch.Tensor, *, with_bias: bool = False) -> torch.Tensor:
    """`(..., examples)`: squared norms of the gradients, from `(..., examples, in)` and `(..., examples, out)`.

    Args:
        activations: What went in.
        gradients: Of what came out.
        with_bias: Of weight and bias together: a bias is the weight of an input that is always 1.
    """
    squared = row_squares(activations)
    if with_bias:
        squared += 1
    return squared.mul_(row_squares(gradients))


def row_squares(values: torch.Tensor) -> torch.Tensor:
    """`(...)`: squared norms of the vectors `(..., width)`."""
    squares: torch.Tensor = torch.linalg.vector_norm(values, dim=-1).square_()
    return squares


def sequence_squared_norms(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """The same where an example has tokens: `(..., examples, tokens, in)` and `(..., examples, tokens, out)`."""
    tokens, inputs, outputs = activations.shape[-2], activations.shape[-1], gradients.shape[-1]
    if tokens == 1:
        return squared_norms(activations.squeeze(-2), gradients.squeeze(-2))
    if is_direct(tokens, inputs=inputs, outputs=outputs):
        return (gradients.mT @ activations).square().sum(dim=(-2, -1))
    # In double: terms of both signs nearly cancel where tokens disagree, and a norm found too small clips too little.
    inner = (activations.double() @ activations.double().mT) * (gradients.double() @ gradients.double().mT)
    return inner.sum(dim=(-2, -1)).clamp(min=0).to(activations.dtype)


def is_direct(tokens: int, *, inputs: int, outputs: int) -> bool:
    """Whether one example's gradient is no larger than what it is made of; then it also takes fewer operations."""
    return inputs * outputs <= tokens * (inputs + outputs)


def clip_factors(squared: torch.Tensor, *, max_norm: float) -> torch.Tensor:
    """Each gradient's factor, at most 1, after which its norm is at most `max_norm`; from squared norms."""
    return (max_norm / (squared.sqrt() + _NORM_FLOOR)).clamp(max=1.0)


def weighted_sum(
    activations: torch.Tensor, gradients: torch.Tensor, weights: torch.Tensor, *, out: torch.Tensor | None = None
) -> torch.Tensor:
    """`(..., out, in)`: the examples' gradients times their weights, summed; one GEMM.

    Args:
        activations: `(..., examples, in)`.
        gradients: `(..., examples, out)`.
        weights: `(..., examples)`.
        out: Where the result goes, if somewhere.
    """
    return torch.matmul((gradients * weights[..., None]).mT, activations, out=out)
