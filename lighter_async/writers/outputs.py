"""Several outputs of one sample, such as a mask and its logits, each with an encoder of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from lighter_async.errors import shown
from lighter_async.limits import MOST_OUTPUTS
from lighter_async.writers.base import Encoder, PathFunction

__all__ = ["Output", "Outputs", "Writer", "first_series", "is_built_in", "key_of_output", "outputs_of"]

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Output:
    """One of the things that are stored of each sample.

    Attributes:
        key: Its key in the value of a sample; None if the value itself is the only output.
        encoder: Turns it into bytes.
        suffix: What follows the sample's name in the file's name.
    """

    key: str | None
    encoder: Encoder
    suffix: str


class Outputs:
    """A writer that stores several outputs of each sample, all of them or none.

    The value of a sample is a dict with a value for each output. The output ``"mask"`` of the sample ``"a"``, in PNG,
    is the file ``a.mask.png``.

    Args:
        encoders: An encoder for each key. Keys are ASCII letters, digits, ``_`` and ``-``, since they become a part of
            file names.

    Raises:
        ValueError: There is no output, there are more than 64, or a key cannot be a part of a file name.
    """

    def __init__(self, encoders: Mapping[str, Encoder]) -> None:
        if not encoders:
            raise ValueError("a writer of several outputs needs at least one, as in {'mask': 'image_2d'}")
        if len(encoders) > MOST_OUTPUTS:
            raise ValueError(
                f"a writer has at most {MOST_OUTPUTS} outputs, not {len(encoders)}; store some of them together, as a "
                "dict of tensors in the format 'tensor'"
            )
        for key in encoders:
            if not isinstance(key, str) or not _KEY.fullmatch(key):
                raise ValueError(
                    f"output {shown(key)} cannot be a part of a file name; take at most 64 ASCII letters, digits, '_' "
                    "and '-'"
                )
        encoders = {str.__str__(key): encoder for key, encoder in encoders.items()}  # of an enum's member the value
        lowered = {key.lower() for key in encoders}
        if len(lowered) < len(encoders):
            raise ValueError(f"outputs {', '.join(map(repr, encoders))} differ in case alone, and so would files")
        self.outputs = tuple(Output(key, encoder, f".{key}{encoder.suffix}") for key, encoder in encoders.items())
        self.name = ",".join(f"{one.key}={one.encoder.name}" for one in self.outputs)

    def __repr__(self) -> str:
        return f"<outputs {self.name}>"


Writer: TypeAlias = Encoder | PathFunction | Outputs


def outputs_of(writer: Writer) -> tuple[Output, ...]:
    """The outputs of a writer; none for a function ``(path, value)``, since they are not known."""
    if isinstance(writer, Outputs):
        return writer.outputs
    return (Output(None, writer, writer.suffix),) if isinstance(writer, Encoder) else ()


def is_built_in(writer: Writer) -> bool:
    """Whether it runs only code of this package."""
    outputs = outputs_of(writer)
    return bool(outputs) and all(one.encoder.is_built_in for one in outputs)


def first_series(name: str, key: str) -> tuple[str, str]:
    """The name and the key that the first output of a writer is recorded under.

    Args:
        name: The writer's name.
        key: The run's.
    """
    output, is_one_of_several, rest = name.partition("=")
    return (rest.split(",")[0], key_of_output(key, output)) if is_one_of_several else (name, key)


def key_of_output(key: str, output: str | None) -> str:
    """The key that an output is recorded under."""
    return ".".join(filter(None, (key, output)))
