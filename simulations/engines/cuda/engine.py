"""The stacked engine: a cohort trained as one computation, on a GPU (or, to test the same code, on a CPU).

Clients are sorted by their number of steps, so that those still training are always the first rows of the stack; a step
computes only them. On a GPU each step is captured as a graph the first time its size comes, and data and models stay
there. Updates are handed on where the assignment's start lies: a start on the card keeps them there, and then nothing
waits for the card before the fold is read.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from cloud.aggregation.rule import Fold
from shared.layout import Layout
from simulations.engines.cuda.block import Block, Examples
from simulations.engines.cuda.capture import CapturedSteps
from simulations.engines.cuda.chain import Chain
from simulations.engines.cuda.compilation import Compiler
from simulations.engines.cuda.gradients import ChainGradients, Gradients, VmapGradients
from simulations.engines.cuda.precision import Precision, using
from simulations.engines.errors import NoGpuError, UnsupportedModelError
from simulations.engines.port import Adam, Assignment, Collector, LocalTraining, Trained
from simulations.problem import Problem

Tensor = torch.Tensor

_STACKS_MEMORY_SHARE = 0.4
"""Of the card's free memory, what stacked models may take; activations take a part of the rest."""


@dataclass(frozen=True)
class CudaOptions:
    """How the engine computes; the defaults are the fastest seen that give the reference's numbers."""

    device: str = "cuda"
    clients_at_once: int | None = None
    """None: as many as the free memory holds."""
    is_captured: bool = True
    """Steps as CUDA graphs."""
    precision: Precision = Precision.FLOAT32
    """Of the products in hand-written passes; others are torch's, whose tf32 is off unless somebody turned it on."""
    uses_chain: bool = True
    """Hand-written passes where the model allows; otherwise `vmap`."""
    compiler: str | None = None
    """The backend of `torch.compile`, as `inductor`, for what has no hand-written kernel; None compiles nothing."""


