"""What a device can compress with, and what it is asked for: the campaign's wish, or what comes nearest.

A codec is a part of a compression: what travels, or how each number is written (`settings`). A device names those it
knows; a part that a later version brings is one more name, which older devices do not say.
"""

from collections.abc import Collection

from shared.compression.settings import Compression, Number, Travels

CODECS: tuple[str, ...] = (*(part.value for part in Travels), *(part.value for part in Number))
"""What this version of the program knows."""
_FINER = (Number.INT4, Number.INT8, Number.FLOAT16, Number.FLOAT32)
"""Each writes a number more exactly than the one before, in more bits."""


def unknown_codecs(words: str, known: Collection[str]) -> tuple[str, ...]:
    """The parts of a compression that are not known, in order. Whoever says nothing is taken to know all."""
    if not words or not known:
        return ()
    wanted = Compression.parse(words)
    return tuple(part for part in (wanted.travels.value, wanted.number.value) if part not in known)


def agreed(words: str, known: Collection[str]) -> str:
    """The compression to ask a device for, in words; empty: the update in full.

    It loses no more than what was wanted: numbers that the device cannot write so are written finer, and where it
    cannot choose which numbers travel, all do. A device that says nothing is of before there was a choice, and is asked
    for what is wanted: it sends in full by itself what it does not know.

    Args:
        words: What is wanted, as `Compression.parse` reads it.
        known: Codecs that the device says it has.
    """
    if not unknown_codecs(words, known):
        return words
    wanted = Compression.parse(words)
    finer = (number for number in _FINER[_FINER.index(wanted.number) :] if number in known)
    number = next(finer, Number.FLOAT32)
    chosen = wanted.model_copy(update={"number": number}) if wanted.travels in known else Compression(number=number)
    return "" if chosen.is_lossless else str(chosen)
