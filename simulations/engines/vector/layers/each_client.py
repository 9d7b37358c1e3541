"""The layers before the first dense one, client by client: a client's feature maps stay in the cache."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from simulations.engines.vector.layers.layer import Layer, Owning, Run
from simulations.engines.vector.layers.parameter import Parameter

Build = Callable[[], Layer]


class EachClient:
    """A layer made of layers that take one client at a time."""

    def __init__(self, builds: Sequence[Build]) -> None:
        self._builds = builds
        self._whole = [build() for build in builds]

    @property
    def parameters(self) -> Sequence[Parameter]:
        return [parameter for layer in self._whole for parameter in layer.parameters]

    def begin(self, run: Run) -> None:
        for layer in self._whole:
            layer.begin(run)
        self._clients = [self._layers_of(client, run) for client in range(run.block.clients)]

    def _layers_of(self, client: int, run: Run) -> list[Layer]:
        layers = [build() for build in self._builds]
        alone = replace(run, block=run.block.part(client), draws=run.draws[client : client + 1])
        for layer, whole in zip(layers, self._whole, strict=True):
            if isinstance(layer, Owning) and isinstance(whole, Owning):
                layer.share(whole, client)
            else:
                layer.begin(alone)
        return layers

    def forward(self, inputs: torch.Tensor, step: int) -> torch.Tensor:
        return torch.cat(
            [self._forward_one(client, inputs[client : client + 1], step) for client in range(len(inputs))]
        )

    def _forward_one(self, client: int, values: torch.Tensor, step: int) -> torch.Tensor:
        for layer in self._clients[client]:
            values = layer.forward(values, step)
        return values

    def backward(self, slopes: torch.Tensor, step: int, *, wants_inputs: bool) -> torch.Tensor:
        """Makes the gradients too, while a client's maps are still in the cache."""
        for client in range(len(slopes)):
            through = slopes[client : client + 1]
            for number, layer in reversed(list(enumerate(self._clients[client]))):
                through = layer.backward(through, step, wants_inputs=wants_inputs or number > 0)
                layer.gradient(None)
        return slopes

    def square_norms(self) -> torch.Tensor | None:
        raise AssertionError("private steps take the block together")

    def gradient(self, factors: torch.Tensor | None) -> None:
        """Nothing left to do."""

    def write_deltas(self, deltas: torch.Tensor, clients: slice) -> None:
        for layer in self._whole:
            layer.write_deltas(deltas, clients)
