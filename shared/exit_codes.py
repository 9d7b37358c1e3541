"""Exit codes of every command: stable, for service managers and scripts. Listed in docs/reference/exit_codes.md."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a process tells its parent when it ends."""

    OK = 0
    FAILED = 1
    """The command was understood and did not succeed; standard error says why in one line."""
    USAGE = 2
    """The command line was not understood."""
    NOT_ENROLLED = 20
    """The agent has no identity yet: `fleetlearn agent enrol`."""
    REVOKED = 21
    """The coordinator no longer accepts this device; starting again does not help."""
    ALREADY_RUNNING = 22
    """Another process already uses this state directory."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C, cleanly."""
