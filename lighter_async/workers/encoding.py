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


def encode_sample(
    outputs: Sequence[Output], files: Sequence[str], unit: Unit, index: int, *, takes_arrays: bool = False
) -> Item:
    """The bytes of each of a sample's outputs.

    Args:
        outputs: What is stored of each sample.
        files: As `files_of` gives them.
        unit: Has the sample.
        index: Its number in the batch.
        takes_arrays: Whether the target is to know its index in the data set, and its dtype and shape.

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
        if data is None and encoder.takes_blocks_in_containers:
            try:
                blocks = staged.blocks(index, output.key)
            except LookupError:
                pass  # it holds what only `encode` can be given
            else:
                data = encoder.encode_blocks(blocks)
        if data is None:
            data = encoder.encode(staged.value(index, output.key))
        parts.append(Part(file, output.suffix, data))
    name = unit.batch.names[index]
    if not takes_arrays:
        return Item(name, parts)
    origin = unit.batch.origin
    kind = staged.kind(index, outputs[0].key)
    if origin is None or origin.indices is None:
        return Item(name, parts, None, 0, kind)
    return Item(name, parts, origin.indices[index], origin.loader, kind)


def ready(unit: Unit) -> Staged:
    """The unit's values, once an accelerator's copy of them has arrived."""
    staged = unit.batch.staged
    if staged.ready is not None:
        staged.ready.synchronize()
    return staged
