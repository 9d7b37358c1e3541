"""What this machine can do at best: its rate at large convolutions and matrix products, and what a workload needs."""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from simulations.workloads.suite import Workload

SECONDS = 1.0
"""Each rate is the best of this long."""


def bound_s(load: Workload, *, processes: int) -> float:
    """Seconds that a round's arithmetic takes at the machine's best rates: no engine that multiplies less is faster."""
    multiply, convolve = flops_of(load)
    rates = machine_rates(processes)
    return multiply / rates[0] + convolve / rates[1]


def flops_of(load: Workload) -> tuple[float, float]:
    """Operations of a round's forward and backward passes: of matrix products, and of convolutions."""
    model, example = load.model(0), torch.zeros(1, *load.shape)
    with FlopCounterMode(display=False) as counter:
        model(example).sum().backward()
    examples = load.cohort * load.examples
    counted = counter.get_flop_counts()["Global"]
    convolve = sum(count for operation, count in counted.items() if "conv" in str(operation))
    return (sum(counted.values()) - convolve) * examples, convolve * examples


@cache
def machine_rates(processes: int) -> tuple[float, float]:
    """Operations per second of matrix products (2048) and of convolutions (5x5, 32 to 64, batch 10)."""
    with ProcessPoolExecutor(processes) as pool:
        rates = list(pool.map(_rates, range(processes)))
    return sum(rate for rate, _ in rates), sum(rate for _, rate in rates)


def _rates(_: int) -> tuple[float, float]:
    torch.set_num_threads(1)
    left = torch.randn(2048, 2048)
    images, kernels = torch.randn(10, 32, 28, 28), torch.randn(64, 32, 5, 5)
    multiply = _best_s(lambda: torch.mm(left, left))
    convolve = _best_s(lambda: torch.conv2d(images, kernels, padding=2))
    return 2 * 2048**3 / multiply, 2 * 10 * 28 * 28 * 64 * 32 * 25 / convolve


def _best_s(call: Callable[[], object]) -> float:
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best
