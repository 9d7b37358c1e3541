"""One way of computing a block."""

from collections.abc import Iterator
from typing import Protocol

from simulations.engines.port import Trained
from simulations.engines.vector.block import Block


class Kernel(Protocol):
    def train(self, block: Block) -> Iterator[Trained]:
        """The block's updates, some clients at a time; the memory of one may be used again for the next.

        Start losses are left out: NaN.
        """
        ...
