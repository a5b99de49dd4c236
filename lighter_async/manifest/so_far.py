"""What a run has recorded so far, for who goes on where a dead worker has stopped."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from lighter_async.manifest.columns import names_in, records_in
from lighter_async.manifest.entry import Entry
from lighter_async.manifest.line import OutputName, Samples, Span
from lighter_async.manifest.parsing import encoded_text, parse
from lighter_async.manifest.reader import lines_in, manifest_files
from lighter_async.types import Run

__all__ = ["ends_of", "recorded"]


def ends_of(directory: str | os.PathLike[str], objects: Sequence[str]) -> dict[str, int]:
    """Where the last recorded sample in each of some objects ends, in bytes; objects without any are left out."""
    ends: dict[str, int] = {}
    texts = [encoded_text(one) for one in objects]
    for path in manifest_files(directory):
        for line in lines_in(path):
            if any(text in line for text in texts):
                for end, output in _ends_in(parse(line)):
                    if output in objects:
                        ends[output] = max(end, ends.get(output, 0))
    return ends


def recorded(
    path: str | os.PathLike[str], run: Run, outputs: Sequence[OutputName], names: Collection[str]
) -> dict[str, int]:
    """Those of some samples that one rank of a run has recorded, with all of their outputs; and their bytes.

    Args:
        path: The rank's manifest. Where it is gone, nothing is recorded.
        run: The run.
        outputs: What it stores of each sample.
        names: The samples.
    """
    sought = set(names)
    parts: dict[str, dict[OutputName, int]] = {}
    wanted = {(one.writer, one.key): one for one in outputs}
    text = encoded_text(run.id)
    try:
        for line in lines_in(Path(path)):
            entry = parse(line) if text in line else None
            if isinstance(entry, Samples) and entry.run == run.id and not sought.isdisjoint(names_in(entry)):
                for record in records_in(entry):
                    output = wanted.get(record.series)
                    if output is not None and record.name in sought:
                        parts.setdefault(record.name, {})[output] = record.bytes or 0
    except FileNotFoundError:
        return {}
    return {name: sum(sizes.values()) for name, sizes in parts.items() if len(sizes) == len(wanted)}


def _ends_in(entry: Entry | None) -> Iterator[tuple[int, str]]:
    """The end of the last sample of each object that a line tells of, and the object."""
    for output in entry.outputs if isinstance(entry, Samples) else ():
        if output.object is not None and output.offset is not None and output.bytes is not None:
            offsets: list[int] | Span = output.offset
            sizes = output.bytes
            if isinstance(offsets, Span):
                first, last = offsets.start, offsets.start + offsets.step * (entry.samples - 1)  # type: ignore[union-attr]
                if isinstance(sizes, int):
                    yield max(first, last) + sizes, output.object
                    continue
                offsets = [first + offsets.step * number for number in range(len(sizes))]
            if isinstance(sizes, int):
                sizes = [sizes] * len(offsets)
            yield max(map(sum, zip(offsets, sizes, strict=False)), default=0), output.object
