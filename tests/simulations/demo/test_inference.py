"""The protocol's client: both forms of a tensor, and each way an endpoint can answer wrongly."""

import json
from collections.abc import Callable

import httpx
import numpy as np
import pytest

from shared.tasks.task import Schema
from simulations.demo.inference import InferenceClient, InferenceError

SCHEMA = Schema("pixels", (3,), "logits", ("a", "b"), ("ink",))
INPUTS = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
LOGITS = np.array([[0.1, 0.9], [0.8, 0.2]], np.float32)


def _client(answer: Callable[[httpx.Request], httpx.Response]) -> InferenceClient:
    return InferenceClient("http://device", model="digits", schema=SCHEMA, transport=httpx.MockTransport(answer))


def test_sends_and_reads_json_tensors() -> None:
    def endpoint(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v2/models/digits/infer"
        tensor = json.loads(request.content)["inputs"][0]
        assert tensor == {"name": "pixels", "datatype": "FP32", "shape": [2, 3], "data": INPUTS.ravel().tolist()}
        return httpx.Response(200, json={"outputs": [{"shape": [2, 2], "data": LOGITS.ravel().tolist()}]})

    with _client(endpoint) as client:
        np.testing.assert_array_equal(client.infer_json(INPUTS).outputs, LOGITS)


def test_sends_and_reads_binary_tensors() -> None:
    def endpoint(request: httpx.Request) -> httpx.Response:
        length = int(request.headers["Inference-Header-Content-Length"])
        assert json.loads(request.content[:length])["inputs"][0]["parameters"] == {"binary_data_size": 24}
        np.testing.assert_array_equal(np.frombuffer(request.content[length:], "<f4").reshape(2, 3), INPUTS)
        header = json.dumps({"outputs": [{"shape": [2, 2]}]}).encode()
        sizes = {"Inference-Header-Content-Length": str(len(header))}
        return httpx.Response(200, content=header + LOGITS.astype("<f4").tobytes(), headers=sizes)

    with _client(endpoint) as client:
        np.testing.assert_array_equal(client.infer_binary(INPUTS).outputs, LOGITS)


def test_an_error_carries_the_endpoints_own_words() -> None:
    with _client(lambda _: httpx.Response(503, text="no release is active")) as client:
        for ask in (lambda: client.infer_json(INPUTS), lambda: client.infer_binary(INPUTS), client.metadata):
            with pytest.raises(InferenceError, match="503: no release is active"):
                ask()
        assert not client.is_ready()


WRONG = [
    httpx.Response(200, text="<html>"),
    httpx.Response(200, json={"outputs": []}),
    httpx.Response(200, json={"outputs": [{"shape": [9, 9], "data": [1.0]}]}),
    httpx.Response(200, content=b"x", headers={"Inference-Header-Content-Length": "many"}),
]


@pytest.mark.parametrize("answer", WRONG, ids=["a page", "no outputs", "another shape", "no length"])
def test_an_answer_not_of_the_protocol_is_an_error_of_ours(answer: httpx.Response) -> None:
    with _client(lambda _: answer) as client:
        for ask in (client.infer_json, client.infer_binary):
            with pytest.raises(InferenceError, match="Open Inference"):
                ask(INPUTS)


def test_a_device_that_is_gone_is_not_ready() -> None:
    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with _client(gone) as client:
        assert not client.is_ready()
        with pytest.raises(InferenceError, match="http://device"):
            client.infer_json(INPUTS)
