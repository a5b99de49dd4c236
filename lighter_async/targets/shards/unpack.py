"""Making files of the samples of shards, with records of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from lighter_async.errors import InvalidNameError, LighterAsyncError, ReadError, describe
from lighter_async.manifest import Manifest, ManifestLog, Record, checksum, read_manifest
from lighter_async.manifest.block import Block
from lighter_async.manifest.entry import place_of
from lighter_async.manifest.reader import Series
from lighter_async.manifest.records import Records
from lighter_async.manifest.verify import is_in_use, why_empty
from lighter_async.names import with_suffix
from lighter_async.store import DirectoryStore
from lighter_async.targets.lane import Item, Part
from lighter_async.targets.local import LocalTarget
from lighter_async.targets.shards.listing import has_shards, is_shard, no_directory
from lighter_async.targets.shards.survey import recorded_samples
from lighter_async.types import Run

__all__ = ["Unpacked", "unpack"]

_TOGETHER = 512  # samples that are recorded at a time


@dataclass
class Unpacked:
    """What became of the samples of shards.

    Attributes:
        stored: How many parts of samples were stored: one for each output.
        nbytes: Their bytes.
        kept: Those that an earlier call has stored, which are there.
        others: Samples of the directory that are files of their own or rows there, and were not looked at.
        failed: Samples that are damaged or cannot be stored, and why.
    """

    stored: int = 0
    nbytes: int = 0
    kept: int = 0
    others: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)


def unpack(
    directory: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    writer: str | None = None,
    key: str | None = None,
    begin: Callable[[int], Callable[[], None]] | None = None,
) -> Unpacked:
    """Store the samples of a directory's shards that count as files below another one, and record them there.

    Each file is called as `LocalTarget` would have called it, and is recorded with the name, index, shape, series and
    run that it has in `directory`. All outputs of a sample are stored, or none. What is there already is kept.

    Args:
        directory: Where the shards are.
        out: Where the files go. It is made if there is none.
        writer: Only what this writer has stored, such as ``"tensor"``.
        key: Only what was stored with this key, likewise.
        begin: Called with the number of parts of samples; what it returns is called after each of them.

    Raises:
        FileNotFoundError: There is no directory, no shard in it, or no manifest.
        ValueError: Nothing that counts is in shards, or not of this writer and key; or `out` lies in `directory`.
        LighterAsyncError: A writer is at work in `out`, or there are results of other runs.
        OSError: The directory cannot be written to.
    """
    root, to = os.path.abspath(directory), os.path.abspath(out)
    if os.path.commonpath([os.path.realpath(root), os.path.realpath(to)]) == os.path.realpath(root):
        raise ValueError(f"{to!r} lies in {root!r}, whose samples would be there twice; choose a directory elsewhere")
    if not os.path.isdir(root):
        raise FileNotFoundError(no_directory(root))
    manifest = read_manifest(root)
    if not has_shards(root) and not any(map(is_shard, os.listdir(root))):
        raise FileNotFoundError(f"{root!r} holds no tar shards, so there is nothing to unpack; {_told(manifest)}")
    if not manifest.runs:
        raise FileNotFoundError(f"{root!r} {why_empty(manifest)}, so what its shards hold is not known")
    counted = manifest.counted(writer=writer, key=key)
    in_shards = [block for one in counted.values() for block in one.blocks if _is_in_shard(block)]
    if not in_shards:
        there = {block.series for block in manifest.records.blocks if _is_in_shard(block)}
        told = "; ".join(f"writer={one!r}, key={of!r}" for one, of in sorted(there)) or "no sample at all"
        raise ValueError(f"nothing that is asked for counts in the shards of {root!r}; there is {told}")
    if is_in_use(to):
        raise LighterAsyncError(f"a writer is at work in {to!r}; wait until it has ended, or choose another directory")
    target = LocalTarget(to, run=Run(id="unpacking-" + os.urandom(6).hex()))
    target.open()
    try:
        known = read_manifest(to)
        foreign = {run.run for run in known.runs} - {run.run for run in manifest.runs}
        if foreign:
            raise LighterAsyncError(
                f"{to!r} holds results of other runs ({', '.join(sorted(foreign))}) than {root!r}; choose a new one"
            )
        suffixes = {(run.run, run.series): run.suffix for run in manifest.runs}
        _check_files(in_shards, known.records.blocks, suffixes)
        work = _Work(DirectoryStore(root), target, manifest, known)
        work.result.others = sum(len(one) for one in counted.values()) - sum(map(len, in_shards))
        try:
            work.mirror({series for series, records in counted.items() if any(map(_is_in_shard, records.blocks))})
            tick = begin(sum(map(len, in_shards))) if begin is not None else None
            for sample in _samples_in(in_shards):
                work.store(sample)
                if tick is not None:
                    for _ in sample:
                        tick()
            work.record()
        finally:
            work.close()
        return work.result
    finally:
        target.close()


def _told(manifest: Manifest) -> str:
    """What there is where there are no shards."""
    if not manifest.runs and not manifest.records:
        return f"it {why_empty(manifest)}"
    rows = sum(len(block) for block in manifest.records.blocks if block.head.is_row)
    counts = {"file": len(manifest.records) - rows, "row": rows}
    there = [f"{count:,} {what}{'' if count == 1 else 's'}" for what, count in counts.items() if count]
    return f"what is stored there is {' and '.join(there) or 'nothing'}"


def _is_in_shard(block: Block) -> bool:
    return block.head.object is not None and block.head.has_offsets and not block.head.is_row


def _check_files(blocks: Sequence[Block], there: Sequence[Block], suffixes: dict[tuple[str, Series], str]) -> None:
    """Refuse two series whose files would have one name, as a directory of files could not have held them either.

    Args:
        blocks: What is in shards.
        there: What is recorded of files.
        suffixes: Those of the runs' series.

    Raises:
        ValueError: There is a sample that both have.
    """
    of_suffix: dict[str, dict[Series, list[NDArray[np.uint64]]]] = {}
    for block, suffix in (
        *((block, suffixes[block.head.run, block.series]) for block in blocks),
        *((block, block.head.suffix) for block in there if block.head.suffix is not None),
    ):
        of_suffix.setdefault(suffix, {}).setdefault(block.series, []).append(block.name_keys()[block.rows()])
    for suffix, of_series in of_suffix.items():
        for one, other in combinations(sorted(of_series), 2):
            if len(np.intersect1d(np.concatenate(of_series[one]), np.concatenate(of_series[other]))):
                raise ValueError(
                    f"samples of one name are stored with writer={one[0]!r}, key={one[1]!r} and with "
                    f"writer={other[0]!r}, key={other[1]!r}, and both would be files that end in {suffix!r}; choose "
                    "one of them, and a directory of its own for the other"
                )


def _samples_in(blocks: Sequence[Block]) -> Iterator[list[Record]]:
    """The records of each sample's outputs, shard by shard, in the order in which they lie there."""
    of_shard: dict[str, list[Block]] = {}
    for block in blocks:
        of_shard.setdefault(block.head.object or "", []).append(block)
    for shard in sorted(of_shard):
        yield from recorded_samples(of_shard[shard])


