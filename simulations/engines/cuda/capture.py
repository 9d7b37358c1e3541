"""Steps captured as CUDA graphs and replayed: one launch instead of fifty, which is most of a small model's time."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


class CapturedSteps:
    """A step for each number of clients.

    Args:
        step: Takes the number of clients; reads and writes memory that stays where it is.
        capacity: The most clients.
        sizes_max: Sizes captured; further ones run as the next larger captured, with clients that stand still.
    """

    def __init__(self, step: Callable[[int], None], capacity: int, *, sizes_max: int) -> None:
        self._step, self._capacity, self._sizes_max = step, capacity, sizes_max
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def size_for(self, clients: int) -> int:
        """How many clients the graph for so many computes."""
        if clients in self._graphs or len(self._graphs) < self._sizes_max - 1:
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
        with _without_collection(), torch.cuda.graph(graph, pool=self._pool):
            self._step(size)
        self._graphs[size] = graph

    def replay(self, size: int) -> None:
        self._graphs[size].replay()


@contextmanager
def _without_collection() -> Iterator[None]:
    """No garbage is collected inside: a graph of an earlier engine that is destroyed now would spoil the capture."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
