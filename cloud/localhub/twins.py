"""Device twins as values: merging, limits, versions, metadata, and the JSON forms. Pure.

A section (desired, reported, tags) is a JSON object. A patch merges into it, and `null` deletes. Limits and rules
are IoT Hub's: https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-device-twins
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cloud.localhub.errors import ServiceError, invalid_argument

SECTION_BYTES_MAX = 32 * 1024
TAGS_BYTES_MAX = 8 * 1024
VALUE_BYTES_MAX = 4 * 1024
KEY_BYTES_MAX = 1024
DEPTH_MAX = 10
INTEGER_MAX = 2**52

Json = dict[str, Any]
"""A JSON object. `Any`: the twin is the user's own document."""


@dataclass(frozen=True)
class Section:
    """One half of the properties, with its version and when each property changed."""

    document: Json = field(default_factory=dict)
    metadata: Json = field(default_factory=dict)
    version: int = 1

    def for_device(self) -> Json:
        return {**self.document, "$version": self.version}

    def for_service(self) -> Json:
        return {**self.document, "$metadata": self.metadata, "$version": self.version}


@dataclass(frozen=True)
class Twin:
    """A device's twin; `version` counts changes by the service, and makes the ETag."""

    tags: Json = field(default_factory=dict)
    desired: Section = field(default_factory=Section)
    reported: Section = field(default_factory=Section)
    version: int = 1

    def dumps(self) -> str:
        sections = {name: vars(section) for name, section in (("desired", self.desired), ("reported", self.reported))}
        return compact({"tags": self.tags, "version": self.version, **sections})

    @classmethod
    def loads(cls, text: str) -> "Twin":
        stored = json.loads(text)
        desired, reported = Section(**stored["desired"]), Section(**stored["reported"])
        return cls(stored["tags"], desired, reported, stored["version"])


def new_twin(now: str) -> Twin:
    """The twin of a fresh device."""
    section = Section(metadata={"$lastUpdated": now})
    return Twin(desired=section, reported=section)


def patch_tags(twin: Twin, patch: Json | None) -> Twin:
    """Merges into the tags; `None` deletes all of them. Raises ServiceError."""
    tags = {} if patch is None else merge(twin.tags, patch)
    check_section(tags, bytes_max=TAGS_BYTES_MAX, name="tags")
    return replace(twin, tags=tags)


def patch_section(section: Section, patch: Json, *, now: str, name: str) -> Section:
    """The section after the patch, one version later. Raises ServiceError where it breaks a limit."""
    document = merge(section.document, patch)
    check_section(document, bytes_max=SECTION_BYTES_MAX, name=name)
    version = section.version + 1
    metadata = _stamp(document, patch, section.metadata, {"$lastUpdated": now, "$lastUpdatedVersion": version})
    return Section(document, metadata, version)


def replace_section(section: Section, document: Json, *, now: str, name: str) -> Section:
    """The section holding exactly this document, one version later. Raises ServiceError."""
    return patch_section(Section({}, {}, section.version), document, now=now, name=name)


def merge(document: Mapping[str, Any], patch: Mapping[str, Any]) -> Json:
    """The document with the patch merged in: objects merge, `null` deletes, everything else replaces."""
    merged = dict(document)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def parse_patch(body: bytes, *, name: str) -> Json:
    """A patch from the wire. Raises ServiceError for what is no JSON object or nests too deep."""
    try:
        patch = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"Expected the {name} as JSON, got something else") from error
    return checked_object(patch, name=name)


def checked_object(patch: object, *, name: str) -> Json:
    """The value itself if it is an object of bounded depth without the hub's own `$` keys. Raises ServiceError."""
    if not isinstance(patch, dict):
        raise invalid_argument(f"Expected the {name} as a JSON object, got {type(patch).__name__}")
    kept = {key: value for key, value in patch.items() if key not in ("$version", "$metadata")}
    _check_depth(kept, name=name, depth=1)
    return kept


