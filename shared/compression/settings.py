"""Which compression, as a value: which numbers travel, how each is written, and whether what was lost is made up for.

Two choices that combine freely. *What travels*: all numbers, the largest few (`top-k`), a random few (`random-k`), or
two thin factors of each large layer (`low-rank`). *How each is written*: float32, float16, int8 or int4. Files and
campaigns say it in words, or field by field:

    int8                        every number, 8 bits
    top-k=0.01+int8             the largest hundredth, 8 bits each
    low-rank=4                  rank 4 factors of large layers, all else as it is
    random-k=0.05+no-feedback   unbiased, and without memory

Light: no torch, so that an API can check what it is asked for.
"""

from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shared.compression.errors import UnknownCompressionError

WORDS_MAX = 80
"""Most characters of a compression in words."""
_HINT = "For example: int8, int4, top-k=0.01+int8, random-k=0.05, low-rank=4+float16."


class Travels(StrEnum):
    ALL = "all"
    TOP_K = "top-k"
    RANDOM_K = "random-k"
    LOW_RANK = "low-rank"


class Number(StrEnum):
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    INT4 = "int4"


class Compression(BaseModel):
    """One compression. `Compression()` leaves everything as it is.

    Example:
        >>> str(Compression.parse("int8+top-k=0.01")), Compression.parse("top-k=0.01").has_feedback
        ('top-k=0.01+int8', True)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    travels: Travels = Travels.ALL
    fraction: float | None = Field(default=None, gt=0, le=1)
    """Of all numbers, how many travel; for `top-k` and `random-k` alone."""
    rank: int | None = Field(default=None, ge=1, le=1024)
    """For `low-rank` alone."""
    number: Number = Number.FLOAT32
    feedback: bool | None = None
    """Error feedback: what did not travel is added to the next update. None: wherever some numbers do not travel."""

    @classmethod
    def parse(cls, words: str) -> Self:
        """The compression these words name, parts in any order. Raises UnknownCompressionError."""
        try:
            return cls.model_validate(words)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]["msg"]
            raise UnknownCompressionError(
                f"Expected a compression, got {words[:WORDS_MAX]!r}: {problem}", hint=_HINT
            ) from error

    @property
    def has_feedback(self) -> bool:
        """Whether the sender keeps what did not travel. Stochastic rounding is unbiased and can do without."""
        return self.travels is not Travels.ALL if self.feedback is None else self.feedback

    @property
    def is_lossless(self) -> bool:
        return self.travels is Travels.ALL and self.number is Number.FLOAT32

    def numbers_of(self, parameters: int) -> int:
        """How many of so many numbers travel, at least one; a low rank's factors are counted by their layers."""
        return max(1, round((self.fraction or 1.0) * parameters))

    @property
    def wire_name(self) -> str:
        """What a receiver must know; feedback is the sender's own business."""
        value = self.fraction if self.rank is None else self.rank
        parts = [] if value is None else [f"{self.travels.value}={value!r}"]
        if not parts or self.number is not Number.FLOAT32:
            parts.append(self.number.value)
        return "+".join(parts)

    def __str__(self) -> str:
        words = {None: "", True: "+feedback", False: "+no-feedback"}[self.feedback]
        return self.wire_name + words

    @model_validator(mode="before")
    @classmethod
    def _from_words(cls, value: Any) -> Any:  # Any: whatever a file or a caller brings
        return _fields(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        is_sparse = self.travels in (Travels.TOP_K, Travels.RANDOM_K)
        if (self.fraction is None) == is_sparse:
            raise ValueError(f"{self.travels.value} takes {'a' if is_sparse else 'no'} fraction")
        is_low_rank = self.travels is Travels.LOW_RANK
        if (self.rank is None) == is_low_rank:
            raise ValueError(f"{self.travels.value} takes {'a' if is_low_rank else 'no'} rank")
        return self


def _fields(words: str) -> dict[str, object]:
    """The fields these words set. Raises ValueError, which pydantic reports."""
    if len(words) > WORDS_MAX:
        raise ValueError(f"at most {WORDS_MAX} characters")
    fields: dict[str, object] = {}
    for part in words.split("+"):
        for name, value in _part(part.strip()).items():
            if name in fields:
                raise ValueError(f"{part.strip()!r} says again what was said before")
            fields[name] = value
    return fields


def _part(part: str) -> dict[str, object]:
    name, has_value, value = part.partition("=")
    if name in ("feedback", "no-feedback") and not has_value:
        return {"feedback": name == "feedback"}
    if name in list(Number) and not has_value:
        return {"number": name}
    if name in (Travels.TOP_K, Travels.RANDOM_K) and has_value:
        return {"travels": name, "fraction": float(value)}
    if name == Travels.LOW_RANK and has_value:
        return {"travels": name, "rank": int(value)}
    raise ValueError(f"{part!r} is not a part of one")
