"""A sample's value becomes bytes, as its encoders make them."""

from __future__ import annotations

from collections.abc import Sequence

from lighter_async.names import with_suffix
from lighter_async.staging import Staged
from lighter_async.targets import Item, Part
from lighter_async.types import Unit
from lighter_async.writers import Output

__all__ = ["encode_sample", "files_of", "ready"]


def files_of(outputs: Sequence[Output], name: str) -> list[str]:
    """The files of a sample, one for each output."""
    return [with_suffix(name, output.suffix) for output in outputs]


def encode_sample(outputs: Sequence[Output], files: Sequence[str], unit: Unit, index: int) -> Item:
    """The bytes of each of a sample's outputs.

    Args:
        outputs: What is stored of each sample.
        files: As `files_of` gives them.
        unit: Has the sample.
        index: Its number in the batch.

    Raises:
        Exception: What an encoder raises, or the device that the value comes from.
    """
    staged = ready(unit)
    parts = []
    for output, file in zip(outputs, files, strict=True):
        encoder, data = output.encoder, None
        block = staged.block(index, output.key) if encoder.takes_blocks else None
        if block is not None:
            data = encoder.encode_block(block)
        if data is None:
            data = encoder.encode(staged.value(index, output.key))
        parts.append(Part(file, output.suffix, data))
    return Item(unit.batch.names[index], parts)


def ready(unit: Unit) -> Staged:
    """The unit's values, once an accelerator's copy of them has arrived."""
    staged = unit.batch.staged
    if staged.ready is not None:
        staged.ready.synchronize()
    return staged
