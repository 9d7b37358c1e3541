"""A client of the Open Inference Protocol v2, as a device's neighbour would write it: JSON and binary tensors.

Specification: Open Inference Protocol, v2 (REST), and its binary tensor data extension.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from shared.errors import FleetlearnError
from shared.tasks.task import Inputs, Schema


class InferenceError(FleetlearnError):
    """The endpoint answered with an error, or not as the protocol says."""

    code = "inference_failed"


@dataclass(frozen=True)
class Answer:
    """Logits `(n, classes)`, and how long the request took."""

    outputs: NDArray[np.float32]
    latency_ms: float


class InferenceClient:
    """One keep-alive connection to a device's endpoint."""

    def __init__(
        self, base_url: str, *, model: str, schema: Schema, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._http = httpx.Client(base_url=base_url, timeout=10, transport=transport)
        self._base_url = base_url
        self._model = model
        self._schema = schema

    def __enter__(self) -> "InferenceClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def is_ready(self) -> bool:
        try:
            return self._http.get("/v2/health/ready").is_success
        except httpx.HTTPError:
            return False

    def metadata(self) -> dict[str, Any]:
        """The model's metadata, as the endpoint gives it. `Any`: JSON."""
        with self._translated():
            return dict(_checked(self._http.get(f"/v2/models/{self._model}")).json())

    def infer_json(self, inputs: Inputs) -> Answer:
        """Sends `(n, *input_shape)` float32 as JSON numbers."""
        tensor = {**self._tensor(inputs), "data": inputs.ravel().tolist()}
        with self._translated():
            started = time.perf_counter()
            answer = _checked(self._http.post(self._url, json={"inputs": [tensor]}))
            elapsed_ms = (time.perf_counter() - started) * 1e3
            output = answer.json()["outputs"][0]
            return Answer(np.asarray(output["data"], dtype=np.float32).reshape(output["shape"]), elapsed_ms)

    def infer_binary(self, inputs: Inputs) -> Answer:
        """Sends and receives raw little-endian float32."""
        raw = inputs.astype("<f4").tobytes()
        tensor = {**self._tensor(inputs), "parameters": {"binary_data_size": len(raw)}}
        wanted = [{"name": self._schema.output_name, "parameters": {"binary_data": True}}]
        header = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
        headers = {"Inference-Header-Content-Length": str(len(header)), "Content-Type": "application/octet-stream"}
        with self._translated():
            started = time.perf_counter()
            answer = _checked(self._http.post(self._url, content=header + raw, headers=headers))
            elapsed_ms = (time.perf_counter() - started) * 1e3
            header_length = int(answer.headers["Inference-Header-Content-Length"])
            output = json.loads(answer.content[:header_length])["outputs"][0]
            outputs = np.frombuffer(answer.content[header_length:], dtype="<f4").reshape(output["shape"])
            return Answer(outputs, elapsed_ms)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise InferenceError(f"Expected an answer from {self._base_url}, got: {error}") from error
        except (LookupError, TypeError, ValueError) as error:
            raise InferenceError(f"Expected an answer of the Open Inference Protocol, got: {error!r}") from error

    @property
    def _url(self) -> str:
        return f"/v2/models/{self._model}/infer"

    def _tensor(self, inputs: Inputs) -> dict[str, object]:
        return {"name": self._schema.input_name, "datatype": "FP32", "shape": list(inputs.shape)}


def _checked(answer: httpx.Response) -> httpx.Response:
    if not answer.is_success:
        raise InferenceError(f"Expected an inference, got {answer.status_code}: {answer.text[:300]}")
    return answer
