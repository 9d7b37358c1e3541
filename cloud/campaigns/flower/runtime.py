"""Makes Flower usable in this process: quiet, without telemetry, and with the identity its messages ask for."""

import hashlib
import logging
import os
import warnings

SERVER_NODE_ID = 1
"""Flower's own number for the server's end."""


def run_id_of(campaign_id: str) -> int:
    """The campaign's number in Flower: stable, 63 bits."""
    return int.from_bytes(hashlib.sha256(campaign_id.encode()).digest()[:8], "big") >> 1


def prepare_flower(campaign_id: str) -> None:
    """Loads Flower and makes this process the server of the campaign; call before importing what subclasses it.

    Side effects: environment variables that switch off Flower's telemetry and update check, the level of its logger,
    and its process-wide identity; so one process serves one campaign at a time.
    """
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
    with warnings.catch_warnings():
        # flwr loads typer, and some versions of typer use names that click has deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        from flwr.supercore.task_identity import TaskIdentity
    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.run_id = run_id_of(campaign_id)
    TaskIdentity.node_id = SERVER_NODE_ID
    TaskIdentity.task_id = 0
