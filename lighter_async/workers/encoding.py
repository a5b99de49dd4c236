"""A sample's value becomes bytes, as its encoders make them."""

from __future__ import annotations

from collections.abc import Sequence

from lighter_async.names import with_suffix
from lighter_async.staging import Staged
from lighter_async.targets import Item, Part
from lighter_async.types import Unit
from lighter_async.writers import Output

__all__ = ["encode_sample", "ready"]


def encode_sample(outputs: Sequence[Output], unit: Unit, index: int) -> Item:
    """The bytes of each of a sample's outputs.

    Args:
        outputs: What is stored of each sample.
        unit: Has the sample.
        index: Its number in the batch.

    Raises:
        Exception: What an encoder raises, or the device that the value comes from.
    """
    staged, name = ready(unit), unit.batch.names[index]
    parts = []
    for output in outputs:
        encoder, data = output.encoder, None
        block = staged.block(index, output.key) if encoder.takes_blocks else None
        if block is not None:
            data = encoder.encode_block(block)
        if data is None:
            data = encoder.encode(staged.value(index, output.key))
        parts.append(Part(with_suffix(name, output.suffix), output.suffix, data))
    return Item(name, parts)


def ready(unit: Unit) -> Staged:
    """The unit's values, once an accelerator's copy of them has arrived."""
    staged = unit.batch.staged
    if staged.ready is not None:
        staged.ready.synchronize()
    return staged
