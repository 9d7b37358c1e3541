"""Which ONNX operator sets this device's runtime can serve: asked of the runtime, by a model of one node.

ONNX Runtime has no function that says it; listing its operator schemas would say it for 11 MB that never come back.
The model is written as protobuf bytes by hand, because the package onnx has no business on a device.
"""

import functools

OPSET_FIRST = 13
OPSET_LAST = 64
IR_VERSION = 8
_Field = tuple[int, "int | bytes"]


@functools.cache
def opset_max() -> int:
    """Newest opset that the runtime loads a model of; it does not change while a process lives."""
    newest = OPSET_FIRST
    while newest < OPSET_LAST and _loads(newest + 1):
        newest += 1
    return newest


def _loads(opset: int) -> bool:
    # 20 MB: only a serving agent pays for it.
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(identity_model(opset), options, providers=["CPUExecutionProvider"])
    except Exception:  # ONNX Runtime's classes share no base below Exception; whichever came, it does not load
        return False
    return True


def identity_model(opset: int) -> bytes:
    """`y = Identity(x)` for one float, as a serialized ModelProto (fields by number, as in onnx.proto)."""
    dimension = _message((1, 1))
    tensor_type = _message((1, 1), (2, _message((1, dimension))))
    values = {name: _message((1, name), (2, _message((1, tensor_type)))) for name in (b"x", b"y")}
    node = _message((1, b"x"), (2, b"y"), (4, b"Identity"))
    graph = _message((1, node), (2, b"g"), (11, values[b"x"]), (12, values[b"y"]))
    return _message((1, IR_VERSION), (7, graph), (8, _message((1, b""), (2, opset))))


def _message(*fields: _Field) -> bytes:
    """Protobuf: numbers as varints, everything else with its length (all below 128 bytes or two varint bytes)."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(_varint(number << 3) + _varint(value))
        else:
            parts.append(_varint(number << 3 | 2) + _varint(len(value)) + value)
    return b"".join(parts)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
