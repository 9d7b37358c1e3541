"""Dropout and noise without memory: a number is a function of the client's seed, the step, the draw and its place.

Counters instead of a stream (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): the backward pass
draws the forward pass's numbers again, and a client's numbers do not depend on whom it is computed with.
"""

import torch
import triton
import triton.language as tl

Tensor = torch.Tensor

_BLOCK = 1024


@triton.jit
def _dropout(x, y, seeds, step, draw, numbers, p, BLOCK: tl.constexpr):
    client = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < numbers
    value = tl.load(x + client * numbers + place, mask=inside)
    bits, _, _, _ = tl.philox(tl.load(seeds + client), place, place * 0 + tl.load(step), place * 0 + draw, place * 0)
    kept = tl.uint_to_uniform_float(bits) >= p
    tl.store(y + client * numbers + place, tl.where(kept, value / (1 - p), 0.0), mask=inside)


@triton.jit
def _add_normal(target, deviations, seeds, step, draw, target_client, numbers, BLOCK: tl.constexpr):
    client = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < numbers
    first, second, _, _ = tl.philox(
        tl.load(seeds + client), place, place * 0 + tl.load(step), place * 0 + draw, place * 0
    )
    # Box and Muller 1958; the first number is kept from zero, whose logarithm there is none of.
    radius = tl.sqrt(-2.0 * tl.log(tl.maximum(1.0e-7, tl.uint_to_uniform_float(first))))
    normal = radius * tl.cos(6.283185307179586 * tl.uint_to_uniform_float(second))
    target += client * target_client
    old = tl.load(target + place, mask=inside)
    tl.store(target + place, old + normal * tl.load(deviations + client), mask=inside)


def dropout(x: Tensor, p: float, seeds: Tensor, step: Tensor, draw: int) -> Tensor:
    """Each number of `x (clients, ...)` zero with probability p, otherwise divided by `1 - p`."""
    x = x.contiguous()
    y = torch.empty_like(x)
    numbers = x[0].numel()
    _dropout[(triton.cdiv(numbers, _BLOCK), len(x))](x, y, seeds, step, draw, numbers, p, BLOCK=_BLOCK)
    return y


def add_normal(target: Tensor, deviations: Tensor, seeds: Tensor, step: Tensor, draw: int) -> None:
    """Adds to each client's row, in place, normal numbers of the client's deviation."""
    clients, numbers = target.shape
    grid = (triton.cdiv(numbers, _BLOCK), clients)
    _add_normal[grid](target, deviations, seeds, step, draw, target.stride(0), numbers, BLOCK=_BLOCK)
