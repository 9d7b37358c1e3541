"""What every wire message has in common, and the one error for bytes that are not one."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import FleetlearnError
from shared.ids import Digest


class MalformedMessageError(FleetlearnError):
    """Bytes that are not the message they should be; the receiver rejects and counts them."""

    code = "malformed_message"


class Message(BaseModel):
    """A frozen value of the wire; fields of newer versions are kept, so that old and new programs live together."""

    model_config = ConfigDict(frozen=True, extra="allow")

    def encode(self) -> bytes:
        """Compact JSON, UTF-8."""
        return self.model_dump_json().encode()

    @classmethod
    def parse(cls, payload: bytes | str) -> Self:
        """The message in these bytes. Raises MalformedMessageError, never anything else."""
        try:
            return cls.model_validate_json(payload)
        except (ValidationError, RecursionError) as error:
            raise MalformedMessageError(f"Expected a {cls.__name__}: {_first_problem(error)}") from error

    @classmethod
    def parse_document(cls, document: object) -> Self:
        """The message in a JSON value. Raises MalformedMessageError, never anything else."""
        try:
            return cls.model_validate(document)
        except (ValidationError, RecursionError) as error:
            raise MalformedMessageError(f"Expected a {cls.__name__}: {_first_problem(error)}") from error


def _first_problem(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return "nested too deeply"
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the document"
    return f"{where}: {first['msg']}"


class ObjectRef(Message):
    """Bytes beside the hub: content-addressed, fetched and sent over HTTPS."""

    digest: Digest = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256."""
    size_bytes: int = Field(ge=0)