class CudaEngine:
    """Trains whole cohorts at once.

    Args:
        problem: What is learned; its training data are copied to the device.
        local: How each client trains.
        options: How it is computed.

    Raises:
        NoGpuError: The options ask for a GPU that there is not.
        UnsupportedModelError: The model keeps statistics over a batch.
    """

    def __init__(self, problem: Problem, local: LocalTraining, options: CudaOptions | None = None) -> None:
        self._options = options or CudaOptions()
        self.device = torch.device(self._options.device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise NoGpuError(
                "Expected a GPU that torch can use, got none",
                hint="Install a build of torch for CUDA, or choose the engine `vector`.",
            )
        self._local = local
        self._notes: list[str] = []
        self._compiler = Compiler(self._options.compiler, self._notes.append)
        self._draws_globally = False
        model = problem.model(0)
        self._layout = Layout.of({name: value for name, value in model.named_parameters() if value.requires_grad})
        self._gradients = self._choose_gradients(problem, model)
        self._examples = Examples.on(self.device, problem.train.inputs, problem.train.labels)
        self._block: tuple[tuple[object, ...], Block] | None = None
        self._captured: CapturedSteps | None = None
        self._fitting: int | None = None

    @property
    def notes(self) -> Sequence[str]:
        return self._notes

    def close(self) -> None:
        self._block = self._captured = None

    def train(self, assignment: Assignment, collector: Collector) -> Fold:
        fold, home = collector.begin(assignment), assignment.start.device
        moved = _on(self.device, assignment)
        order = torch.argsort(assignment.steps, descending=True, stable=True)
        for positions in torch.split(order, self._clients_at_once(len(assignment))):
            with using(self._options.precision), self._seeded(moved, positions):
                trained = self._train_block(moved, positions)
            collector.add(fold, assignment, trained if home.type == self.device.type else _brought(trained, home))
        return fold

    def _train_block(self, assignment: Assignment, positions: Tensor) -> Trained:
        clients, steps = len(positions), assignment.steps[positions]
        block = self._block_for(assignment, clients)
        taking = [int((steps > step).sum()) for step in range(int(steps.max()))]
        sizes = [self._ready(block, count) for count in taking]
        start = _rows(assignment.start, positions)
        linear = None if assignment.linear is None else _padded(_rows(assignment.linear, positions), block)
        block.begin(_padded(start, block), linear)
        block.random.seed(assignment.seeds[positions] if len(assignment.seeds) else torch.zeros_like(positions))
        batches = assignment.batches[positions, : len(taking)].transpose(0, 1)
        rows, shares = self._sent(batches), self._sent(_shares(batches))
        rates = self._sent((steps > torch.arange(len(taking))[:, None]) * self._rate(assignment))
        moving = None if block.turns is None else self._sent(block.turns.planned(steps))
        start_losses = self._start_losses(block, batches, rows, taking)
        for step, size in enumerate(sizes):
            if block.turns is not None and moving is not None:
                block.turns.moving[:clients].copy_(moving[step])
            block.rows[:clients].copy_(rows[step])
            block.shares[:clients].copy_(shares[step])
            block.rates[:clients].copy_(rates[step])
            self._step(block, size)
        deltas = block.weights.subtract(clients, start)
        return Trained(positions, deltas, block.losses[:clients] / self._sent(steps.clamp(min=1)), start_losses)

    def _sent(self, values: Tensor) -> Tensor:
        """On the device, without waiting for what it is still doing."""
        values = values.contiguous()
        return values.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else values

    @contextmanager
    def _seeded(self, assignment: Assignment, positions: Tensor) -> Iterator[None]:
        """Torch's own generators depend on the clients' seeds inside, and are afterwards as they were."""
        if not self._draws_globally:
            yield
            return
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(int(assignment.seeds[positions].sum()) if len(assignment.seeds) else 0)
            yield

    def _step(self, block: Block, size: int) -> None:
        if self._captured is None:
            block.step(size)
        else:
            self._captured.replay(size)

    def _ready(self, block: Block, clients: int) -> int:
        """The size of the step for so many clients, captured if it has to be."""
        if self._captured is None:
            return clients
        size = self._captured.size_for(clients)
        if not self._captured.is_ready(size):
            self._captured.capture(size)
        return size

    def _start_losses(self, block: Block, batches: Tensor, rows: Tensor, taking: list[int]) -> Tensor:
        """Mean loss of the starting models over all of each client's batches, `(clients,)`; NaN unless wanted."""
        clients = batches.shape[1]
        if not self._local.wants_start_loss:
            return torch.full((clients,), float("nan"), dtype=torch.float64, device=self.device)
        total = torch.zeros(clients, dtype=torch.float64, device=self.device)
        for step, count in enumerate(taking):
            mine = rows[step, :count]
            x, labels = self._examples.inputs[mine], self._examples.labels[mine]
            losses = self._gradients.losses(block.weights.views(count), x, labels)
            total[:count] += (losses * (mine >= 0)).sum(dim=1)
        return total / self._sent((batches >= 0).sum(dim=(0, 2)))

    def _rate(self, assignment: Assignment) -> float:
        return self._local.optimizer.learning_rate * assignment.learning_rate_factor

    def _block_for(self, assignment: Assignment, clients: int) -> Block:
        """The block that fits; a new one, and new graphs, only if the kind of round changed or more clients came."""
        linear = 0 if assignment.linear is None else assignment.linear.dim()
        kind = (assignment.batches.shape[2], assignment.start.dim(), linear)
        if self._block is not None and self._block[0] == kind and len(self._block[1].rates) >= clients:
            return self._block[1]
        self._block = self._captured = None
        block = Block(
            self._layout,
            self._local,
            self._examples,
            self._gradients,
            capacity=clients,
            batch=kind[0],
            own_starts=assignment.start.dim() == 2,
            linear=linear,
            compiler=self._compiler,
        )
        self._block = kind, block
        if self.device.type == "cuda" and self._options.is_captured:
            is_compiled = self._compiler.is_used and isinstance(self._gradients, VmapGradients)
            self._captured = CapturedSteps(block.step, clients, sizes_max=4 if is_compiled else 16)
        return block

    def _clients_at_once(self, cohort: int) -> int:
        """Blocks of about one size, each of at most what fits."""
        if self._fitting is None:
            self._fitting = self._options.clients_at_once or self._measured_fitting()
        blocks = -(-cohort // self._fitting)
        return -(-cohort // blocks)

    def _measured_fitting(self) -> int:
        if self.device.type == "cpu":
            return 2**31
        free, _ = torch.cuda.mem_get_info(self.device)
        stacks = 2 + 2 * isinstance(self._local.optimizer, Adam)
        return max(1, int(free * _STACKS_MEMORY_SHARE) // (4 * self._layout.size * stacks))

    def _choose_gradients(self, problem: Problem, model: nn.Module) -> Gradients:
        if self._options.uses_chain:
            try:
                chain = Chain.of(model, self._layout, problem.train.inputs[:2])
            except UnsupportedModelError as error:
                self._notes.append(f"Gradients by vmap: {error.message}")
            else:
                self._notes.append("Passes written by hand over stacked layers.")
                if self.device.type == "cuda":
                    self._notes.append("Dropout and noise are drawn by counters: other numbers than the reference's.")
                return ChainGradients(chain, problem.losses)
        _refuse_running_statistics(model)
        self._draws_globally = any(isinstance(module, nn.modules.dropout._DropoutNd) for module in model.modules())
        if self._draws_globally:
            self._notes.append("Dropout is drawn from torch's own generator: other numbers than the reference's.")
        compiler = Compiler(None, self._notes.append) if self._draws_globally else self._compiler
        return VmapGradients(model.to(self.device).train(), self._layout, problem.losses, compiler)


def _refuse_running_statistics(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats:
            raise UnsupportedModelError(
                f"Expected no running statistics over a batch, got {module}", hint="Use GroupNorm instead"
            )


def _on(device: torch.device, assignment: Assignment) -> Assignment:
    """Models on the device; what decides, who and which rows, stays with the caller."""
    linear = None if assignment.linear is None else assignment.linear.to(device)
    return replace(assignment, start=assignment.start.to(device), linear=linear)


def _brought(trained: Trained, home: torch.device) -> Trained:
    """The updates where the caller's model lies."""
    return Trained(trained.positions, trained.deltas.to(home), trained.losses.to(home), trained.start_losses.to(home))


def _rows(values: Tensor, positions: Tensor) -> Tensor:
    return values if values.dim() == 1 else values[positions.to(values.device)]


def _shares(batches: Tensor) -> Tensor:
    """What each example counts in the mean of its batch, 0 for padding."""
    is_there = batches >= 0
    return is_there / is_there.sum(dim=-1, keepdim=True).clamp(min=1)


def _padded(values: Tensor, block: Block) -> Tensor:
    """One row for each place in the block; places without a client get the first client's."""
    capacity = len(block.rates)
    if values.dim() == 1 or len(values) == capacity:
        return values
    return torch.cat([values, values[:1].expand(capacity - len(values), -1)])
