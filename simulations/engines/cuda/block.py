"""One optimizer step of a block of clients, in memory that stays where it is: so it can be captured once and replayed.

Everything that changes from step to step lies in tensors: the rows of the batch, what each example counts, each
client's learning rate (0 for one that has finished, whose weights then stay as they are), the number of steps taken.
Row -1, padding, is the last row of the data on the device: an empty example, which counts nothing.
"""

from dataclasses import dataclass

import torch

from shared.layout import Layout
from simulations.engines.cuda.compilation import Compiler
from simulations.engines.cuda.gradients import Gradients
from simulations.engines.cuda.randomness import Counters, OwnStreams, Randomness
from simulations.engines.cuda.stack import Stack
from simulations.engines.cuda.turns import Turns
from simulations.engines.port import Adam, LocalTraining, Sgd

Tensor = torch.Tensor


@dataclass(frozen=True)
class Examples:
    """The training data on the device, and after them one empty example."""

    inputs: Tensor
    labels: Tensor

    @classmethod
    def on(cls, device: torch.device, inputs: Tensor, labels: Tensor) -> "Examples":
        return cls(
            torch.cat([inputs.to(device), torch.zeros(1, *inputs.shape[1:], device=device)]),
            torch.cat([labels.to(device), torch.zeros(1, dtype=labels.dtype, device=device)]),
        )


class Block:
    """Memory and step of up to `capacity` clients.

    Args:
        layout: Of the trained parameters.
        local: How each client trains.
        examples: What `rows` point at.
        gradients: How gradients are computed.
        capacity: Clients at once.
        batch: Examples in a step, at most.
        own_starts: Whether clients start from models of their own.
        linear: Whether gradients are corrected, by one vector for all (1) or one for each (2); 0 for neither.
        compiler: For what is done to whole models in a step.
    """

    def __init__(
        self,
        layout: Layout,
        local: LocalTraining,
        examples: Examples,
        gradients: Gradients,
        *,
        capacity: int,
        batch: int,
        own_starts: bool,
        linear: int,
        compiler: Compiler,
    ) -> None:
        device = examples.inputs.device
        self._local, self._examples, self._gradients = local, examples, gradients
        self.weights = Stack(layout, capacity, device)
        self.random: Randomness = Counters(capacity, device) if device.type == "cuda" else OwnStreams(capacity)
        self.rows = torch.full((capacity, batch), -1, device=device)
        self.shares = torch.zeros(capacity, batch, device=device)
        """What each example's loss counts in its batch's mean."""
        self.rates = torch.zeros(capacity, device=device)
        self.losses = torch.zeros(capacity, dtype=torch.float64, device=device)
        self.start = torch.zeros(capacity if own_starts else 1, layout.size, device=device)
        self.linear = torch.zeros((0, 1, capacity)[linear], layout.size, device=device)
        self._taken = torch.zeros((), device=device)
        """Steps taken, for Adam's corrections."""
        optimizer = local.optimizer
        self._is_plain = (
            isinstance(optimizer, Sgd)
            and not (optimizer.momentum or optimizer.weight_decay or local.proximal)
            and linear == 0
        )
        self._gradient = None if self._is_plain else Stack(layout, capacity, device)
        """Gradients, or with momentum the velocity, onto which layers add theirs."""
        self._moments = [Stack(layout, capacity, device) for _ in range(2)] if isinstance(optimizer, Adam) else []
        self._prepare = compiler.of(self._prepared, is_dynamic=True)
        self._apply = compiler.of(self._applied, is_dynamic=True)
        self.turns = None if local.alternation is None else Turns(local.alternation, layout, capacity, device)

    def begin(self, start: Tensor, linear: Tensor | None) -> None:
        """A new round: weights at the start, everything else at nothing."""
        self.weights.set(start)
        self.start.copy_(start)
        if linear is not None:
            self.linear.copy_(linear)
        self.rows.fill_(-1)
        self.shares.zero_()
        self.rates.zero_()
        self.losses.zero_()
        self._taken.zero_()
        if self.turns is not None:
            self.turns.begin()
        for stack in self._stacks[1:]:
            stack.values.zero_()

    @property
    def _stacks(self) -> list[Stack]:
        """All that steps change, the weights first."""
        return [self.weights, *([] if self._gradient is None else [self._gradient]), *self._moments]

    def step(self, clients: int) -> None:
        """The first clients' next step, with what lies in `rows`, `shares`, `rates` and `turns`."""
        if self.turns is None:
            self._step(clients)
            return
        changed = [stack.rows(clients) for stack in self._stacks]
        before = [values.clone() for values in changed]
        self.turns.count(clients)
        self._step(clients)
        self.turns.put_back(changed, before)

    def _step(self, clients: int) -> None:
        rows, shares = self.rows[:clients], self.shares[:clients]
        x, labels = self._examples.inputs[rows], self._examples.labels[rows]
        privacy = self._local.privacy
        self.random.begin_step()
        self._taken += 1
        self._prepare(clients)
        # Layers add `scale * gradient`: to the weights themselves where the step is nothing else.
        target = self.weights if self._gradient is None else self._gradient
        scale = -self.rates[:clients] if self._gradient is None else torch.ones_like(self.rates[:clients])
        weights, targets = self.weights.views(clients), target.views(clients)
        if privacy is None:
            losses = self._gradients.add(weights, targets, x, labels, shares * scale[:, None], self.random)
        else:
            scale /= privacy.expected_batch
            losses = self._gradients.add_clipped(
                weights, targets, x, labels, (rows >= 0) * scale[:, None], self.random, norm_max=privacy.max_grad_norm
            )
            if privacy.noise_multiplier:
                self.random.add_normal(target.rows(clients), scale * (privacy.noise_multiplier * privacy.max_grad_norm))
        self.losses[:clients] += (losses * shares).sum(dim=1)
        self._apply(clients)

    def _prepared(self, clients: int) -> None:
        """What the gradient's memory holds before layers add to it: velocity, decay, proximal and linear terms."""
        if self._gradient is None:
            return
        local, optimizer = self._local, self._local.optimizer
        gradient, weights = self._gradient.rows(clients), self.weights.rows(clients)
        if isinstance(optimizer, Sgd) and optimizer.momentum:
            gradient.mul_(optimizer.momentum)
        else:
            gradient.zero_()
        pull = optimizer.weight_decay + local.proximal
        if pull:
            gradient.add_(weights, alpha=pull)
        if local.proximal:
            gradient.add_(_first(self.start, clients), alpha=-local.proximal)
        if len(self.linear):
            gradient.add_(_first(self.linear, clients))

    def _applied(self, clients: int) -> None:
        if self._gradient is None:
            return
        gradient, weights, rates = self._gradient.rows(clients), self.weights.rows(clients), self.rates[:clients, None]
        match self._local.optimizer:
            case Sgd():
                weights.addcmul_(gradient, rates, value=-1)
            case Adam() as adam:
                mean, square = (stack.rows(clients) for stack in self._moments)
                mean.lerp_(gradient, 1 - adam.beta1)
                square.mul_(adam.beta2).addcmul_(gradient, gradient, value=1 - adam.beta2)
                taken = self._taken if self.turns is None else self.turns.taken(clients)
                root = square.sqrt().div_((1 - adam.beta2**taken).sqrt()).add_(adam.eps)
                weights.addcmul_(mean.div(root), rates / (1 - adam.beta1**taken), value=-1)


def _first(values: Tensor, clients: int) -> Tensor:
    return values if len(values) == 1 else values[:clients]
