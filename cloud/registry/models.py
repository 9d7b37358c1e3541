"""The table of model versions."""

from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel


class ModelVersionRow(SQLModel, table=True):
    """An entry of the registry; only its stage ever changes."""

    __tablename__ = "model_version"

    model_version_id: str = Field(primary_key=True)
    origin: str = Field(unique=True)
    """What made it, such as `campaign:<id>`; one origin makes one version, however often it is run again."""
    task: str = Field(index=True)
    task_version: str
    stage: str
    weights: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    """`ObjectRef`. `Any`: JSON."""
    metrics: dict[str, float] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    lineage: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    """`Any`: JSON."""
    created_at: float = Field(index=True)
    created_by_principal: str
    created_by_role: str
