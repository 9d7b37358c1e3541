"""Tables of who may speak to the coordinator: operators by token, devices by enrolment token."""

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel


class OperatorToken(SQLModel, table=True):
    """A token of an operator, by its hash."""

    __tablename__ = "operator_token"

    token_hash: str = Field(primary_key=True)
    principal: str
    role: str
    created_at: float


class EnrolmentTokenRecord(SQLModel, table=True):
    """A one-time token. Used once `used_at` is set, and then only ever for the same device and key."""

    __tablename__ = "enrolment_token"

    token_id: str = Field(primary_key=True)
    secret_hash: str = Field(index=True, unique=True)
    device_id: str | None = None
    """Only this device, where given."""
    tags: dict[str, str] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    created_at: float
    expires_at: float
    created_by_principal: str
    created_by_role: str
    used_at: float | None = None
    used_by_device_id: str | None = None
    used_by_key: str | None = None
    """Fingerprint of the public key in the certificate request that used it."""
