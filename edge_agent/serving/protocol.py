"""Open Inference Protocol v2 with its binary tensor extension, as pure functions: bytes in, arrays out, and back.

    header = parse_request(body, header_bytes=None, schema=schema, bounds=Bounds())
    request.inputs                 # (n, *shape) float32, finite, contiguous
    encode_response(request, outputs, schema)

An input may come as JSON numbers, flat or nested, or as raw little-endian bytes after the JSON header; which output
form is wanted is the request's choice. Everything is checked against the model's schema before the model sees it.

Spec: https://github.com/kserve/open-inference-protocol, and Triton's `extension_binary_data`.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from edge_agent.serving.errors import InvalidInferenceRequestError
from shared.manifests import Manifest, TensorSchema
from shared.tasks.task import Inputs

DATATYPE = "FP32"
"""The only tensor type of a release; a task's inputs and logits are float32."""
Json = dict[str, Any]
"""`Any`: JSON, checked field by field below: this path is too hot for a model class."""
_FLOAT32 = np.dtype("<f4")


@dataclass(frozen=True)
class Bounds:
    """What one request may ask for at most."""

    body_bytes_max: int = 16 * 1024 * 1024
    batch_max: int = 1024


@dataclass(frozen=True)
class ServedSchema:
    """The model's interface as the protocol shows it, worked out once per release."""

    model_name: str
    model_version: str
    input: TensorSchema
    output: TensorSchema
    classes: tuple[str, ...]

    @classmethod
    def of(cls, manifest: Manifest) -> "ServedSchema":
        return cls(
            model_name=manifest.task,
            model_version=manifest.release_id,
            input=manifest.inputs[0],
            output=manifest.outputs[0],
            classes=tuple(manifest.classes),
        )

    def metadata(self) -> Json:
        """Body of `GET /v2/models/{name}`."""
        return {
            "name": self.model_name,
            "versions": [self.model_version],
            "platform": "onnxruntime_onnx",
            "inputs": [_tensor_metadata(self.input)],
            "outputs": [_tensor_metadata(self.output)],
            "parameters": {"classes": list(self.classes)},
        }


@dataclass(frozen=True)
class InferenceRequest:
    """One checked request: `inputs` is `(n, *shape)` float32, C-contiguous and finite."""

    id: str | None
    inputs: Inputs
    wants_binary: bool


def parse_request(body: bytes, *, header_bytes: int | None, schema: ServedSchema, bounds: Bounds) -> InferenceRequest:
    """The request in this body. Raises InvalidInferenceRequestError, never anything else.

    Args:
        body: JSON, or with the extension JSON followed by raw tensors.
        header_bytes: Length of the JSON part, from the header `Inference-Header-Content-Length`; None: all of it.
        schema: What the model takes.
        bounds: Largest batch.
    """
    head, tail = (body, b"") if header_bytes is None else _split(body, header_bytes)
    document = _json_object(head)
    tensor = _only_input(document, schema.input)
    shape = _checked_shape(tensor.get("shape"), schema.input, bounds)
    size = _parameter(tensor, "binary_data_size")
    if size is not None:
        values = _binary_values(tensor, tail, size, shape)
    elif tail:
        raise InvalidInferenceRequestError(
            f"Expected 'binary_data_size' for the {len(tail)} bytes after the JSON header, got no such parameter"
        )
    else:
        values = _json_values(tensor.get("data"), shape)
    if not np.isfinite(values).all():
        raise InvalidInferenceRequestError(
            f"Expected finite float32 numbers in input {schema.input.name!r}, got NaN, infinity or an overflow",
            hint="Impute or drop missing samples before inference.",
        )
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise InvalidInferenceRequestError(f"Expected a text as 'id', got {type(request_id).__name__}")
    return InferenceRequest(request_id, values, _wants_binary(document, schema.output))


