"""The users' traffic: real examples that no model has seen, sent to each device's endpoint until told to stop."""

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import numpy as np

from shared.tasks.task import Examples, Inputs, Schema
from simulations.demo.disturbance import Disturbance
from simulations.demo.inference import InferenceClient, InferenceError

_BATCH = 8
_PAUSE_S = 0.05


class Traffic:
    """One sender for each device; `disturb` breaks one device's sensor from then on."""

    def __init__(
        self, endpoints: Mapping[str, str], *, model: str, schema: Schema, examples: Examples, seed: int
    ) -> None:
        self._disturbed: dict[str, Disturbance] = {}
        self._stop = threading.Event()
        self.errors: dict[str, str] = {}
        self._threads = [
            threading.Thread(
                target=self._send,
                args=(device_id, InferenceClient(url, model=model, schema=schema), examples.inputs, seed + number),
                name=f"traffic-{device_id}",
                daemon=True,
            )
            for number, (device_id, url) in enumerate(sorted(endpoints.items()))
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=15)

    def disturb(self, device_id: str, disturbance: Disturbance) -> None:
        """From now on this part of this device's sensor reads nothing."""
        self._disturbed[device_id] = disturbance

    def is_flowing(self) -> bool:
        """True. Raises InferenceError once an endpoint has refused a request: nothing is worth waiting for then."""
        for device_id, reason in self.errors.items():
            raise InferenceError(f"Expected {device_id} to answer the traffic, got: {reason}")
        return True

    def _send(self, device_id: str, client: InferenceClient, inputs: Inputs, seed: int) -> None:
        rng = np.random.default_rng(seed)
        with client:
            while not self._stop.wait(_PAUSE_S):
                batch = inputs[rng.integers(0, len(inputs), _BATCH)]
                if disturbance := self._disturbed.get(device_id):
                    batch = disturbance.applied(batch)
                try:
                    client.infer_binary(batch)
                except InferenceError as error:
                    self.errors[device_id] = str(error)
                    return
