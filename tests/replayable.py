"""A user's module for the tests of replay: writers that fail, until their cause is mended, and a class of values."""

import os
from dataclasses import dataclass
from pathlib import Path

from lighter_async import Encoder, writer_registry

BROKEN = "REPLAYABLE_BROKEN"
"""Set while there is something wrong with the writers; in the environment, so that helper processes see it, too."""


def check(value):
    if os.environ.get(BROKEN) and "bad" in repr(value):
        raise ValueError(f"no way to write {value!r}")


def encode_picky(value):
    check(value)
    return repr(value).encode()


picky = Encoder(encode_picky, suffix=".picky")


class Formats:
    """Where a writer may be found, too."""

    picky = picky


def write_picky(path: Path, value):
    check(value)
    path.with_suffix(".out").write_text(repr(value))


async def write_picky_async(path: Path, value):
    write_picky(path, value)


def write_nothing(path):
    """Is no writer."""


def encode_other(value):
    """A mended writer that has another name."""
    return b"mended " + repr(value).encode()


other = Encoder(encode_other, suffix=".picky")


def encode_never(value):
    raise RuntimeError("never works")


never = Encoder(encode_never, suffix=".picky")


@dataclass
class Prediction:
    """A value of the user's own."""

    label: str
    score: float


if "replayable-picky" not in writer_registry._registry:
    writer_registry.register("replayable-picky")(picky)
