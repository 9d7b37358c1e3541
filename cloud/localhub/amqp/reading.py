"""Where a consumer reads: the partition that an address names, and the place in it that a filter asks for. Pure.

amqps://host/events/ConsumerGroups/$Default/Partitions/0
amqp.annotation.x-opt-sequence-number > '41'
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from cloud.localhub.errors import ServiceError, invalid_argument, partition_not_found
from cloud.localhub.policies import EVENTS_NAME

_ADDRESS = re.compile(
    r"(?:amqps?://[^/]{1,255})?/?(?P<name>[^/]{1,260})/ConsumerGroups/(?P<group>[^/]{1,80})/Partitions/(?P<number>\d{1,4})",
    re.IGNORECASE,
)
_SELECTOR = re.compile(
    r"amqp\.annotation\.x-opt-(?P<what>offset|sequence-number|enqueued-time) (?P<how>>=?) "
    r"'(?P<value>-?\d{1,19}|@latest)'"
)
_LATEST = "@latest"

Passed = Callable[[int, int, float], bool]
"""Whether a reader is past an event with this sequence number, offset and time in seconds."""


@dataclass(frozen=True)
class Place:
    """A partition, for a group."""

    group: str
    partition: int


def parse_address(address: str, *, partitions: int) -> Place:
    """Raises ServiceError."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise invalid_argument(f"Expected NAME/ConsumerGroups/GROUP/Partitions/N as the source, got {address[:120]!r}")
    if match["name"] != EVENTS_NAME:
        raise no_event_hub(match["name"])
    partition = int(match["number"])
    if partition >= partitions:
        raise partition_not_found(partition, partitions=partitions)
    return Place(match["group"], partition)


def parse_selector(selector: str) -> Passed | None:
    """What a reader is past when it begins, or None for everything that there is now. Raises ServiceError."""
    if not selector:
        return lambda number, offset, at: False
    match = _SELECTOR.fullmatch(selector)
    if match is None:
        raise invalid_argument(f"Expected a filter by offset, sequence number or time, got {selector[:120]!r}")
    if match["value"] == _LATEST:
        return None
    value, inclusive = int(match["value"]), match["how"] == ">="
    bound = value - 1 if inclusive else value
    match match["what"]:
        case "sequence-number":
            return lambda number, offset, at: number <= bound
        case "offset":
            return lambda number, offset, at: offset <= bound
        case _:
            return lambda number, offset, at: int(at * 1000) <= bound


def no_event_hub(name: str) -> ServiceError:
    """No such log."""
    return ServiceError(404, 404023, "NotFound", f"Expected the event hub {EVENTS_NAME!r}, got {name[:80]!r}")
