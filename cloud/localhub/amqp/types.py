"""AMQP 1.0's types to bytes and back. Pure.

Follows the OASIS standard of 29 October 2012, part 1; section numbers stand beside the rules. What was decoded encodes
to the same value: integers keep their width in a type of their own, and a plain `int` is a long. Decimals and
characters are not read, because nothing of Event Hubs has them.
"""

import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cloud.localhub.errors import AmqpError

_DEPTH_MAX = 16


class Ubyte(int):
    """0 to 255."""


class Ushort(int):
    """0 to 65,535."""


class Uint(int):
    """Below 2^32."""


class Ulong(int):
    """Below 2^64."""


class Byte(int):
    """8 bits, with a sign."""


class Short(int):
    """16 bits, with a sign."""


class Int(int):
    """32 bits, with a sign."""


class Timestamp(int):
    """Milliseconds since the epoch."""


class Symbol(str):
    """A name of the protocol, in ASCII."""

    __slots__ = ()


@dataclass(frozen=True)
class Described:
    """A value with the descriptor that says what it is."""

    descriptor: "Value"
    value: "Value"


@dataclass(frozen=True)
class Array:
    """Values of one type. Only arrays of texts and symbols are made here."""

    items: tuple["Value", ...]


Value = None | bool | int | float | str | bytes | uuid.UUID | Described | Array | list["Value"] | dict["Value", "Value"]

# Decoding. Each constructor is a byte (1.2); the first hexadecimal digit says how wide the value is.

_CONSTANTS: Mapping[int, Callable[[], Value]] = {
    0x40: lambda: None,
    0x41: lambda: True,
    0x42: lambda: False,
    0x43: lambda: Uint(0),
    0x44: lambda: Ulong(0),
    0x45: list,
}
_FIXED: Mapping[int, tuple[struct.Struct, Callable[..., Value]]] = {
    0x50: (struct.Struct("!B"), Ubyte),
    0x51: (struct.Struct("!b"), Byte),
    0x52: (struct.Struct("!B"), Uint),
    0x53: (struct.Struct("!B"), Ulong),
    0x54: (struct.Struct("!b"), Int),
    0x55: (struct.Struct("!b"), int),
    0x56: (struct.Struct("!B"), bool),
    0x60: (struct.Struct("!H"), Ushort),
    0x61: (struct.Struct("!h"), Short),
    0x70: (struct.Struct("!I"), Uint),
    0x71: (struct.Struct("!i"), Int),
    0x72: (struct.Struct("!f"), float),
    0x80: (struct.Struct("!Q"), Ulong),
    0x81: (struct.Struct("!q"), int),
    0x82: (struct.Struct("!d"), float),
    0x83: (struct.Struct("!q"), Timestamp),
    0x98: (struct.Struct("!16s"), lambda data: uuid.UUID(bytes=data)),
}
_TEXTS: Mapping[int, Callable[[bytes], Value]] = {
    0xA0: bytes,
    0xA1: bytes.decode,
    0xA3: lambda data: Symbol(data.decode("ascii")),
}


