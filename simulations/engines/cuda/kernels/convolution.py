"""Convolutions of stacked clients as implicit matrix products: columns are addressed, never written.

Rows are positions of the output, all examples of a client one after another; the inner dimension runs over taps and
channels, channels fastest, so that channels-last activations are read in whole lines. The gradient of the input is the
same product with the roles of input and output exchanged.

    forward          y[m, o]  = sum over (tap, c) of x[m moved by tap, c] W[tap, c, o]
    input gradient   dx[m, c] = sum over (tap, o) of dy[m moved back by tap, o] W[tap, o, c]
    weight gradient  dW[(tap, c), o] = sum over m of x[m moved by tap, c] dy[m, o]
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from simulations.engines.cuda.convolutions import Geometry
from simulations.engines.cuda.precision import dot

Tensor = torch.Tensor


@dataclass(frozen=True)
class Tile:
    """What one program computes, and how: `rows` by `columns`, `inner` numbers at a time; measured on an H100."""

    rows: int
    columns: int
    inner: int
    product: str = "bf16x6"
    """Of float32 numbers, in Triton's words."""
    warps: int = 4
    stages: int = 3


_PROGRAMS = 1056
"""Eight for each multiprocessor of an H100."""


@triton.jit
def _product(
    x, weight, bias, mask, y, rows,
    x_client, x_image, x_channel, x_height, x_width,
    bias_client, mask_client, mask_image, mask_channel, mask_height, mask_width,
    CHANNELS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    OUT: tl.constexpr, OUT_HEIGHT: tl.constexpr, OUT_WIDTH: tl.constexpr,
    TAPS_H: tl.constexpr, TAPS_W: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    PAD_H: tl.constexpr, PAD_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    IS_BACKWARD: tl.constexpr, HAS_BIAS: tl.constexpr, RECTIFY: tl.constexpr, HAS_MASK: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of `y (clients, rows, OUT)`; weight is `(clients, taps * CHANNELS, OUT)`, x anything strided."""
    client = tl.program_id(1).to(tl.int64)
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    o = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    image = m // (OUT_HEIGHT * OUT_WIDTH)
    row = (m // OUT_WIDTH) % OUT_HEIGHT
    column = m % OUT_WIDTH
    x += client * x_client
    weight += client * (TAPS_H * TAPS_W * CHANNELS * OUT)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in tl.range(0, TAPS_H * TAPS_W * CHANNELS, INNER):
        q = start + tl.arange(0, INNER)
        # With channels a multiple of INNER, a step is within one tap, and the tap is a scalar.
        tap = start // CHANNELS if CHANNELS % INNER == 0 else q // CHANNELS
        channel = q - tap * CHANNELS
        down = (tap // TAPS_W) * DILATION_H
        along = (tap % TAPS_W) * DILATION_W
        if CHANNELS % INNER == 0:
            h, w = row[:, None] + down * 0, column[:, None] + along * 0
        else:
            h, w = row[:, None] + 0 * down[None, :], column[:, None] + 0 * along[None, :]
            down, along = down[None, :], along[None, :]
        if IS_BACKWARD:
            h, w = h + PAD_H - down, w + PAD_W - along
            valid = (h % STRIDE_H == 0) & (w % STRIDE_W == 0) & (h >= 0) & (w >= 0)
            h, w = h // STRIDE_H, w // STRIDE_W
        else:
            h, w = h * STRIDE_H - PAD_H + down, w * STRIDE_W - PAD_W + along
            valid = (h >= 0) & (w >= 0)
        valid = valid & (h < HEIGHT) & (w < WIDTH) & (m < rows)[:, None]
        if CHANNELS % INNER != 0:
            valid = valid & (q < TAPS_H * TAPS_W * CHANNELS)[None, :]
        place = image[:, None] * x_image + channel[None, :] * x_channel + h * x_height + w * x_width
        values = tl.load(x + place, mask=valid, other=0.0)
        inside = (q < TAPS_H * TAPS_W * CHANNELS)[:, None] & (o < OUT)[None, :]
        factors = tl.load(weight + q[:, None] * OUT + o[None, :], mask=inside, other=0.0)
        total = tl.dot(values, factors, total, input_precision=PRECISION)
    if HAS_BIAS:
        total += tl.load(bias + client * bias_client + o, mask=o < OUT, other=0.0)[None, :]
    if RECTIFY:
        total = tl.maximum(total, 0.0, propagate_nan=tl.PropagateNan.ALL)
    inside = (m < rows)[:, None] & (o < OUT)[None, :]
    if HAS_MASK:
        place = image * mask_image + row * mask_height + column * mask_width
        signs = tl.load(
            mask + client * mask_client + place[:, None] + o[None, :] * mask_channel, mask=inside, other=0.0
        )
        total = tl.where(signs > 0, total, 0.0)
    tl.store(y + (client * rows + m[:, None]) * OUT + o[None, :], total, mask=inside)


@triton.jit
def _weight_gradient(
    x, dy, weight, bias, rows,
    x_client, x_image, x_channel, x_height, x_width,
    dy_client, dy_image, dy_channel, dy_height, dy_width,
    CHANNELS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    OUT: tl.constexpr, OUT_HEIGHT: tl.constexpr, OUT_WIDTH: tl.constexpr,
    TAPS_H: tl.constexpr, TAPS_W: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    PAD_H: tl.constexpr, PAD_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    SPLITS: tl.constexpr, ROWS_EACH: tl.constexpr,
    TILE: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of a part of `weight (clients, SPLITS, taps * CHANNELS, OUT)`, and of `bias (clients, SPLITS, OUT)`."""
    client = tl.program_id(1).to(tl.int64)
    split = tl.program_id(2)
    tiles: tl.constexpr = (TAPS_H * TAPS_W * CHANNELS + TILE - 1) // TILE
    tile = tl.program_id(0) % tiles
    q = tile * TILE + tl.arange(0, TILE)
    o = (tl.program_id(0) // tiles) * COLUMNS + tl.arange(0, COLUMNS)
    tap = q // CHANNELS
    down = (tap // TAPS_W) * DILATION_H - PAD_H
    along = (tap % TAPS_W) * DILATION_W - PAD_W
    moved = (q % CHANNELS) * x_channel + down * x_height + along * x_width
    x += client * x_client
    dy += client * dy_client
    total = tl.zeros((TILE, COLUMNS), dtype=tl.float32)
    bias_total = tl.zeros((COLUMNS,), dtype=tl.float32)
    for start in tl.range(0, ROWS_EACH, INNER):
        m = split * ROWS_EACH + start + tl.arange(0, INNER)
        is_row = m < rows
        image = m // (OUT_HEIGHT * OUT_WIDTH)
        row = (m // OUT_WIDTH) % OUT_HEIGHT
        column = m % OUT_WIDTH
        place = image * x_image + row * (STRIDE_H * x_height) + column * (STRIDE_W * x_width)
        valid = is_row[None, :] & (q < TAPS_H * TAPS_W * CHANNELS)[:, None]
        if PAD_H > 0 or PAD_W > 0:
            h = row[None, :] * STRIDE_H + down[:, None]
            w = column[None, :] * STRIDE_W + along[:, None]
            valid = valid & (h >= 0) & (h < HEIGHT) & (w >= 0) & (w < WIDTH)
        values = tl.load(x + place[None, :] + moved[:, None], mask=valid, other=0.0)
        signal_place = image * dy_image + row * dy_height + column * dy_width
        signals = tl.load(
            dy + signal_place[:, None] + o[None, :] * dy_channel, mask=is_row[:, None] & (o < OUT)[None, :], other=0.0
        )
        total = tl.dot(values, signals, total, input_precision=PRECISION)
        bias_total += tl.sum(signals, axis=0)
    part = client * SPLITS + split
    inside = (q < TAPS_H * TAPS_W * CHANNELS)[:, None] & (o < OUT)[None, :]
    tl.store(weight + (part * (TAPS_H * TAPS_W * CHANNELS) + q[:, None]) * OUT + o[None, :], total, mask=inside)
    if tile == 0:
        tl.store(bias + part * OUT + o, bias_total, mask=o < OUT)


@triton.jit
def _add_parts(
    weight, bias, target, bias_target, target_client, bias_client,
    CHANNELS: tl.constexpr, OUT: tl.constexpr, TAPS: tl.constexpr, SPLITS: tl.constexpr, HAS_BIAS: tl.constexpr,
    BLOCK: tl.constexpr, OUTPUTS: tl.constexpr,
):  # fmt: skip
    """Adds the parts up, in their order, onto targets that lie as torch's weights do, `(out, channels, taps)`."""
    client = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < OUT * CHANNELS * TAPS
    tap, channel, o = place % TAPS, (place // TAPS) % CHANNELS, place // (TAPS * CHANNELS)
    source = (tap * CHANNELS + channel) * OUT + o
    weight += client * (SPLITS * TAPS * CHANNELS * OUT)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for split in tl.static_range(SPLITS):
        total += tl.load(weight + split * TAPS * CHANNELS * OUT + source, mask=inside, other=0.0)
    target += client * target_client
    tl.store(target + place, tl.load(target + place, mask=inside) + total, mask=inside)
    if HAS_BIAS and tl.program_id(0) == 0:
        output = tl.arange(0, OUTPUTS)
        bias_total = tl.zeros((OUTPUTS,), dtype=tl.float32)
        for split in tl.static_range(SPLITS):
            bias_total += tl.load(bias + (client * SPLITS + split) * OUT + output, mask=output < OUT, other=0.0)
        bias_target += client * bias_client
        old = tl.load(bias_target + output, mask=output < OUT)
        tl.store(bias_target + output, old + bias_total, mask=output < OUT)


def forward(geometry: Geometry, x: Tensor, weight: Tensor, bias: Tensor | None, *, rectify: bool) -> Tensor:
    """See `convolutions.forward`; the result lies channels-last."""
    x5, w5 = _five(x), _five(weight)
    clients, batch, _, height, width = x5.shape
    out = w5.shape[1]
    size = geometry.output((height, width))
    y = x.new_empty(clients, batch, *size, out)
    # (clients, out, in, h, w) -> (clients, h, w, in, out): a few MB, read many times.
    factors = w5.permute(0, 3, 4, 2, 1).contiguous()
    _launch(geometry, x5, factors, y, bias=bias, rectify=rectify, mask=None, is_backward=False)
    return _like(y.permute(0, 1, 4, 2, 3), x)


def input_gradient(geometry: Geometry, x: Tensor, weight: Tensor, dy: Tensor, *, mask: bool) -> Tensor:
    """See `convolutions.input_gradient`; the result lies channels-last."""
    x5, w5, dy5 = _five(x), _five(weight), _five(dy)
    clients, batch, channels, height, width = x5.shape
    dx = x.new_empty(clients, batch, height, width, channels)
    factors = w5.permute(0, 3, 4, 1, 2).contiguous()
    _launch(geometry, dy5, factors, dx, bias=None, rectify=False, mask=x5 if mask else None, is_backward=True)
    return _like(dx.permute(0, 1, 4, 2, 3), x)


def add_weight_gradient(geometry: Geometry, x: Tensor, dy: Tensor, targets: Sequence[Tensor]) -> None:
    """See `convolutions.add_weight_gradient`."""
    x5, dy5 = _five(x), _five(dy)
    clients, batch, channels, height, width = x5.shape
    out, out_height, out_width = dy5.shape[2:]
    (taps_h, taps_w), rows = geometry.kernel, batch * out_height * out_width
    inner = taps_h * taps_w * channels
    tile = _gradient_tile(inner, out)
    # Enough programs to fill the card, each with 512 rows or more.
    programs = clients * triton.cdiv(inner, tile.rows) * triton.cdiv(out, tile.columns)
    splits = max(1, min(rows // 512, triton.cdiv(_PROGRAMS, programs)))
    rows_each = triton.cdiv(triton.cdiv(rows, splits), tile.inner) * tile.inner
    weight = x.new_empty(clients, splits, inner, out)
    bias = x.new_empty(clients, splits, out)
    grid = (triton.cdiv(inner, tile.rows) * triton.cdiv(out, tile.columns), clients, splits)
    _weight_gradient[grid](
        x5, dy5, weight, bias, rows, *x5.stride(), *dy5.stride(),
        CHANNELS=channels, HEIGHT=height, WIDTH=width, OUT=out, OUT_HEIGHT=out_height, OUT_WIDTH=out_width,
        **_constants(geometry), SPLITS=splits, ROWS_EACH=rows_each, TILE=tile.rows, COLUMNS=tile.columns,
        INNER=tile.inner, PRECISION=dot(tile.product), num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    has_bias = len(targets) == 2
    _add_parts[(triton.cdiv(inner * out, 512), clients)](
        weight, bias, targets[0], targets[-1], targets[0].stride(0), targets[-1].stride(0),
        CHANNELS=channels, OUT=out, TAPS=taps_h * taps_w, SPLITS=splits, HAS_BIAS=has_bias, BLOCK=512,
        OUTPUTS=triton.next_power_of_2(out),
    )  # fmt: skip


def _launch(
    geometry: Geometry, x: Tensor, factors: Tensor, y: Tensor, *,
    bias: Tensor | None, rectify: bool, mask: Tensor | None, is_backward: bool,
) -> None:  # fmt: skip
    clients, batch, out_height, out_width, out = y.shape
    _, _, channels, height, width = x.shape
    rows = batch * out_height * out_width
    tile = _product_tile(channels, geometry.kernel[0] * geometry.kernel[1], out)
    grid = (triton.cdiv(rows, tile.rows), clients, triton.cdiv(out, tile.columns))
    _product[grid](
        x, factors, y if bias is None else bias, y if mask is None else mask, y, rows,
        *x.stride(), 0 if bias is None else bias.stride(0), *((0,) * 5 if mask is None else mask.stride()),
        CHANNELS=channels, HEIGHT=height, WIDTH=width, OUT=out, OUT_HEIGHT=out_height, OUT_WIDTH=out_width,
        **_constants(geometry), IS_BACKWARD=is_backward, HAS_BIAS=bias is not None, RECTIFY=rectify,
        HAS_MASK=mask is not None, ROWS=tile.rows, COLUMNS=tile.columns, INNER=tile.inner,
        PRECISION=dot(tile.product),
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip


def _product_tile(channels: int, taps: int, out: int) -> Tile:
    inner = 32 if channels % 32 == 0 else 16 if channels % 16 == 0 else min(32, _power(taps * channels))
    columns = min(64, _power(out))
    if columns == 64:
        return Tile(64, columns, inner)
    return Tile(128, columns, inner, "tf32x3", warps=8)


def _gradient_tile(inner: int, out: int) -> Tile:
    rows, columns = min(64, _power(inner)), min(64, _power(out))
    return Tile(rows, columns, 64) if rows == 64 else Tile(rows, columns, 128, "ieee", stages=2)


def _constants(geometry: Geometry) -> dict[str, int]:
    (taps_h, taps_w), (stride_h, stride_w) = geometry.kernel, geometry.stride
    (pad_h, pad_w), (dilation_h, dilation_w) = geometry.padding, geometry.dilation
    return {
        "TAPS_H": taps_h, "TAPS_W": taps_w, "STRIDE_H": stride_h, "STRIDE_W": stride_w,
        "PAD_H": pad_h, "PAD_W": pad_w, "DILATION_H": dilation_h, "DILATION_W": dilation_w,
    }  # fmt: skip


def _power(number: int) -> int:
    """The least power of two that holds it, and at least 16: what a matrix unit takes."""
    return max(16, int(triton.next_power_of_2(number)))


def _five(x: Tensor) -> Tensor:
    """One dimension is two, of height 1."""
    return x if x.dim() == 5 else x[:, :, :, None]


def _like(y: Tensor, x: Tensor) -> Tensor:
    return y if x.dim() == 5 else y.squeeze(3)
