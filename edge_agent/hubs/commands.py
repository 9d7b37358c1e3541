"""What every adapter does with a command: the handler's reply, or the one that says why there is none."""

import json

import structlog

from shared.hub.port import COMMAND_BYTES_MAX, CommandHandler, CommandReply

COMMANDS_MAX = 16
"""Commands under way at a time; further ones are answered with 429."""
BUSY = CommandReply(429, {"error": "busy"})
_log = structlog.get_logger("hub")


async def handled(handler: CommandHandler, name: str, payload: object) -> CommandReply:
    """A reply that can be sent, whatever the handler did."""
    try:
        reply = await handler(name, payload)
        size = len(json.dumps(reply.payload).encode())
    except Exception:
        # A mistake in a handler must not take the connection with it; the caller sees a 500.
        _log.exception("command_failed", command=name)
        return CommandReply(500, {"error": "the command failed on the device"})
    if size > COMMAND_BYTES_MAX:
        return CommandReply(500, {"error": f"the reply has {size} bytes, more than {COMMAND_BYTES_MAX}"})
    return reply
