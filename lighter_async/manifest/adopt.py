"""Files that were stored but not recorded, because a crash came between the two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lighter_async.locks import boot_id
from lighter_async.manifest.columns import Columns
from lighter_async.manifest.entry import Record, RunRecord, samples_of
from lighter_async.manifest.line import LARGEST
from lighter_async.manifest.reader import Manifest, Series
from lighter_async.manifest.records import Records
from lighter_async.names import with_suffix
from lighter_async.store import Identity, Store

__all__ = ["adoptable", "lengths_of", "number_name", "stored", "with_unrecorded"]

_MOST_DIGITS = 19


def number_name(index: int, loader: int, lengths: Sequence[int | None]) -> str | None:
    """How a sample is called after its index, going on over the loaders; None if that is not known.

    Args:
        index: In the data set of its loader.
        loader: Which loader.
        lengths: Of the loaders' data sets.
    """
    before = 0
    for length in lengths[:loader]:
        if length is None:
            return None
        before += length
    return str(before + index) if loader == 0 or loader < len(lengths) else None


def lengths_of(manifest: Manifest, series: Series) -> list[int | None]:
    """The lengths of the loaders' data sets, each as the latest run of a series that had the loader has recorded it."""
    lengths: list[int | None] = []
    for loaders in reversed(manifest.loaders):
        if loaders.series == series:
            lengths += [one.length for one in loaders.loaders[len(lengths) :]]
    return lengths


def stored(
    manifest: Manifest, store: Store, *, writer: str | None = None, key: str | None = None
) -> dict[Series, Records]:
    """What is done of each series: the records that count, and those that `adoptable` gives; arguments as there."""
    unrecorded = [record for record, _ in adoptable(manifest, store, writer=writer, key=key)]
    return with_unrecorded(manifest.counted(writer=writer, key=key), unrecorded)


def with_unrecorded(counted: dict[Series, Records], unrecorded: Sequence[Record]) -> dict[Series, Records]:
    """The records that count, and others beside them."""
    columns = Columns()
    for record in unrecorded:
        columns.add(samples_of([record]), 0, 0)
    return {
        series: Records([*records.blocks, *(block for block in columns.blocks if block.series == series)])
        for series, records in counted.items()
    }


def adoptable(
    manifest: Manifest, store: Store, *, writer: str | None = None, key: str | None = None
) -> Iterator[tuple[Record, str]]:
    """Files that a run stored and did not record before it ended, as records with the keys of their series.

    Where samples are named by their index, the name of a file says which sample it is. A file that is as new as the run
    is the run's own. It is whole, since a file gets its name only once it is; a loss of power may have emptied it, so
    files count only if this machine has stored them since its last start. A file that was found damaged never counts.

    Args:
        manifest: The manifest.
        store: Where the files are.
        writer: Look at one writer's files alone.
        key: Look at one output's files alone.
    """
    of_series: dict[Series, list[RunRecord]] = {}
    for run in manifest.runs:
        of_series.setdefault(run.series, []).append(run)
    for series, ids in manifest.current_runs().items():
        if (writer is not None and series[0] != writer) or (key is not None and series[1] != key):
            continue
        runs = [run for run in of_series[series] if run.run in ids]
        if not runs or not all(run.numbered and run.suffix and run.boot == boot_id() != "" for run in runs):
            continue
        since = min(run.since for run in runs)
        numbered = _numbered(store.objects(into=_is_number), runs[-1], lengths_of(manifest, series))
        for loader, index, file in manifest.records.without(numbered, lambda one: one[2]):
            identity = store.identity(file)
            if identity is None or identity.changed < since or _is_same(identity, manifest.damaged.get(file)):
                continue
            try:
                record = _record(store, file, identity, loader, index, runs[-1])
            except OSError:
                continue  # it is gone by now, or cannot be read, and so counts as not stored
            yield record, series[1]


def _is_same(identity: Identity, damaged: Sequence[int] | None) -> bool:
    """Whether a file may be the one that was found damaged. A later file has another number, and is newer."""
    return damaged is not None and (identity.number == damaged[2] or identity.changed <= damaged[1])


def _numbered(objects: Iterable[str], run: RunRecord, lengths: Sequence[int | None]) -> Iterator[tuple[int, int, str]]:
    """The loader and index of each object that is named by its number."""
    for name in objects:
        folder, slash, file = name.rpartition("/")
        number = _number(file.removesuffix(run.suffix), file, run.suffix)
        if number is None:
            continue
        if slash:
            # Earlier versions named the samples of several loaders so.
            loader_number = _number(folder, folder, "")
            if loader_number is not None:
                yield loader_number, number, name
            continue
        for loader, length in enumerate(lengths or [None]):
            if length is None or number < length:
                yield loader, number, name
                break
            number -= length


def _is_number(folder: str) -> bool:
    """Whether numbered files can lie in a folder: in the loader's, as earlier versions named it, or in none."""
    return _number(folder, folder, "") is not None


def _number(stem: str, name: str, suffix: str) -> int | None:
    """The number that a sample is named after; None if it has another name, such as ``007``."""
    if not (stem.isascii() and stem.isdecimal() and len(stem) <= _MOST_DIGITS) or int(stem) > LARGEST:
        return None
    return int(stem) if with_suffix(str(int(stem)), suffix) == name else None


def _record(store: Store, file: str, identity: Identity, loader: int, index: int, run: RunRecord) -> Record:
    return Record(
        name=file.removesuffix(run.suffix),
        file=file,
        bytes=identity.bytes,
        xxh3=store.checksum(file),
        index=index,
        shape=None,
        dtype=None,
        rank=run.rank,
        loader=loader,
        batch=None,
        time=identity.changed / 1e9,
        run=run.run,
        writer=run.writer,
        key=run.key,
    )
