"""Small requests that arrive together run together: one call of the runtime costs more than a few more examples in it.

Nobody waits for others: a batch is what the event loop has read in one turn. A model whose answer to one example
depends on the examples beside it (`Model.is_batchable` says so) is called for each request alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_agent.serving.errors import InferenceFailedError
from edge_agent.serving.session import Model, Outputs
from shared.tasks.task import Inputs

EXAMPLES_MAX = 32
"""Examples that run on the event loop in one call; what is larger runs in a thread."""
Outcome = Outputs | InferenceFailedError
CallSoon = Callable[[Callable[[], None]], object]


@dataclass(slots=True)
class _Waiting:
    model: Model
    inputs: Inputs
    done: Callable[[Outcome], None]


class Batcher:
    """Collects inputs during one turn of the event loop, runs them at its end. Used on the event loop only."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []

    def submit(self, model: Model, inputs: Inputs, done: Callable[[Outcome], None], *, call_soon: CallSoon) -> None:
        """Calls `done` with the outputs, or the reason why there are none, soon."""
        if not self._waiting:
            call_soon(self._flush)
        self._waiting.append(_Waiting(model, inputs, done))

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        start = 0
        while start < len(waiting):
            end = _batch_end(waiting, start)
            _run(waiting[start:end])
            start = end


def _batch_end(waiting: list[_Waiting], start: int) -> int:
    """Where the batch ends that starts here: at another model, or at the bound."""
    model, examples = waiting[start].model, len(waiting[start].inputs)
    end = start + 1
    while model.is_batchable and end < len(waiting) and waiting[end].model is model:
        examples += len(waiting[end].inputs)
        if examples > EXAMPLES_MAX:
            break
        end += 1
    return end


def _run(batch: list[_Waiting]) -> None:
    if len(batch) == 1:
        _run_alone(batch[0])
        return
    try:
        outputs = batch[0].model.run(np.concatenate([one.inputs for one in batch]))
    except InferenceFailedError:
        # One request's input must not cost the others their answer.
        for one in batch:
            _run_alone(one)
        return
    start = 0
    for one in batch:
        end = start + len(one.inputs)
        one.done(outputs[start:end])
        start = end


def _run_alone(one: _Waiting) -> None:
    try:
        outcome: Outcome = one.model.run(one.inputs)
    except InferenceFailedError as error:
        outcome = error
    one.done(outcome)
