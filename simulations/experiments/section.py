"""What all parts of an experiment have in common: frozen, nothing unknown, no NaN; a name alone is a whole section."""

from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Section(BaseModel):
    """A part of an experiment."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _by(key: str, **others: str) -> BeforeValidator:
    def whole(value: Any) -> Any:  # whatever a file may hold; pydantic judges it next
        return {key: value, **others} if isinstance(value, str) else value

    return BeforeValidator(whole)


BY_NAME = _by("name")
"""`strategy = "fedavg"` for `strategy = { name = "fedavg" }`."""
BY_KIND = _by("kind")
"""`partition = "iid"` for `partition = { kind = "iid" }`."""
BY_TASK = _by("name", kind="task")
"""`data = "digits"` for `data = { kind = "task", name = "digits" }`."""
