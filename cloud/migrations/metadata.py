"""All tables of the coordinator; a new domain's models are named here and nowhere else."""

from importlib import import_module

from sqlalchemy import MetaData
from sqlmodel import SQLModel

_MODELS = (
    "cloud.auth.models",
    "cloud.campaigns.flower.models",
    "cloud.campaigns.models",
    "cloud.devices.models",
    "cloud.events.models",
    "cloud.governance.models",
    "cloud.hubs.mqtt.models",
    "cloud.jobs.models",
    "cloud.monitoring.models",
    "cloud.registry.models",
    "cloud.releases.models",
    "cloud.rollouts.models",
    "cloud.work.models",
)


def metadata() -> MetaData:
    """Every table that this version of the coordinator uses."""
    for name in _MODELS:
        import_module(name)
    return SQLModel.metadata
