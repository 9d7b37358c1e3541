"""What a card can do at best, measured, and the least that a workload's round asks of its memory."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from simulations.workloads.suite import Workload

_TIMES = 10


@dataclass(frozen=True)
class Rates:
    """Of large copies (bytes read and written) and of large matrix products."""

    bytes_per_s: float
    float32_flops: float
    tf32_flops: float
    bf16_flops: float


def card_rates(size: int = 8192) -> Rates:
    """Measures this process's card."""
    values = torch.randn(2, 2**28, device="cuda")
    copy_s = _median_s(lambda: values[1].copy_(values[0]))
    left, right = torch.randn(size, size, device="cuda"), torch.randn(size, size, device="cuda")
    flops = 2 * size**3
    float32_s = _median_s(lambda: left @ right)
    torch.backends.cuda.matmul.allow_tf32 = True
    tf32_s = _median_s(lambda: left @ right)
    torch.backends.cuda.matmul.allow_tf32 = False
    short, other = left.bfloat16(), right.bfloat16()
    bf16_s = _median_s(lambda: short @ other)
    return Rates(2 * 4 * 2**28 / copy_s, flops / float32_s, flops / tf32_s, flops / bf16_s)


def bytes_of(load: Workload) -> float:
    """Bytes that a round must move at least, if every pass over weights and activations is made once and alone.

    Each step reads every client's weights forward, and reads and writes them backward; each activation is written once,
    read by the next layer and by both halves of its backward pass, as is its gradient.
    """
    sizes: list[int] = []
    model = load.model(0)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.MaxPool1d | nn.MaxPool2d):
            module.register_forward_hook(lambda _, __, output: sizes.append(output.numel()))
    model.eval()(torch.zeros(1, *load.shape))
    weights = sum(parameter.numel() for parameter in model.parameters())
    rounds = 4 * (load.steps * 3 * weights + 3 * weights)  # and once from the start, once as an update
    return load.cohort * (rounds + 4 * 5 * load.examples * sum(sizes))


def _median_s(call: Callable[[], object]) -> float:
    for _ in range(3):
        call()
    times: list[float] = []
    for _ in range(_TIMES):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]  # torch
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return sorted(times)[_TIMES // 2]
