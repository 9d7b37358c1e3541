"""A message with an object's bytes behind it in one HTTP body: the message as one line of JSON, then the bytes.

What is small rides with the request or the answer that would name it, and saves a request of its own. What is larger
travels by itself, in parts that can be resumed.
"""

from shared.messages.base import MalformedMessageError, Message

CONTENT_TYPE = "application/vnd.fleetlearn.attached"
ATTACHED_BYTES_MAX = 256 * 1024
"""Largest object that rides with a message."""
_LINE_BYTES_MAX = 1 << 20


def attach(message: Message, content: bytes) -> bytes:
    """The body. JSON has no line feed of its own: the first one ends the message."""
    return b"\n".join((message.encode(), content))


def detach(body: bytes) -> tuple[bytes, bytes]:
    """The message's JSON, yet to be parsed, and the bytes behind it. Raises MalformedMessageError."""
    document, line_feed, content = body.partition(b"\n")
    if not line_feed or len(document) > _LINE_BYTES_MAX:
        raise MalformedMessageError("Expected a message in one line and an object behind it, got no such line")
    if len(content) > ATTACHED_BYTES_MAX:
        raise MalformedMessageError(
            f"Expected at most {ATTACHED_BYTES_MAX} bytes behind a message, got {len(content)}",
            hint="Larger objects travel by themselves.",
        )
    return document, content
