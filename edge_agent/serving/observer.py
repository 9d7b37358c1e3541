"""What the endpoint remembers of each request: cheap enough for the hot path, worked out later by telemetry."""

from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from edge_agent.serving.session import Outputs
from shared.tasks.task import Inputs

SAMPLED_EXAMPLES_MAX = 1024
"""Inputs kept for drift between two drains; when it is full, further ones are counted but not kept."""
LATENCIES_MAX = 65_536
"""Latencies kept between two reports; the newest win."""


@dataclass
class Observations:
    """What happened since the last drain."""

    requests: int = 0
    examples: int = 0
    errors: int = 0
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_MAX))
    predictions: Counter[int] = field(default_factory=Counter)
    """By class index."""


class Observer:
    """Collects observations of one release at a time. Used on the event loop only, so it needs no lock."""

    def __init__(self) -> None:
        self._window = Observations()
        self._inputs: list[Inputs] = []
        self._inputs_held = 0

    def answered(self, inputs: Inputs, outputs: Outputs, *, latency_s: float) -> None:
        """Notes one answered request."""
        window = self._window
        count = len(inputs)
        window.requests += 1
        window.examples += count
        window.latencies_s.append(latency_s)
        if count == 1:
            window.predictions[int(outputs.argmax())] += 1
        else:
            window.predictions.update(np.argmax(outputs.reshape(count, -1), axis=1).tolist())
        if self._inputs_held + count <= SAMPLED_EXAMPLES_MAX:
            self._inputs.append(inputs)
            self._inputs_held += count

    def refused(self) -> None:
        """Notes a request that was answered with an error."""
        self._window.requests += 1
        self._window.errors += 1

    def take_inputs(self) -> list[Inputs]:
        """The inputs seen since the last call, oldest first, at most SAMPLED_EXAMPLES_MAX examples."""
        inputs, self._inputs, self._inputs_held = self._inputs, [], 0
        return inputs

    def take_window(self) -> Observations:
        """The observations since the last call."""
        window, self._window = self._window, Observations()
        return window