def encode_response(
    request: InferenceRequest, outputs: NDArray[np.float32], schema: ServedSchema
) -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON part when raw bytes follow it."""
    tensor: Json = {"name": schema.output.name, "datatype": DATATYPE, "shape": list(outputs.shape)}
    answer: Json = {"model_name": schema.model_name, "model_version": schema.model_version, "outputs": [tensor]}
    if request.id is not None:
        answer["id"] = request.id
    if request.wants_binary:
        raw = outputs.astype(_FLOAT32, copy=False).tobytes()
        tensor["parameters"] = {"binary_data_size": len(raw)}
        head = orjson.dumps(answer)
        return head + raw, len(head)
    tensor["data"] = outputs.ravel()
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), None


def _tensor_metadata(tensor: TensorSchema) -> Json:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}


def _split(body: bytes, header_bytes: int) -> tuple[bytes, bytes]:
    if not 0 < header_bytes <= len(body):
        raise InvalidInferenceRequestError(
            f"Expected an Inference-Header-Content-Length of 1 to {len(body)} (the body's length), got {header_bytes}"
        )
    return body[:header_bytes], body[header_bytes:]


def _json_object(raw: bytes) -> Json:
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidInferenceRequestError(f"Expected a JSON object as body, got something else: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInferenceRequestError(f"Expected a JSON object as body, got {type(document).__name__}")
    return document


def _only_input(document: Json, schema: TensorSchema) -> Json:
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        got = f"{len(inputs)} entries" if isinstance(inputs, list) else type(inputs).__name__
        raise InvalidInferenceRequestError(f"Expected 'inputs' as a list of one tensor {schema.name!r}, got {got}")
    tensor: Json = inputs[0]
    if tensor.get("name") != schema.name:
        raise InvalidInferenceRequestError(f"Expected input {schema.name!r}, got {_shown(tensor.get('name'))}")
    if tensor.get("datatype") != DATATYPE:
        raise InvalidInferenceRequestError(f"Expected datatype {DATATYPE!r}, got {_shown(tensor.get('datatype'))}")
    return tensor


def _checked_shape(shape: object, schema: TensorSchema, bounds: Bounds) -> tuple[int, ...]:
    example = schema.shape[1:]
    wanted = [f"1..{bounds.batch_max}", *example]
    is_shape = isinstance(shape, list) and all(type(length) is int for length in shape)
    if not is_shape or shape[1:] != example or not 1 <= shape[0] <= bounds.batch_max:  # type: ignore[index]  # checked
        raise InvalidInferenceRequestError(f"Expected shape [{', '.join(map(str, wanted))}], got {_shown(shape)}")
    return tuple(shape)  # type: ignore[arg-type]  # a list of int, checked above


def _binary_values(tensor: Json, tail: bytes, size: object, shape: tuple[int, ...]) -> Inputs:
    expected = _FLOAT32.itemsize * math.prod(shape)
    if type(size) is not int or size != expected or len(tail) != expected:
        raise InvalidInferenceRequestError(
            f"Expected {expected} bytes of float32 for shape {list(shape)}, got binary_data_size {_shown(size)} "
            f"and {len(tail)} bytes after the JSON header"
        )
    if "data" in tensor:
        raise InvalidInferenceRequestError("Expected either 'data' or 'binary_data_size', got both")
    return np.frombuffer(tail, _FLOAT32).reshape(shape)


def _json_values(data: object, shape: tuple[int, ...]) -> Inputs:
    if not isinstance(data, list):
        raise InvalidInferenceRequestError(f"Expected 'data' as a list of numbers, got {type(data).__name__}")
    try:
        # numpy guesses the type and converts in a second step: half the time of asking for float32 at once.
        values = np.array(data)
    except ValueError:
        raise InvalidInferenceRequestError(
            "Expected 'data' as a flat or evenly nested list, got a ragged one"
        ) from None
    if values.dtype.kind not in "fiu":
        raise InvalidInferenceRequestError("Expected only numbers in 'data', got another type of value among them")
    if values.shape != shape and values.shape != (math.prod(shape),):
        raise InvalidInferenceRequestError(
            f"Expected {math.prod(shape)} numbers for shape {list(shape)}, flat or nested like it, "
            f"got a list of shape {list(values.shape)}"
        )
    with np.errstate(over="ignore"):  # an overflow becomes infinity, which is refused with a sentence of its own
        return values.astype(np.float32).reshape(shape)


def _wants_binary(document: Json, output: TensorSchema) -> bool:
    default = _parameter(document, "binary_data_output") is True
    wanted = document.get("outputs")
    if wanted is None:
        return default
    if not isinstance(wanted, list) or len(wanted) != 1 or not isinstance(wanted[0], dict):
        raise InvalidInferenceRequestError(f"Expected 'outputs' as a list of one output {output.name!r}")
    if wanted[0].get("name") != output.name:
        raise InvalidInferenceRequestError(f"Expected output {output.name!r}, got {_shown(wanted[0].get('name'))}")
    chosen = _parameter(wanted[0], "binary_data")
    return default if chosen is None else chosen is True


def _parameter(document: Json, name: str) -> object:
    parameters = document.get("parameters")
    if parameters is None:
        return None
    if not isinstance(parameters, dict):
        raise InvalidInferenceRequestError(f"Expected 'parameters' as an object, got {type(parameters).__name__}")
    return parameters.get(name)


def _shown(value: object) -> str:
    """A foreign value in an error, short whatever it is."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
