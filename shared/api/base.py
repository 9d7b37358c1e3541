"""What every HTTP shape has in common."""

from pydantic import BaseModel, ConfigDict


class Shape(BaseModel):
    """A frozen value of the HTTP API; unknown fields of a newer coordinator are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Problem(Shape):
    """Body of every error answer: stable code, one sentence, and what to do about it."""

    code: str
    message: str
    hint: str = ""