def parts_of(body: Mapping[str, Any]) -> Json:
    """The tags and desired properties of a twin's JSON, checked; the rest is ignored. Raises ServiceError."""
    parts: Json = {}
    if "tags" in body:
        tags = body["tags"]
        parts["tags"] = None if tags is None else checked_object(tags, name="tags")
    properties = body.get("properties") or {}
    if not isinstance(properties, dict):
        raise invalid_argument(f"Expected properties as a JSON object, got {type(properties).__name__}")
    if properties.get("desired") is not None:
        parts["desired"] = checked_object(properties["desired"], name="desired properties")
    return parts


def check_section(document: Json, *, bytes_max: int, name: str) -> None:
    """Raises ServiceError where the section breaks one of IoT Hub's limits."""
    _check_value(document, name=name)
    size = len(compact(document).encode())
    if size > bytes_max:
        raise ServiceError(413, 413001, "MessageTooLarge", f"Expected {name} of at most {bytes_max} bytes, got {size}")


def compact(value: object) -> str:
    """JSON without spaces, in UTF-8's own characters."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _check_depth(value: object, *, name: str, depth: int) -> None:
    if depth > DEPTH_MAX + 1:
        raise invalid_argument(f"Expected {name} at most {DEPTH_MAX} levels deep, got more")
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in below:
        _check_depth(child, name=name, depth=depth + 1)


def _check_value(value: object, *, name: str) -> None:
    match value:
        case dict():
            for key, child in value.items():
                _check_key(key, name=name)
                _check_value(child, name=f"{name}.{key}")
        case list():
            for child in value:
                if child is None:
                    raise invalid_argument(f"Expected no null inside the array {name[:200]}, got one")
                _check_value(child, name=name)
        case str() if len(value.encode("utf-8", "surrogatepass")) > VALUE_BYTES_MAX:
            raise invalid_argument(
                f"Expected at most {VALUE_BYTES_MAX} bytes in {name[:200]}, got {len(value)} characters"
            )
        case str() if not _is_unicode(value):
            raise invalid_argument(f"Expected whole Unicode characters in {name[:200]}, got half a surrogate pair")
        case float() if not math.isfinite(value):
            raise invalid_argument(f"Expected a number that JSON can write in {name[:200]}, got one beyond a double")
        case int() if abs(value) > INTEGER_MAX:
            raise invalid_argument(f"Expected a whole number within ±2^52 in {name[:200]}, got a larger one")


def _check_key(key: str, *, name: str) -> None:
    if not _is_unicode(key):
        raise invalid_argument(f"Expected whole Unicode characters in a key of {name[:200]}, got half a pair")
    if not 0 < len(key.encode()) <= KEY_BYTES_MAX:
        raise invalid_argument(
            f"Expected keys of 1 to {KEY_BYTES_MAX} bytes in {name[:200]}, got {len(key)} characters"
        )
    if any(character in ".$ " or ord(character) < 0x20 or 0x7F <= ord(character) <= 0x9F for character in key):
        raise invalid_argument(f"Expected keys without '.', '$', space and control characters, got {key[:80]!r}")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_constant(text: str) -> None:
    raise ValueError(f"Expected JSON, got {text}")


def _stamp(document: Json, patch: Json, old: Json, stamp: Json) -> Json:
    """The metadata after a patch: what the patch touched and still exists carries the new stamp."""
    metadata = {key: value for key, value in old.items() if key in document}
    for key, value in patch.items():
        if key in document:
            below = metadata.get(key, {})
            is_object = isinstance(value, dict) and isinstance(document[key], dict)
            metadata[key] = _stamp(document[key], value, below, stamp) if is_object else dict(stamp)
    return metadata | stamp


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> Json:
    """A patch that makes `old` into `new`: the new values, and `None` for what is gone."""
    patch: Json = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        patch[key] = difference(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return patch
