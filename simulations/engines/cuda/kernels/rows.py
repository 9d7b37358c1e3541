"""Whole models, one a client, at the speed of memory: torch's own copy of one row to many reads a number at a time."""

import torch
import triton
import triton.language as tl

Tensor = torch.Tensor

_BLOCK = 4096


@triton.jit
def _set(target, source, target_client, source_client, numbers, BLOCK: tl.constexpr):
    client = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < numbers
    value = tl.load(source + client * source_client + place, mask=inside)
    tl.store(target + client * target_client + place, value, mask=inside)


@triton.jit
def _subtract(target, source, target_client, source_client, numbers, BLOCK: tl.constexpr):
    client = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < numbers
    old = tl.load(target + client * target_client + place, mask=inside)
    value = tl.load(source + client * source_client + place, mask=inside)
    tl.store(target + client * target_client + place, old - value, mask=inside)


def set_rows(target: Tensor, source: Tensor) -> None:
    """`target (clients, parameters)` becomes source: one row for all, or one for each."""
    _launch(_set, target, source)


def subtract_rows(target: Tensor, source: Tensor) -> None:
    """`target (clients, parameters)` less source: one row for all, or one for each."""
    _launch(_subtract, target, source)


def _launch(kernel, target: Tensor, source: Tensor) -> None:
    clients, numbers = target.shape
    source = source.contiguous()
    source_client = 0 if source.dim() == 1 else source.stride(0)
    kernel[(triton.cdiv(numbers, _BLOCK), clients)](
        target, source, target.stride(0), source_client, numbers, BLOCK=_BLOCK, num_warps=8
    )
