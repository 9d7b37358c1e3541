"""Persistent worker processes, forked, with tensors handed over through shared memory."""
