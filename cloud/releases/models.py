"""The table of releases."""

from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel


class ReleaseRow(SQLModel, table=True):
    """A packaged model version; after publication nothing of it changes."""

    __tablename__ = "release"

    release_id: str = Field(primary_key=True)
    origin: str = Field(unique=True)
    """What made it, such as `package:<job id>`; one origin makes one release, however often it is run again."""
    task: str = Field(index=True)
    stage: str
    model_version_id: str = Field(index=True)
    manifest: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    """`Manifest`. `Any`: JSON."""
    manifest_object: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    """`ObjectRef` of the manifest's exact bytes, which are signed; the other files are named in it. `Any`: JSON."""
    created_at: float = Field(index=True)
    published_at: float | None = None
    created_by_principal: str
    created_by_role: str
    published_by_principal: str = ""
    published_by_role: str = ""
