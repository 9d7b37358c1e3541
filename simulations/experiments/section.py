"""What all parts of an experiment have in common: frozen, nothing unknown, no NaN; a name alone is a whole section."""

from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Section(BaseModel):
    """A part of an experiment."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def short(key: str, **others: str) -> BeforeValidator:
    """A text stands for a section with that text at `key`; what a section leaves out of `others` is filled in.

    `short("name", name="sgd")` reads `"adam"` as `{"name": "adam"}`, and `{"momentum": 0.9}` as sgd's.
    """

    def whole(value: Any) -> Any:  # whatever a file may hold; pydantic judges it next
        if isinstance(value, str):
            return {**others, key: value}
        return {**others, **value} if isinstance(value, dict) else value

    return BeforeValidator(whole)
