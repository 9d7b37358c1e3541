"""Forward and backward passes written by hand, for all clients of a block at once."""
