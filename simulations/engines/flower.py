"""The same round on Flower's simulation engine, which is Ray: on this machine, or on a Ray cluster by its address.

Each row of the assignment is one message to one of Flower's virtual nodes, with the model, the client's examples and
its batches; a `ClientApp` trains it as the reference engine does and replies with the update. Decisions, collection and
results are those of every engine; what differs is where the work is done, and that every client costs a message.

Flower's simulation wants to own the process's run from beginning to end, so it gets a thread, and its `ServerApp` waits
there for rounds.
"""

import logging
import os
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any

import torch

from cloud.aggregation.rule import Fold
from shared.errors import ExtraNotInstalledError
from simulations.engines.errors import EngineStoppedError
from simulations.engines.port import Assignment, Collector, LocalTraining, Trained
from simulations.problem import Problem

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.serverapp import Grid

_NODES_MAX = 256
"""Flower asks every node for work in turn, ten times a second: more nodes than rows at work only cost."""
_POLL_S = 0.02
_LOOK_S = 0.5
_STOP_S = 30.0


@dataclass(frozen=True)
class FlowerOptions:
    """Where Flower's engine runs."""

    address: str | None = None
    """Of a Ray cluster (`auto`, or `ray://host:port`) on which our package is installed; None: Ray on this machine."""
    cpus_per_client: float = 1.0
    silence_max_s: float = 600.0
    """Between two replies of a round; the first waits for Ray to start, which takes seconds to a minute."""


@dataclass(frozen=True)
class _Round:
    """What the server app is asked to do, and where its replies go."""

    assignment: Assignment
    replies: "Queue[Message]"


class FlowerEngine:
    """Trains on Flower's simulation engine; start-up takes seconds, and is paid in the first round.

    Args:
        problem: What is learned; model and losses must be importable by name on every machine of the cluster.
        local: How each client trains.
        options: Where.

    Raises:
        ExtraNotInstalledError: Flower or Ray is missing.
    """

    notes: Sequence[str] = ("Flower's simulation engine on Ray: one message and one Ray call for each client.",)

    def __init__(self, problem: Problem, local: LocalTraining, options: FlowerOptions | None = None) -> None:
        if not (find_spec("flwr") and find_spec("ray")):
            raise ExtraNotInstalledError("The engine `flower`", extra="ray")
        self._problem, self._local, self._options = problem, local, options or FlowerOptions()
        self._rounds: Queue[_Round | None] = Queue()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._failure: BaseException | None = None

    def train(self, assignment: Assignment, collector: Collector) -> Fold:
        """See the port. Raises EngineStoppedError."""
        if self._thread is None:
            self._start(nodes=min(len(assignment), _NODES_MAX))
        replies: Queue[Message] = Queue()
        self._rounds.put(_Round(assignment, replies))
        fold = collector.begin(assignment)
        for _ in range(len(assignment)):
            collector.add(fold, assignment, _trained(self._next(replies)))
        return fold

    def close(self) -> None:
        if self._thread is not None:
            self._stopping.set()
            self._rounds.put(None)
            self._thread.join(_STOP_S)
            self._thread = None

    def _next(self, replies: "Queue[Message]") -> "Message":
        """The next reply of the round. Raises EngineStoppedError after too long a silence, or the engine's end."""
        deadline = time.monotonic() + self._options.silence_max_s
        while time.monotonic() < deadline:
            with suppress(Empty):
                return replies.get(timeout=_LOOK_S)
            if self._failure is not None:
                raise EngineStoppedError(f"Flower's engine ended: {self._failure}") from self._failure
        raise EngineStoppedError(f"Expected an update within {self._options.silence_max_s:g} s, got none")

    def _start(self, *, nodes: int) -> None:
        _quiet()
        self._thread = threading.Thread(target=self._run, args=(nodes,), name="flower-engine", daemon=True)
        self._thread.start()

    def _run(self, nodes: int) -> None:
        from flwr.serverapp import ServerApp
        from flwr.simulation import run_simulation

        from simulations.engines.flower_client import client_app

        server = ServerApp()

        @server.main()
        def main(grid: "Grid", context: Any) -> None:  # Flower's Context; the server app has no use for it
            while len(ids := sorted(grid.get_node_ids())) < nodes and not self._stopping.wait(_POLL_S):
                pass  # nodes register beside us
            while (work := self._rounds.get()) is not None:
                self._serve(grid, ids, work)

        problem = self._problem
        try:
            run_simulation(
                server,
                # Travels with each call, so it holds no data: examples come in messages, to those who need them.
                client_app(problem.model, problem.losses, problem.classes, self._local),
                num_supernodes=nodes,
                backend_config=_backend(self._options),
            )
        except BaseException as error:  # the thread's end, whatever it was, is the caller's to hear
            self._failure = error

    def _serve(self, grid: "Grid", nodes: Sequence[int], work: _Round) -> None:
        """Sends every row, and hands on every reply as it comes."""
        from simulations.engines.flower_client import instruction

        rows = range(len(work.assignment))
        messages = [instruction(work.assignment, row, self._problem, nodes[row % len(nodes)]) for row in rows]
        waiting = set(grid.push_messages(messages))
        while waiting and not self._stopping.wait(_POLL_S):
            for reply in grid.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                work.replies.put(reply)


def _trained(reply: "Message") -> Trained:
    if reply.has_error():
        raise EngineStoppedError(f"Expected an update, got an error of a client: {reply.error.reason}")
    arrays, figures = reply.content.array_records["update"], reply.content.metric_records["figures"]
    return Trained(
        positions=torch.tensor([int(figures["position"])]),  # type: ignore[arg-type]  # one number, as sent
        deltas=torch.from_numpy(arrays["delta"].numpy().copy())[None],
        losses=torch.tensor([figures["loss"]], dtype=torch.float64),
        start_losses=torch.tensor([figures["start-loss"]], dtype=torch.float64),
    )


def _backend(options: FlowerOptions) -> dict[str, dict[str, Any]]:
    """Flower's own settings; `Any`: each of Ray's has a type of its own."""
    init: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    # "local": without it Ray would join whatever cluster happens to run on this machine.
    init |= {"address": options.address} if options.address else {"address": "local", "num_cpus": os.cpu_count()}
    return {"init_args": init, "client_resources": {"num_cpus": options.cpus_per_client, "num_gpus": 0.0}}


def _quiet() -> None:
    """No telemetry, no update check, no logs below errors, of Flower and Ray alike; before either is imported."""
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a warning about GPUs that nobody asked for
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # typer, which flwr loads
        import flwr.simulation  # noqa: F401  # loading it sets up its logger, which is silenced next
    logging.getLogger("flwr").setLevel(logging.ERROR)