class _Work:
    """Stores samples, and records them.

    Args:
        store: What reads them.
        target: Where they go.
        manifest: What is recorded of them.
        known: What is recorded there already.
    """

    def __init__(self, store: DirectoryStore, target: LocalTarget, manifest: Manifest, known: Manifest) -> None:
        self.result = Unpacked()
        self._store = store
        self._target = target
        self._lane = target.lane(0)
        self._manifest = manifest
        self._known = known
        self._there: dict[Series, Records] = {}
        for series in {block.series for block in known.records.blocks}:
            self._there[series] = Records([block for block in known.records.blocks if block.series == series])
        self._suffixes = {(run.run, run.series): run.suffix for run in manifest.runs}
        self._logs: dict[int, ManifestLog] = {}
        self._waiting: list[list[Record]] = []  # stored, to be recorded

    def mirror(self, series: set[Series]) -> None:
        """Record the runs that have stored these series, as far as they are not."""
        current = self._manifest.current_runs()
        runs = [run for run in self._manifest.runs if run.series in series and run.run in current[run.series]]
        there = {(run.run, run.rank, run.series) for run in self._known.runs}
        about = [one for one in self._manifest.loaders if one.series in series and one.run in current[one.series]]
        loaders = [one for one in dict.fromkeys(about) if one not in self._known.loaders]
        first = min((run.rank for run in runs), default=0)
        for rank in sorted({run.rank for run in runs}):
            of_rank = [run for run in runs if run.rank == rank and (run.run, rank, run.series) not in there]
            self._log(rank).mirror(of_rank, loaders if rank == first else ())

    def store(self, outputs: Sequence[Record]) -> None:
        """Store a sample, unless it is there; what is wrong with it is noted."""
        files = [with_suffix(one.name, self._suffixes[one.run, one.series]) for one in outputs]
        if all(map(self._is_there, outputs, files)):
            self.result.kept += len(outputs)
            return
        parts = []
        try:
            self._target.check(files)
            for one, file in zip(outputs, files, strict=True):
                parts.append(Part(file, self._suffixes[one.run, one.series], [self._read(one)]))
            self._lane.put(Item(outputs[0].name, parts), redelivered=True)
        except (ReadError, InvalidNameError, OSError) as error:
            self.result.failed.append((outputs[0].name, describe(error)))
            return
        self.result.stored += len(outputs)
        self.result.nbytes += sum(one.bytes or 0 for one in outputs)
        self._waiting.append([replace(one, file=file, offset=0) for one, file in zip(outputs, files, strict=True)])
        if len(self._waiting) >= _TOGETHER:
            self.record()

    def record(self) -> None:
        """Record what is stored."""
        waiting, self._waiting = self._waiting, []
        for rank in sorted({one[0].rank for one in waiting}):
            self._log(rank).adopt_samples([one for one in waiting if one[0].rank == rank])

    def close(self) -> None:
        """Let go of the records."""
        for log in self._logs.values():
            log.close()

    def _log(self, rank: int) -> ManifestLog:
        if rank not in self._logs:
            self._logs[rank] = ManifestLog(self._target.directory, Run(id="unpack", rank=rank, world_size=rank + 1))
            self._logs[rank].open()
        return self._logs[rank]

    def _read(self, record: Record) -> memoryview:
        place = place_of(record)
        assert place is not None
        data = memoryview(self._store.read(place))
        found = checksum([data])
        if found != record.xxh3:
            raise ReadError(
                f"{record.name!r:.100} in {record.file!r} has the checksum {found} instead of {record.xxh3}",
                file=place.object,
                trouble="wrong checksum",
                detail=f"{found} instead of {record.xxh3}",
            )
        return data

    def _is_there(self, record: Record, file: str) -> bool:
        records = self._there.get(record.series)
        number = None if records is None else records.number(record.name)
        if records is None or number is None:
            return False
        there = records[number]
        if (there.file, there.bytes, there.xxh3) != (file, record.bytes, record.xxh3):
            return False
        identity = self._target.store().identity(file)
        return identity is not None and identity.bytes == record.bytes
