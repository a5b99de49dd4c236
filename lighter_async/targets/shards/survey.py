"""What of a directory's shards is needed still: the members that records tell of which count."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from lighter_async.manifest import Manifest, Record
from lighter_async.manifest.block import Block
from lighter_async.manifest.reader import Series
from lighter_async.manifest.so_far import ends_of
from lighter_async.targets.shards.header import BLOCK, END
from lighter_async.targets.shards.listing import is_shard
from lighter_async.targets.shards.walk import samples_in
from lighter_async.without_links import open_below

__all__ = ["Contents", "recorded_samples", "survey"]

_AT_A_TIME = 64  # shards that are sought in the records


@dataclass(eq=False)
class Contents:
    """What is in a sealed shard.

    Attributes:
        shard: Its name.
        nbytes: Its size.
        samples: How many samples lie in it.
        kept: Of how many of them something is needed.
        needed: Members that records tell of which count.
        unneeded: The other members.
        needed_bytes: Of the members that are needed, with their headers.
        is_foreign: Whether it holds members that were stored without a manifest, so that nothing is known of them.
        series: Those of the members that are needed.
        trouble: Why it cannot be read; empty if it can.
    """

    shard: str
    nbytes: int
    samples: int = 0
    kept: int = 0
    needed: int = 0
    unneeded: int = 0
    needed_bytes: int = 0
    is_foreign: bool = False
    series: frozenset[Series] = frozenset()
    trouble: str = ""
    _blocks: Sequence[Block] = ()
    _past: Sequence[Block] = ()

    @property
    def freed(self) -> int:
        """The bytes that are free once it is rewritten, or removed."""
        return self.nbytes - self.needed_bytes - (len(END) if self.needed else 0)

    def records(self) -> Iterator[list[Record]]:
        """What is recorded of the members that are needed: those of each sample, in the order in which they lie."""
        return recorded_samples(self._blocks)

    def past_records(self) -> list[Record]:
        """The records that no later one has replaced, but whose runs count no longer."""
        return [block.record(row) for block in self._past for row in block.rows().tolist()]


def survey(root: str, manifest: Manifest) -> Iterator[Contents | str]:
    """Look at each sealed shard; gives the name alone of one of which no record has ever told.

    A member is needed if `open_results` and `pending` count its record: the latest one of its sample, of a run since
    the last one that did not resume. The samples of runs of which only the header is lost are needed, too.

    Args:
        root: The directory.
        manifest: What is recorded there.

    Raises:
        OSError: The directory cannot be listed, or the records cannot be read.
    """
    current = manifest.current_runs()
    known = {run.run for run in manifest.runs}
    counting: dict[str, list[Block]] = {}
    past: dict[str, list[Block]] = {}
    for block in manifest.records.blocks:
        if block.head.object is not None and block.head.has_offsets:
            run = block.head.run
            counts = run in current.get(block.series, ()) or run not in known
            (counting if counts else past).setdefault(block.head.object, []).append(block)
    shards = sorted(name for name in os.listdir(root) if is_shard(name))
    without = [name for name in shards if name not in counting and name not in past]
    told = {*shards}.difference(without)
    for start in range(0, len(without), _AT_A_TIME):
        told.update(ends_of(root, without[start : start + _AT_A_TIME]))
    for name in shards:
        yield _contents(root, name, counting.get(name, []), past.get(name, [])) if name in told else name


def recorded_samples(blocks: Iterable[Block]) -> Iterator[list[Record]]:
    """The records that count of a shard's samples, with all outputs of each, in the order in which they lie.

    Args:
        blocks: Those that tell of the shard.
    """
    records = [block.record(row) for block in blocks for row in block.rows().tolist()]
    records.sort(key=lambda one: one.offset)
    for _, outputs in groupby(
        records, key=lambda one: (one.name, one.run, one.rank, one.loader, one.index, one.batch, one.time)
    ):
        yield list(outputs)


def _contents(root: str, name: str, blocks: Sequence[Block], past: Sequence[Block]) -> Contents:
    found = Contents(name, 0, series=frozenset(block.series for block in blocks), _blocks=blocks, _past=past)
    try:
        descriptor = open_below(root, name)
        try:
            _look_into(descriptor, found, blocks)
        finally:
            os.close(descriptor)
    except OSError as error:
        found.trouble = f"it cannot be read ({error})"
    return found


def _look_into(descriptor: int, found: Contents, blocks: Sequence[Block]) -> None:
    found.nbytes = os.fstat(descriptor).st_size
    sizes: dict[int, int] = {}
    for block in blocks:
        rows = block.rows()
        lengths = block.column(block.line_sizes) if block.head.is_even else np.frombuffer(block.sizes, np.int64)
        offsets = block.offsets.view()
        sizes.update(zip(offsets[rows].tolist(), lengths[rows].tolist(), strict=True))
    found.needed = len(sizes)
    for sample in samples_in(descriptor):
        found.samples += 1
        kept = [member for member in sample.members if sizes.pop(member.offset, None) is not None]
        found.kept += len(kept) > 0
        found.needed_bytes += sum(member.end - member.begin for member in kept)
        found.unneeded += len(sample.members) - len(kept)
        found.is_foreign |= len(kept) < len(sample.members) and not sample.members[0].is_recorded
    # Behind a header that is damaged.
    found.samples += len(sizes)
    found.kept += len(sizes)
    found.needed_bytes += sum(BLOCK + size + -size % BLOCK for size in sizes.values())
