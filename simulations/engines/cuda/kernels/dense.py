"""Dense layers of stacked clients, made for few examples and many weights: what counts is reading each weight once.

cuBLAS's batched products read the weights three times and write them once in a step (forward, input gradient, update);
`finish` makes the last two one pass: a tile of weights is read, answers the input gradient, is updated, is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from simulations.engines.cuda.precision import dot

Tensor = torch.Tensor

_BATCH_MAX = 32
"""Larger batches are products that cuBLAS does well."""
_PROGRAMS = 528
"""Four for each multiprocessor of an H100."""


@dataclass(frozen=True)
class Tile:
    """The weights that one program holds at a time, and how it runs; measured on an H100."""

    outputs: int
    inputs: int
    product: str
    """Of float32 numbers, in Triton's words."""
    warps: int = 4
    stages: int = 3


@triton.jit
def _forward(
    x, weight, bias, y, weight_client, bias_client, batch, inputs, outputs,
    HAS_BIAS: tl.constexpr, RECTIFY: tl.constexpr, SPLITS: tl.constexpr, INPUTS_EACH: tl.constexpr,
    BATCH: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Partial sums `(clients, SPLITS, batch, outputs)`, each over a share of the inputs; a single one is finished."""
    client = tl.program_id(1).to(tl.int64)
    split = tl.program_id(2)
    b = tl.arange(0, BATCH)
    o = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    x += client * batch * inputs
    weight += client * weight_client
    total = tl.zeros((BATCH, OUTPUTS), dtype=tl.float32)
    for start in tl.range(0, INPUTS_EACH, INPUTS):
        i = split * INPUTS_EACH + start + tl.arange(0, INPUTS)
        inside = (b < batch)[:, None] & (i < inputs)[None, :]
        values = tl.load(x + b[:, None] * inputs + i[None, :], mask=inside, other=0.0)
        inside = (o < outputs)[None, :] & (i < inputs)[:, None]
        factors = tl.load(weight + o[None, :] * inputs + i[:, None], mask=inside, other=0.0)
        total = tl.dot(values, factors, total, input_precision=PRECISION)
    if SPLITS == 1:
        if HAS_BIAS:
            total += tl.load(bias + client * bias_client + o, mask=o < outputs, other=0.0)[None, :]
        if RECTIFY:
            total = tl.maximum(total, 0.0, propagate_nan=tl.PropagateNan.ALL)
    y += ((client * SPLITS + split) * batch + b[:, None]) * outputs + o[None, :]
    tl.store(y, total, mask=(b < batch)[:, None] & (o < outputs)[None, :])


@triton.jit
def _add_parts(
    parts, bias, y, bias_client, numbers, outputs,
    HAS_BIAS: tl.constexpr, RECTIFY: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Adds the parts up, in their order, and finishes: `y (clients, batch * outputs)`."""
    client = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < numbers
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for split in tl.static_range(SPLITS):
        total += tl.load(parts + (client * SPLITS + split) * numbers + place, mask=inside, other=0.0)
    if HAS_BIAS:
        total += tl.load(bias + client * bias_client + place % outputs, mask=inside, other=0.0)
    if RECTIFY:
        total = tl.maximum(total, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(y + client * numbers + place, total, mask=inside)


@triton.jit
def _finish(
    x, weight, target, bias, dy, dx, weight_client, target_client, bias_client, batch, inputs, outputs,
    OUTPUTS_EACH: tl.constexpr, HAS_BIAS: tl.constexpr, IS_FIRST: tl.constexpr, HAS_MASK: tl.constexpr,
    IS_IN_PLACE: tl.constexpr, BATCH: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of inputs: `dx = dy W`, then `target += dy^T x`; the first tile adds the bias's gradient too."""
    client = tl.program_id(1).to(tl.int64)
    b = tl.arange(0, BATCH)
    i = tl.program_id(0) * INPUTS + tl.arange(0, INPUTS)
    is_input = (i < inputs)[None, :]
    inside = (b < batch)[:, None] & is_input
    values = tl.load(x + client * batch * inputs + b[:, None] * inputs + i[None, :], mask=inside, other=0.0)
    dy += client * batch * outputs
    weight += client * weight_client
    target += client * target_client
    total = tl.zeros((BATCH, INPUTS), dtype=tl.float32)
    for start in tl.range(0, OUTPUTS_EACH, OUTPUTS):
        o = tl.program_id(2) * OUTPUTS_EACH + start + tl.arange(0, OUTPUTS)
        is_signal = (b < batch)[:, None] & (o < outputs)[None, :]
        signals = tl.load(dy + b[:, None] * outputs + o[None, :], mask=is_signal, other=0.0)
        if HAS_BIAS and tl.program_id(0) == 0:
            is_bias = o < outputs
            old_bias = tl.load(bias + client * bias_client + o, mask=is_bias)
            tl.store(bias + client * bias_client + o, old_bias + tl.sum(signals, axis=0), mask=is_bias)
        place = o[:, None] * inputs + i[None, :]
        is_weight = (o < outputs)[:, None] & is_input
        if not IS_FIRST:
            factors = tl.load(weight + place, mask=is_weight, other=0.0)
            total = tl.dot(signals, factors, total, input_precision=PRECISION)
        if IS_IN_PLACE and not IS_FIRST:  # noqa: SIM108  # Triton compiles one branch alone
            old = factors
        else:
            old = tl.load(target + place, mask=is_weight, other=0.0)
        new = tl.dot(tl.trans(signals), values, old, input_precision=PRECISION)
        tl.store(target + place, new, mask=is_weight)
    if not IS_FIRST:
        if HAS_MASK:
            total = tl.where(values > 0, total, 0.0)
        tl.store(dx + client * batch * inputs + b[:, None] * inputs + i[None, :], total, mask=inside)


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, *, rectify: bool) -> Tensor:
    """See `products.forward`."""
    clients, batch, inputs = x.shape
    outputs = weight.shape[1]
    if batch > _BATCH_MAX:
        y = torch.bmm(x, weight.mT) if bias is None else torch.baddbmm(bias[:, None], x, weight.mT)
        return y.relu_() if rectify else y
    tile = _forward_tile(inputs, outputs)
    # About four programs for each multiprocessor, and at least 512 inputs for each.
    splits = max(1, min(inputs // 512, triton.cdiv(_PROGRAMS, clients * triton.cdiv(outputs, tile.outputs))))
    inputs_each = triton.cdiv(triton.cdiv(inputs, splits), tile.inputs) * tile.inputs
    y = x.new_empty(clients, batch, outputs)
    parts = y if splits == 1 else x.new_empty(clients, splits, batch, outputs)
    finishing = {"HAS_BIAS": bias is not None, "RECTIFY": rectify, "SPLITS": splits}
    bias_client = 0 if bias is None else bias.stride(0)
    _forward[(triton.cdiv(outputs, tile.outputs), clients, splits)](
        x.contiguous(), weight, y if bias is None else bias, parts, weight.stride(0), bias_client,
        batch, inputs, outputs, **finishing, INPUTS_EACH=inputs_each, BATCH=_power(batch), OUTPUTS=tile.outputs,
        INPUTS=tile.inputs, PRECISION=dot(tile.product), num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    if splits > 1:
        numbers = batch * outputs
        _add_parts[(triton.cdiv(numbers, 512), clients)](
            parts, y if bias is None else bias, y, bias_client, numbers, outputs, **finishing, BLOCK=512
        )
    return y


def finish(weight: Tensor, targets: Sequence[Tensor], x: Tensor, dy: Tensor, *, mask: bool, is_first: bool) -> Tensor:
    """See `products.finish`."""
    clients, batch, inputs = x.shape
    target, bias, outputs = targets[0], targets[-1], weight.shape[1]
    if batch > _BATCH_MAX:
        return _finish_large(weight, targets, x, dy, mask=mask, is_first=is_first)
    x, dy = x.contiguous(), dy.contiguous()
    dx = dy if is_first else torch.empty_like(x)
    tile = _finish_tile(inputs, outputs)
    tiles = triton.cdiv(inputs, tile.inputs)
    # The input's gradient is a sum over all outputs, so one program makes it; without it, outputs are shared out too.
    splits = max(1, min(outputs // 64, triton.cdiv(_PROGRAMS, tiles * clients))) if is_first else 1
    outputs_each = triton.cdiv(triton.cdiv(outputs, splits), tile.outputs) * tile.outputs
    _finish[(tiles, clients, splits)](
        x, weight, target, bias, dy, dx, weight.stride(0), target.stride(0), bias.stride(0), batch, inputs, outputs,
        OUTPUTS_EACH=outputs_each, HAS_BIAS=len(targets) == 2, IS_FIRST=is_first, HAS_MASK=mask,
        IS_IN_PLACE=weight.data_ptr() == target.data_ptr(), BATCH=_power(batch), OUTPUTS=tile.outputs,
        INPUTS=tile.inputs, PRECISION=dot(tile.product), num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return dx


def _finish_large(
    weight: Tensor, targets: Sequence[Tensor], x: Tensor, dy: Tensor, *, mask: bool, is_first: bool
) -> Tensor:
    """By cuBLAS, in three passes."""
    dx = dy if is_first else torch.bmm(dy, weight)
    targets[0].baddbmm_(dy.mT, x)
    for bias in targets[1:]:
        bias.add_(dy.sum(dim=1))
    return torch.ops.aten.threshold_backward(dx, x, 0) if mask and not is_first else dx


def _forward_tile(inputs: int, outputs: int) -> Tile:
    return Tile(min(64, _power(outputs)), min(32, _power(inputs)), "bf16x6", stages=4)


def _finish_tile(inputs: int, outputs: int) -> Tile:
    if inputs * outputs >= 2**16:  # reading the weights is what counts
        return Tile(16, 64, "ieee")
    return Tile(min(64, _power(outputs)), min(64, _power(inputs)), "tf32x3")


def _power(number: int) -> int:
    """The least power of two that holds it, and at least 16: what a matrix unit takes."""
    return max(16, int(triton.next_power_of_2(number)))
