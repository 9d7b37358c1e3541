"""Documents of the hub as values: merging a patch, and their bounded JSON form. Pure."""

import json
from collections.abc import Mapping
from typing import Any

from shared.hub.port import HubRefusedError


def merge(document: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """The document after the patch (RFC 7396): objects merge, `None` deletes, everything else replaces.

    Neither argument is changed.

    >>> merge({"a": 1, "b": {"c": 2, "d": 3}}, {"a": None, "b": {"c": 4}})
    {'b': {'c': 4, 'd': 3}}
    """
    merged = dict(document)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def over_the_wire(value: Any, *, bytes_max: int, name: str) -> Any:
    """The value as the other side parses it from JSON; a copy, so nobody shares it. Raises HubRefusedError."""
    try:
        encoded = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise HubRefusedError(f"Expected {name} as JSON, got: {error}") from error
    if len(encoded) > bytes_max:
        raise HubRefusedError(f"Expected {name} of at most {bytes_max} bytes, got {len(encoded)}")
    return json.loads(encoded)
