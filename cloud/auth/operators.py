"""Operators prove themselves with a bearer token; the coordinator keeps only its hash.

The first token is made at the first start and written to a file that its owner alone can read.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlmodel import Session

from cloud.auth.models import OperatorToken
from cloud.db import SessionFactory
from cloud.dependencies import services
from cloud.errors import UnauthenticatedError
from cloud.services import Services
from shared.files import write_atomically

FIRST_PRINCIPAL = "operator"
FIRST_ROLE = "admin"
_bearer = HTTPBearer(auto_error=False, description="The operator's token: the content of operator.token")


class InvalidOperatorTokenError(UnauthenticatedError):
    """No operator token, or one that the coordinator does not know."""

    code = "invalid_operator_token"


@dataclass(frozen=True)
class Principal:
    """Who acts, and in which role; tables and the audit log carry both."""

    name: str
    role: str


def require_operator(
    services: Annotated[Services, Depends(services)],
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Principal:
    """The operator who sent this request. Raises InvalidOperatorTokenError."""
    if credentials is None:
        raise InvalidOperatorTokenError(
            "Expected an operator token in the header 'Authorization: Bearer ...', got none",
            hint="`fleetlearn up` writes it to operator.token in the data folder.",
        )
    with services.sessions() as session, session.begin():
        return principal_of(session, token=credentials.credentials)


def principal_of(session: Session, *, token: str) -> Principal:
    """Whose token this is. Raises InvalidOperatorTokenError, without repeating it."""
    digest = hash_token(token)
    row = session.get(OperatorToken, digest)
    if row is None or not hmac.compare_digest(row.token_hash, digest):
        raise InvalidOperatorTokenError("Expected a known operator token, got another one")
    return Principal(row.principal, row.role)


def ensure_first_token(sessions: SessionFactory, path: Path, *, now: float) -> None:
    """Makes the token's file where there is none, and lets the file's token in. Starting twice does no harm."""
    if not path.exists():
        write_atomically(path, f"{secrets.token_urlsafe(32)}\n".encode(), mode=0o600)
    digest = hash_token(path.read_text(encoding="utf-8").strip())
    with sessions() as session, session.begin():
        if session.get(OperatorToken, digest) is None:
            row = OperatorToken(token_hash=digest, principal=FIRST_PRINCIPAL, role=FIRST_ROLE, created_at=now)
            session.add(row)


def hash_token(token: str) -> str:
    """SHA-256: enough for a token of 256 random bits, which nobody can guess from a dictionary."""
    return hashlib.sha256(token.encode()).hexdigest()