class Reader:
    """Takes values off bytes; each raises AmqpError where they end too early or make no sense."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def rest(self) -> bytes:
        return self._take(self.left)

    def value(self) -> Value:
        try:
            return self._value(self._byte(), _DEPTH_MAX)
        except UnicodeDecodeError as error:
            raise AmqpError("Expected texts in UTF-8 and symbols in ASCII, got other bytes") from error

    def _value(self, code: int, depth: int) -> Value:
        if depth == 0:
            raise AmqpError(f"Expected values nested at most {_DEPTH_MAX} deep, got more")
        if code == 0x00:
            descriptor = self._value(self._byte(), depth - 1)
            return Described(descriptor, self._value(self._byte(), depth - 1))
        if code in _CONSTANTS:
            return _CONSTANTS[code]()
        if code in _FIXED:
            form, make = _FIXED[code]
            return make(form.unpack(self._take(form.size))[0])
        kind, width = code & 0xEF, 4 if code & 0x10 else 1
        if kind in _TEXTS:
            return _TEXTS[kind](self._take(self._size(width)))
        if kind in (0xC0, 0xC1):
            return self._compound(kind, width, depth)
        if kind == 0xE0:
            return self._array(width, depth)
        raise AmqpError(f"Expected a type of AMQP, got constructor {code:#04x}")

    def _compound(self, kind: int, width: int, depth: int) -> Value:
        part, count = self._part(width)
        # Each item has at least a byte of its own, so this bounds the loop.
        items = [part._value(part._byte(), depth - 1) for _ in range(count)]
        if kind == 0xC0:
            return items
        if count % 2:
            raise AmqpError(f"Expected a map with a value for each key, got {count} items")
        return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}

    def _array(self, width: int, depth: int) -> Value:
        part, count = self._part(width)
        code = part._byte()
        if code in _CONSTANTS or count > part.left:
            raise AmqpError(f"Expected an array whose {count} items have bytes, got none for them")
        return Array(tuple(part._value(code, depth - 1) for _ in range(count)))

    def _part(self, width: int) -> tuple["Reader", int]:
        """The bytes of a compound value, and the number of its items."""
        part = Reader(self._take(self._size(width)))
        return part, part._size(width)

    def _size(self, width: int) -> int:
        return int.from_bytes(self._take(width), "big")

    def _byte(self) -> int:
        return self._take(1)[0]

    def _take(self, size: int) -> bytes:
        if size > self.left:
            raise AmqpError(f"Expected {size} more bytes in the frame, got {self.left}")
        self._at += size
        return self._data[self._at - size : self._at]


def _key(value: Value) -> Value:
    if isinstance(value, list | dict | Described | Array):
        raise AmqpError(f"Expected a map with simple keys, got a {type(value).__name__}")
    return value


# Encoding. The most derived type decides, so `bool` and the widths stand before `int`.

_NUMBERS: Mapping[type, tuple[int, struct.Struct]] = {
    Ubyte: (0x50, struct.Struct("!B")),
    Byte: (0x51, struct.Struct("!b")),
    Ushort: (0x60, struct.Struct("!H")),
    Short: (0x61, struct.Struct("!h")),
    Uint: (0x70, struct.Struct("!I")),
    Int: (0x71, struct.Struct("!i")),
    Ulong: (0x80, struct.Struct("!Q")),
    Timestamp: (0x83, struct.Struct("!q")),
    int: (0x81, struct.Struct("!q")),
    float: (0x82, struct.Struct("!d")),
}


def encode(value: Value) -> bytes:
    """The value's bytes, constructor included."""
    match value:
        case None:
            return b"\x40"
        case bool():
            return b"\x41" if value else b"\x42"
        case Ulong() if value < 256:
            return bytes((0x53, value))  # Readers count on this form for descriptors.
        case int() | float():
            code, form = _NUMBERS[type(value)]
            return bytes((code,)) + form.pack(value)
        case Symbol():
            return _sized(0xA3, value.encode("ascii"))
        case str():
            return _sized(0xA1, value.encode())
        case bytes():
            return _sized(0xA0, value)
        case uuid.UUID():
            return b"\x98" + value.bytes
        case Described(descriptor, inner):
            return b"\x00" + encode(descriptor) + encode(inner)
        case Array(items):
            return _array_of_texts(items)
        case list():
            return _compound(0xD0, [encode(item) for item in value])
        case dict():
            return _compound(0xD1, [encode(part) for item in value.items() for part in item])


def _sized(code: int, data: bytes) -> bytes:
    if len(data) < 256:
        return bytes((code, len(data))) + data
    return bytes((code | 0x10,)) + len(data).to_bytes(4, "big") + data


def _compound(code: int, items: Sequence[bytes]) -> bytes:
    body = len(items).to_bytes(4, "big") + b"".join(items)
    return bytes((code,)) + len(body).to_bytes(4, "big") + body


def _array_of_texts(items: Sequence[Value]) -> bytes:
    texts = [item for item in items if isinstance(item, str)]
    if len(texts) != len(items) or len({type(item) for item in items}) > 1:
        raise TypeError("Expected an array of texts alone, or of symbols alone")
    code = 0xB3 if texts and isinstance(texts[0], Symbol) else 0xB1
    body = b"".join(len(data).to_bytes(4, "big") + data for data in (text.encode() for text in texts))
    body = len(items).to_bytes(4, "big") + bytes((code,)) + body
    return b"\xf0" + len(body).to_bytes(4, "big") + body
