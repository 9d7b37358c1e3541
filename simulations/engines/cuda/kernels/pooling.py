"""Maximum pooling of stacked clients: reads channels-last, as convolutions write; writes channels first, as dense read.

The winner of each window is kept as one byte, and a rectifier before the pooling is undone on the way back from the
pooled value alone: it was above zero exactly if its winner was.
"""

import torch
import triton
import triton.language as tl

Tensor = torch.Tensor

_POSITIONS = 64


@triton.jit
def _forward(
    x, y, winners, x_image, x_channel, x_height, x_width, channels,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, OUT_HEIGHT: tl.constexpr, OUT_WIDTH: tl.constexpr,
    KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    PAD_H: tl.constexpr, PAD_W: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    p = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    is_there = (p < OUT_HEIGHT * OUT_WIDTH)[:, None] & (c < channels)[None, :]
    row, column = p // OUT_WIDTH, p % OUT_WIDTH
    best = tl.full((POSITIONS, CHANNELS), float("-inf"), dtype=tl.float32)
    winner = tl.zeros((POSITIONS, CHANNELS), dtype=tl.int32)
    for down in tl.static_range(KERNEL_H):
        for along in tl.static_range(KERNEL_W):
            h, w = row * STRIDE_H - PAD_H + down, column * STRIDE_W - PAD_W + along
            inside = ((h >= 0) & (h < HEIGHT) & (w >= 0) & (w < WIDTH))[:, None] & is_there
            place = (h * x_height + w * x_width)[:, None] + c[None, :] * x_channel
            value = tl.load(x + image * x_image + place, mask=inside, other=float("-inf"))
            wins = (value > best) | (value != value)  # a number that is none wins, as in torch
            best = tl.where(wins, value, best)
            winner = tl.where(wins, down * KERNEL_W + along, winner)
    out = (image * channels + c[:, None]) * (OUT_HEIGHT * OUT_WIDTH) + p[None, :]
    tl.store(y + out, tl.trans(best), mask=tl.trans(is_there))
    tl.store(winners + out, tl.trans(winner).to(tl.int8), mask=tl.trans(is_there))


@triton.jit
def _backward(
    dy, y, winners, dx, channels,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, OUT_HEIGHT: tl.constexpr, OUT_WIDTH: tl.constexpr,
    KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    PAD_H: tl.constexpr, PAD_W: tl.constexpr, RECTIFIED: tl.constexpr,
    POSITIONS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """A tile of `dx (images, HEIGHT, WIDTH, channels)`: each input asks the windows it was in whether it won."""
    image = tl.program_id(1).to(tl.int64)
    p = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    row, column = p // WIDTH, p % WIDTH
    total = tl.zeros((CHANNELS, POSITIONS), dtype=tl.float32)
    # Windows side by side: each input was in one. Otherwise it was in up to one for each of its places in a window.
    is_tiled: tl.constexpr = STRIDE_H == KERNEL_H and STRIDE_W == KERNEL_W and PAD_H == 0 and PAD_W == 0
    for number in tl.static_range(1 if is_tiled else KERNEL_H * KERNEL_W):
        if is_tiled:
            down, along = row % STRIDE_H, column % STRIDE_W
        else:
            down, along = row * 0 + number // KERNEL_W, column * 0 + number % KERNEL_W
        h, w = row + PAD_H - down, column + PAD_W - along
        inside = (p < HEIGHT * WIDTH) & (h >= 0) & (w >= 0) & (h % STRIDE_H == 0) & (w % STRIDE_W == 0)
        h, w = h // STRIDE_H, w // STRIDE_W
        inside = inside & (h < OUT_HEIGHT) & (w < OUT_WIDTH)
        mask = (c < channels)[:, None] & inside[None, :]
        place = (image * channels + c[:, None]) * (OUT_HEIGHT * OUT_WIDTH) + (h * OUT_WIDTH + w)[None, :]
        won = tl.load(winners + place, mask=mask, other=-1) == (down * KERNEL_W + along)[None, :]
        if RECTIFIED:
            won = won & (tl.load(y + place, mask=mask, other=0.0) > 0)
        total += tl.where(won, tl.load(dy + place, mask=mask, other=0.0), 0.0)
    place = (image * (HEIGHT * WIDTH) + p[:, None]) * channels + c[None, :]
    tl.store(dx + place, tl.trans(total), mask=(p < HEIGHT * WIDTH)[:, None] & (c < channels)[None, :])


def forward(
    x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Pooled `(clients, batch, channels, [height,] width)`, contiguous, and the winners' places in their windows."""
    x5 = _five(x)
    clients, batch, channels, height, width = x5.shape
    size = [
        (extent + 2 * p - k) // s + 1 for extent, k, s, p in zip((height, width), kernel, stride, padding, strict=True)
    ]
    y = x.new_empty(clients, batch, channels, *size)
    winners = torch.empty_like(y, dtype=torch.int8)
    images = x5.flatten(0, 1)
    block = min(64, triton.next_power_of_2(channels))
    grid = (triton.cdiv(size[0] * size[1], _POSITIONS), len(images), triton.cdiv(channels, block))
    _forward[grid](
        images, y, winners, *images.stride(), channels, HEIGHT=height, WIDTH=width, OUT_HEIGHT=size[0],
        OUT_WIDTH=size[1], **_constants(kernel, stride, padding), POSITIONS=_POSITIONS, CHANNELS=block,
        num_warps=8,
    )  # fmt: skip
    return (y if x.dim() == 5 else y.squeeze(3)), winners


def backward(
    x: Tensor, y: Tensor, winners: Tensor, dy: Tensor,
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], *, is_rectified: bool,
) -> Tensor:  # fmt: skip
    """The gradient of x, channels-last."""
    clients, batch, channels, height, width = _five(x).shape
    out_height, out_width = winners.shape[3:]
    dx = x.new_empty(clients, batch, height, width, channels)
    block = min(64, triton.next_power_of_2(channels))
    grid = (triton.cdiv(height * width, _POSITIONS), clients * batch, triton.cdiv(channels, block))
    _backward[grid](
        dy.contiguous(), y, winners, dx, channels, HEIGHT=height, WIDTH=width, OUT_HEIGHT=out_height,
        OUT_WIDTH=out_width, **_constants(kernel, stride, padding), RECTIFIED=is_rectified,
        POSITIONS=_POSITIONS, CHANNELS=block, num_warps=8,
    )  # fmt: skip
    dx = dx.permute(0, 1, 4, 2, 3)
    return dx if x.dim() == 5 else dx.squeeze(3)


def _constants(kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> dict[str, int]:
    return {
        "KERNEL_H": kernel[0], "KERNEL_W": kernel[1], "STRIDE_H": stride[0], "STRIDE_W": stride[1],
        "PAD_H": padding[0], "PAD_W": padding[1],
    }  # fmt: skip


def _five(x: Tensor) -> Tensor:
    """One dimension is two, of height 1."""
    return x if x.dim() == 5 else x[:, :, :, None]
