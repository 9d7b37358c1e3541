"""The Open Inference Protocol's bytes: what is taken, what is refused, and what comes back."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.serving.errors import InvalidInferenceRequestError
from edge_agent.serving.protocol import Bounds, InferenceRequest, ServedSchema, encode_response, parse_request
from shared.manifests import TensorSchema

SCHEMA = ServedSchema(
    model_name="toy",
    model_version="toy-1",
    input=TensorSchema(name="x", datatype="FP32", shape=[-1, 2, 3]),
    output=TensorSchema(name="y", datatype="FP32", shape=[-1, 2]),
    classes=("a", "b"),
)
VALUES = np.arange(12, dtype=np.float32).reshape(2, 2, 3)


def body(**changes: Any) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 2, 3], "data": VALUES.tolist(), **changes}
    return json.dumps({"inputs": [{k: v for k, v in tensor.items() if v is not ...}]}).encode()


def binary_body(values: Any, *, size: Any = None, shape: Any = None) -> tuple[bytes, int]:
    raw = values.astype("<f4").tobytes()
    tensor = {
        "name": "x",
        "datatype": "FP32",
        "shape": list(values.shape) if shape is None else shape,
        "parameters": {"binary_data_size": len(raw) if size is None else size},
    }
    head = json.dumps({"id": "7", "inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return head + raw, len(head)


def parse(payload: bytes, header_bytes: int | None = None) -> InferenceRequest:
    return parse_request(payload, header_bytes=header_bytes, schema=SCHEMA, bounds=Bounds(batch_max=4))


def test_takes_nested_flat_and_binary_tensors_alike() -> None:
    raw, header = binary_body(VALUES)
    for request in (parse(body()), parse(body(data=VALUES.ravel().tolist())), parse(raw, header)):
        assert request.inputs.dtype == np.float32
        np.testing.assert_array_equal(request.inputs, VALUES)


def test_answers_in_the_form_that_was_asked_for() -> None:
    outputs = np.array([[1.5, -2.0]], np.float32)
    text, header = encode_response(InferenceRequest("7", VALUES, wants_binary=False), outputs, SCHEMA)
    assert header is None
    assert json.loads(text) == {
        "model_name": "toy",
        "model_version": "toy-1",
        "id": "7",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.5, -2.0]}],
    }
    raw, header = encode_response(InferenceRequest(None, VALUES, wants_binary=True), outputs, SCHEMA)
    assert header is not None
    assert json.loads(raw[:header])["outputs"][0]["parameters"] == {"binary_data_size": 8}
    np.testing.assert_array_equal(np.frombuffer(raw[header:], "<f4"), [1.5, -2.0])


def test_one_output_may_overrule_the_request() -> None:
    document = json.loads(body()) | {"parameters": {"binary_data_output": True}}
    assert parse(json.dumps(document).encode()).wants_binary
    document["outputs"] = [{"name": "y", "parameters": {"binary_data": False}}]
    assert not parse(json.dumps(document).encode()).wants_binary


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "JSON"),
        (b"[]", "object"),
        (b"{", "JSON"),
        (b"{}", "inputs"),
        (b'{"inputs": {}}', "inputs"),
        (b'{"inputs": [1]}', "inputs"),
        (b'{"inputs": [' + b"[" * 5000, "JSON"),
        (body(name="z"), "'x'"),
        (body(datatype="INT8"), "FP32"),
        (body(shape=[2, 3, 2]), "shape"),
        (body(shape=[2, 6]), "shape"),
        (body(shape=[True, 2, 3]), "shape"),
        (body(shape=["2", 2, 3]), "shape"),
        (body(shape=None), "shape"),
        (body(shape=[0, 2, 3], data=[]), "shape"),
        (body(shape=[5, 2, 3], data=[0] * 30), "1..4"),
        (body(shape=[-1, 2, 3]), "shape"),
        (body(data=...), "'data'"),
        (body(data="abc"), "'data'"),
        (body(data=[1, 2]), "12 numbers"),
        (body(data=["1"] * 12), "numbers"),
        (body(data=[None] * 12), "numbers"),
        (body(data=[True] * 12), "numbers"),
        (body(data=[{}] * 12), "numbers"),
        (body(data=[[1, 2], [3]]), "ragged"),
        (body(data=[1e300] * 12), "overflow"),
        (body(data=[float("nan")] * 12), "JSON"),
        (body(parameters=[1]), "parameters"),
        (body(parameters={"binary_data_size": 48}), "48 bytes"),
    ],
)
def test_refuses_what_the_schema_does_not_say_in_one_sentence(payload: bytes, says: str) -> None:
    with pytest.raises(InvalidInferenceRequestError) as refused:
        parse(payload)
    assert says in refused.value.message
    assert len(refused.value.message) < 400


@pytest.mark.parametrize("size", [47, 49, 0, -48, "48", 48.0, True])
def test_refuses_a_binary_size_that_is_not_the_shapes(size: Any) -> None:
    raw, header = binary_body(VALUES, size=size)
    with pytest.raises(InvalidInferenceRequestError, match="48 bytes"):
        parse(raw, header)


def test_refuses_bytes_that_are_missing_or_too_many_or_not_announced() -> None:
    raw, header = binary_body(VALUES)
    for payload in (raw[:-1], raw + b"\0"):
        with pytest.raises(InvalidInferenceRequestError, match="48 bytes"):
            parse(payload, header)
    plain = body()
    with pytest.raises(InvalidInferenceRequestError, match="binary_data_size"):
        parse(plain + b"1234", len(plain))


@pytest.mark.parametrize("header_bytes", [0, 10_000])
def test_refuses_a_header_length_outside_the_body(header_bytes: int) -> None:
    with pytest.raises(InvalidInferenceRequestError, match="Inference-Header-Content-Length"):
        parse(body(), header_bytes)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_numbers_that_are_not_finite(bad: float) -> None:
    values = VALUES.copy()
    values[1, 0, 2] = bad
    raw, header = binary_body(values)
    with pytest.raises(InvalidInferenceRequestError, match="finite"):
        parse(raw, header)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.none() | st.integers(0, 300))
def test_any_bytes_are_refused_or_taken_never_more(payload: bytes, header_bytes: int | None) -> None:
    with pytest.raises(InvalidInferenceRequestError):
        parse(payload, header_bytes)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=15,
)


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("name", "datatype", "shape", "data", "parameters"), json_values))
)
def test_any_tensor_is_refused_or_taken_never_more(changes: dict[str, Any]) -> None:
    try:
        request = parse(body(**changes))
    except InvalidInferenceRequestError:
        return
    assert request.inputs.shape[1:] == (2, 3)
    assert np.isfinite(request.inputs).all()
