"""Ids as people type them: the whole, or enough of its beginning or end. Pure."""

from collections.abc import Sequence

from shared.errors import FleetlearnError

PART_LENGTH_MIN = 4


class AmbiguousIdError(FleetlearnError):
    """A part of an id that fits several."""

    code = "ambiguous_id"


def resolve(given: str, ids: Sequence[str]) -> str:
    """The one id that this begins or ends; what fits none comes back unchanged, and the coordinator says so.

    Raises AmbiguousIdError when it fits several.
    """
    part = given.strip().removeprefix("…")
    if part in ids or len(part) < PART_LENGTH_MIN:
        return part
    found = [known for known in ids if known.startswith(part) or known.endswith(part)]
    if len(found) > 1:
        raise AmbiguousIdError(
            f"Expected one id, got {part!r}, which fits {len(found)}: {', '.join(found[:4])}",
            hint="Type more of it.",
        )
    return found[0] if found else part
