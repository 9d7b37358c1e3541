"""Steps captured as CUDA graphs and replayed: one launch instead of fifty, which is most of a small model's time."""

from collections.abc import Callable

import torch

_GRAPHS_MAX = 16
"""Sizes of block captured; further ones run as the next larger captured, with clients that stand still."""


class CapturedSteps:
    """A step for each number of clients.

    Args:
        step: Takes the number of clients; reads and writes memory that stays where it is.
        capacity: The most clients.
    """

    def __init__(self, step: Callable[[int], None], capacity: int) -> None:
        self._step, self._capacity = step, capacity
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def size_for(self, clients: int) -> int:
        """How many clients the graph for so many computes."""
        if clients in self._graphs or len(self._graphs) < _GRAPHS_MAX - 1:
            return clients
        return min((size for size in self._graphs if size >= clients), default=self._capacity)

    def is_ready(self, size: int) -> bool:
        return size in self._graphs

    def capture(self, size: int) -> None:
        """Runs the step twice, which loads kernels, and records it. What the memory held must not matter any more."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._step(size)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            self._step(size)
        self._graphs[size] = graph

    def replay(self, size: int) -> None:
        self._graphs[size].replay()
