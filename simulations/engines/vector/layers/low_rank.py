"""Dense layers that never move: clients share the starting weights; a client's own are a low-rank correction of them.

After s steps of batch n, SGD has changed a weight by a sum of s * n outer products of slopes and inputs:

    W_t = a_t W_0 - sum over steps s < t of  g_ts  D_s' X_s        D_s (n, out) slopes, X_s (n, in) inputs

with numbers a_t and g_ts that depend on learning rate, momentum, weight decay and proximal term alone. So

    x W_t' = a_t (x W_0') - (x X' * g) D            d W_t = a_t (d W_0) - (d D' * g) X

The first terms are one large product over all clients of a block, whose weights stay in the cache; the corrections are
small as long as a client takes part with fewer examples than the layer is wide. The weights themselves are never
written during training: a client's delta is one product at the end, over all its examples instead of one a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from simulations.engines.port import Sgd
from simulations.engines.vector.layers.layer import Run
from simulations.engines.vector.layers.parameter import Parameter, Place


@dataclass(frozen=True)
class Coefficients:
    """How SGD's steps add up."""

    start: torch.Tensor
    """a: what is left of the start after each number of steps, `(steps + 1,)`."""
    gradients: torch.Tensor
    """g: how much of each step's gradient the weights then hold, `(steps + 1, steps)`."""
    is_constant: bool
    """Whether a is 1 and every g the learning rate: plain SGD."""

    @classmethod
    def of(cls, sgd: Sgd, *, steps: int, rate: float, proximal: float) -> "Coefficients":
        """Runs the optimizer on unit vectors instead of numbers, in double precision."""
        start = torch.ones(steps + 1, dtype=torch.float64)
        gradients = torch.zeros(steps + 1, steps, dtype=torch.float64)
        velocity_start, velocity = torch.zeros((), dtype=torch.float64), torch.zeros(steps, dtype=torch.float64)
        for step in range(steps):
            # w = a W_0 - g G; the step's own gradient is G[step] + decay * w + proximal * (w - W_0).
            pull = sgd.weight_decay * start[step] + proximal * (start[step] - 1)
            velocity_start = sgd.momentum * velocity_start + pull
            velocity = sgd.momentum * velocity - (sgd.weight_decay + proximal) * gradients[step]
            velocity[step] += 1
            start[step + 1] = start[step] - rate * velocity_start
            gradients[step + 1] = gradients[step] + rate * velocity
        plain = not (sgd.momentum or sgd.weight_decay or proximal)
        return cls(start.float(), gradients.float(), plain)


class LowRankDense:
    """A dense layer over shared starting weights.

    Args:
        weight: Place of W, `(out, in)`.
        bias: Place of b, if there is one.
        sgd: The clients' optimizer.
        proximal: FedProx's mu.
        is_first: Whether the inputs are the data, of which `begin` gets all steps at once.
    """

    parameters: Sequence[Parameter] = ()

    def __init__(self, weight: Place, bias: Place | None, *, sgd: Sgd, proximal: float, is_first: bool) -> None:
        self._place, self._bias_place = weight, bias
        self._sgd, self._proximal = sgd, proximal
        self.is_first = is_first
        self._weight = self._bias = self._outputs = self._alike = torch.empty(0)

    def begin(self, run: Run) -> None:
        block = run.block
        steps = len(block.active)
        self._coefficients = Coefficients.of(self._sgd, steps=steps, rate=run.rate, proximal=self._proximal)
        self._rate, self._block = run.rate, block
        self._weight = self._place.read(block.start)[0]
        self._bias = self._bias_place.read(block.start)[0] if self._bias_place else torch.zeros(self._weight.shape[0])
        shape = (block.clients, steps * block.batch)
        self._slopes = torch.zeros(*shape, self._weight.shape[0])
        self._inputs = torch.empty(0) if self.is_first else torch.zeros(*shape, self._weight.shape[1])

    def look_ahead(self, inputs: torch.Tensor) -> None:
        """Of the first layer: the inputs of all steps, `(clients, steps * batch, in)`, in three large products."""
        self._inputs = inputs
        flat = torch.addmm(self._bias, inputs.flatten(0, 1), self._weight.t())
        self._outputs = flat.view(*inputs.shape[:2], -1)
        self._alike = torch.bmm(inputs, inputs.transpose(1, 2))
        if self._bias_place:
            self._alike += 1

    def forward(self, inputs: torch.Tensor, step: int) -> torch.Tensor:
        active, past, now = self._spans(step)
        if self.is_first:
            outputs, alike = self._outputs[:active, now], self._alike[:active, now, past]
        else:
            self._inputs[:active, now] = inputs
            outputs = torch.addmm(self._bias, inputs.flatten(0, 1), self._weight.t()).view(*inputs.shape[:2], -1)
            alike = torch.bmm(inputs, self._inputs[:active, past].transpose(1, 2)) if step else inputs
            if step and self._bias_place:
                alike += 1
        return self._corrected(outputs, alike, self._slopes[:active, past], step)

    def backward(self, slopes: torch.Tensor, step: int, *, wants_inputs: bool) -> torch.Tensor:
        active, past, now = self._spans(step)
        self._slopes[:active, now] = slopes
        if not wants_inputs:
            return slopes
        through = torch.mm(slopes.flatten(0, 1), self._weight).view(*slopes.shape[:2], -1)
        alike = torch.bmm(slopes, self._slopes[:active, past].transpose(1, 2)) if step else slopes
        return self._corrected(through, alike, self._inputs[:active, past], step)

    def square_norms(self) -> torch.Tensor | None:
        raise AssertionError("private steps add noise of full rank")

    def gradient(self, factors: torch.Tensor | None) -> None:
        """Nothing to do: slopes and inputs are kept."""

    def write_deltas(self, deltas: torch.Tensor, clients: slice) -> None:
        steps = self._block.steps[clients]
        held = self._coefficients.gradients[steps].repeat_interleave(self._block.batch, dim=1)
        slopes = self._slopes[clients] * -held[:, :, None]
        weights, lost = self._place.read(deltas), self._coefficients.start[steps] - 1
        for row, slope, inputs in zip(weights, slopes, self._inputs[clients], strict=True):
            torch.mm(slope.t(), inputs, out=row)
        if not self._coefficients.is_constant:
            weights += lost[:, None, None] * self._weight
        if self._bias_place:
            torch.add(slopes.sum(dim=1), lost[:, None] * self._bias, out=self._bias_place.read(deltas))

    def _spans(self, step: int) -> tuple[int, slice, slice]:
        batch = self._block.batch
        return self._block.active[step], slice(0, step * batch), slice(step * batch, (step + 1) * batch)

    def _corrected(self, first: torch.Tensor, alike: torch.Tensor, factor: torch.Tensor, step: int) -> torch.Tensor:
        """`a_t * first - (alike * g) factor`."""
        if step == 0:
            return first
        if self._coefficients.is_constant:
            return torch.baddbmm(first, alike, factor, alpha=-self._rate)
        held = self._coefficients.gradients[step, :step].repeat_interleave(self._block.batch)
        return torch.baddbmm(first, alike * held, factor, beta=float(self._coefficients.start[step]), alpha=-1)
