"""The oracle: one client after another, one step after another, as the papers' pseudocode reads. Slow on purpose.

for each client k:                                     (McMahan et al. 2017, ClientUpdate)
    w <- start_k
    for each batch b:
        g <- gradient of the mean loss on b            (private: sum of clipped gradients, noised: Abadi et al. 2016)
        g <- g + proximal * (w - start_k) + linear_k
        w <- optimizer step with g
    delta_k <- w - start_k
"""

from collections.abc import Collection, Sequence

import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from cloud.aggregation.rule import Fold
from simulations.engines.port import Adam, Assignment, Collector, ExamplePrivacy, LocalTraining, Sgd, Trained
from simulations.problem import Problem

Vector = torch.Tensor


class ReferenceEngine:
    """Trains with torch's own autograd and optimizers.

    Args:
        problem: What is learned.
        local: How each client trains.
    """

    notes: Sequence[str] = ("One client after another, one step after another.",)

    def __init__(self, problem: Problem, local: LocalTraining) -> None:
        self._problem = problem
        self._local = local
        self._model = problem.model(0)
        trained = {name: each for name, each in self._model.named_parameters() if each.requires_grad}
        self._names, self._trained = list(trained), list(trained.values())

    def train(self, assignment: Assignment, collector: Collector) -> Fold:
        fold = collector.begin(assignment)
        for position in range(len(assignment)):
            collector.add(fold, assignment, self._client_update(assignment, position))
        return fold

    def close(self) -> None: ...

    def _client_update(self, assignment: Assignment, position: int) -> Trained:
        start = _row(assignment.start, position)
        linear = torch.zeros_like(start) if assignment.linear is None else _row(assignment.linear, position)
        vector_to_parameters(start.clone(), self._trained)
        optimizer = _optimizer(self._local.optimizer, self._trained, factor=assignment.learning_rate_factor)
        batches = [batch[batch >= 0] for batch in assignment.batches[position, : assignment.steps[position]]]
        start_loss = self._mean_loss(torch.cat(batches)) if self._local.wants_start_loss else float("nan")
        torch.manual_seed(int(assignment.seeds[position]) if len(assignment.seeds) else 0)
        losses = []
        for step, batch in enumerate(batches):
            losses.append(self._step(optimizer, batch, start, linear, moving=self._moving(step, len(batches))))
        return Trained(
            positions=torch.tensor([position]),
            deltas=(parameters_to_vector(self._trained).detach() - start)[None],
            losses=torch.tensor([sum(losses) / max(1, len(losses))], dtype=torch.float64),
            start_losses=torch.tensor([start_loss], dtype=torch.float64),
        )

    def _moving(self, step: int, steps: int) -> Collection[int]:
        """Places of the parameters that this step moves."""
        alternation = self._local.alternation
        if alternation is None:
            return range(len(self._trained))
        return alternation.moving(self._names, alternation.turn(step, steps=steps))

    def _step(
        self,
        optimizer: torch.optim.Optimizer,
        batch: torch.Tensor,
        start: Vector,
        linear: Vector,
        *,
        moving: Collection[int],
    ) -> float:
        """One optimizer step; returns the batch's mean loss before it."""
        gradient, loss = self._private_gradient(batch) if self._local.privacy else self._gradient(batch)
        moved = parameters_to_vector(self._trained).detach() - start
        gradient = gradient + self._local.proximal * moved + linear
        _set_gradients(self._trained, gradient, moving)
        optimizer.step()
        return loss

    def _gradient(self, batch: torch.Tensor) -> tuple[Vector, float]:
        losses = self._losses(batch)
        return _flat(torch.autograd.grad(losses.mean(), self._trained)), float(losses.detach().mean())

    def _private_gradient(self, batch: torch.Tensor) -> tuple[Vector, float]:
        """The sum of clipped gradients and noise over the expected batch size; an empty batch is noise alone."""
        privacy = self._local.privacy
        assert privacy is not None
        total = torch.zeros(sum(parameter.numel() for parameter in self._trained))
        losses = [self._losses(example[None]) for example in batch]
        for loss in losses:
            total += _clipped(_flat(torch.autograd.grad(loss.sum(), self._trained)), privacy)
        noise = torch.randn(total.shape) * privacy.noise_multiplier * privacy.max_grad_norm
        mean_loss = float(torch.cat(losses).detach().mean()) if losses else 0.0
        return (total + noise) / privacy.expected_batch, mean_loss

    def _losses(self, batch: torch.Tensor) -> torch.Tensor:
        self._model.train()
        data = self._problem.train
        return self._problem.losses(self._model(data.inputs[batch]), data.labels[batch])

    def _mean_loss(self, batch: torch.Tensor) -> float:
        self._model.eval()
        data = self._problem.train
        with torch.no_grad():
            return float(self._problem.losses(self._model(data.inputs[batch]), data.labels[batch]).mean())


def _clipped(gradient: Vector, privacy: ExamplePrivacy) -> Vector:
    return gradient * min(1.0, privacy.max_grad_norm / max(float(gradient.norm()), 1e-12))


def _optimizer(settings: Sgd | Adam, trained: list[torch.nn.Parameter], *, factor: float) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate * factor, settings.weight_decay
    match settings:
        case Sgd():
            return torch.optim.SGD(trained, lr=rate, momentum=settings.momentum, weight_decay=decay)
        case Adam():
            betas = (settings.beta1, settings.beta2)
            return torch.optim.Adam(trained, lr=rate, betas=betas, eps=settings.eps, weight_decay=decay)


def _set_gradients(trained: list[torch.nn.Parameter], gradient: Vector, moving: Collection[int]) -> None:
    parts = torch.split(gradient, [parameter.numel() for parameter in trained])
    for place, (parameter, part) in enumerate(zip(trained, parts, strict=True)):
        # An optimizer leaves a parameter without a gradient as it is, decay and momentum included.
        parameter.grad = part.view_as(parameter) if place in moving else None


def _flat(tensors: tuple[torch.Tensor, ...]) -> Vector:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _row(values: torch.Tensor, position: int) -> Vector:
    return values if values.dim() == 1 else values[position]
