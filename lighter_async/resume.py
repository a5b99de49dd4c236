"""What is still to be computed, and in which order."""

from __future__ import annotations

import os
import shlex
from array import array
from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any

import numpy as np
import torch.distributed
from numpy.typing import NDArray
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from lighter_async.data_set_fingerprint import fingerprint_of
from lighter_async.errors import DuplicateNameError, shown
from lighter_async.manifest import Loader, Manifest, read_manifest
from lighter_async.manifest.adopt import lengths_of, number_name, stored
from lighter_async.manifest.block import NAMES, Block
from lighter_async.manifest.indices import IndexSet
from lighter_async.manifest.line import LARGEST
from lighter_async.manifest.reader import Series, is_superseded
from lighter_async.manifest.records import Records
from lighter_async.names import name_of
from lighter_async.notices import warn
from lighter_async.resume_checks import check_same
from lighter_async.store import Readable, Store, source_of
from lighter_async.targets.local import wait_until_free

__all__ = ["PendingSampler", "pending"]

_LOOKED_AT = 1000  # files that are looked for, whatever their number


def pending(
    dataset: Sized,
    *directories: str | os.PathLike[str] | Readable,
    loader: int = 0,
    writer: str | None = None,
    batch_size: int | None = None,
    names: Sequence[str] | Callable[[int], str] | None = None,
) -> PendingSampler:
    """A sampler of the samples that are not stored yet: the data set's own indices, in its order.

    Samples that were stored under names are known by them: give `names`. Without them an index counts where the record
    tells that it was an index of this very data set, by its length and its content; where that is not known, the sample
    is computed again, and `FileWriter` leaves it out if its name is stored. Numbered samples are known by their index.

    Give it to the `DataLoader`, and ``resume=True`` to the `FileWriter`; then the same script, run again after any
    crash, computes and stores only what is missing. It shares its indices out among the ranks, as `Trainer.predict`
    does, and a rank may be left with none. Make it before the run's first sample is stored, on all ranks: what it says
    is settled when it is made. A script that predicts twice on several ranks has to let them wait for each other in
    between (``torch.distributed.barrier()``), or they would disagree on what is pending.

    Args:
        dataset: One with a length and items by index (a map-style one).
        directories: Where the results are: what the writers were given, paths or targets. Of several, a
            sample is pending that is missing in one of them.
        loader: The number of the data loader, of several.
        writer: Look at the samples of this writer alone, such as ``"tensor"``, where several store in one directory.
        batch_size: Batches of an undisturbed run in which a sample is missing are computed again as a whole, so that
            each sample is computed beside the same others; for a model that computes the same from the same batch,
            results are then equal byte for byte to those of an undisturbed run on as many ranks.
        names: The samples' names, in the data set's order, or a function from an index to a name.

    Raises:
        ResumeError: Samples are numbered, and the data set is not the one that they are numbers of.
        DuplicateNameError: Two items have one name, under which a sample is stored.
        ValueError: There is no directory, or a URL in its place; `batch_size` is less than 1, or there are not as many
            names as samples.
        TypeError: The data set has no items by index, a directory is neither a path nor a target that stores below
            one, or the arguments look swapped.
        TimeoutError: Helpers of a run that has died have been at work for ten minutes.
    """
    _check_order(dataset, directories)
    if not directories:
        raise ValueError("pending() needs a directory to look at, or several")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is at least 1, not {batch_size}")
    count = _length_of(dataset)
    if names is not None and not callable(names):
        names = list(names)
        if len(names) != count:
            raise ValueError(f"Length mismatch: {count} samples and {len(names)} names; every sample has one")
    done = np.ones(count, np.bool_)
    for directory, store, key in [source_of(one) for one in directories]:
        wait_until_free(directory)
        manifest = read_manifest(directory)
        _warn_of_missing_files(manifest, store)
        series = stored(manifest, store, writer=writer, key=key)
        for one, records in series.items():
            done &= _done(manifest, one, records, dataset, loader, names)
        if not series:
            done[:] = False
    return PendingSampler(dataset, array("q", np.flatnonzero(~done).astype(np.int64).tobytes()), batch_size)


def _check_order(dataset: Any, directories: Sequence[Any]) -> None:
    """
    Raises:
        TypeError: A directory stands in the data set's place, or a data set or names in that of a directory.
    """
    order = "the order is pending(dataset, DIR, names=NAMES)"
    # Of text and bytes there are items, too, and a data set of one's own may be a path besides.
    if isinstance(dataset, (str, bytes)) or (
        isinstance(dataset, (os.PathLike, Readable)) and not hasattr(dataset, "__getitem__")
    ):
        raise TypeError(f"pending() takes the data set first, not {shown(dataset)}; {order}")
    for one in directories:
        is_place = isinstance(one, (str, os.PathLike, Readable, type))  # of a target's class `source_of` tells more
        if not is_place and (isinstance(one, Sized) or callable(one)):
            raise TypeError(f"pending() takes paths and targets after the data set, not {shown(one)}; {order}")


def _length_of(dataset: Any) -> int:
    """How many items a data set has.

    Raises:
        TypeError: It has no items by index, so that none can be left out.
    """
    if isinstance(dataset, DataLoader):
        raise TypeError("pending() takes the data set, not the DataLoader that makes batches of it: loader.dataset")
    try:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
            raise TypeError("it only gives one item after the other")
        return len(dataset)
    except (TypeError, NotImplementedError) as error:
        raise TypeError(
            f"pending() needs a data set with a length and items by index (__len__ and __getitem__), and "
            f"{type(dataset).__name__} is none ({error}), so there are no indices to leave out. Leave out in its own "
            "loop what is stored, by names: done = read_manifest(directory).names(); or give the writer "
            "if_exists='skip', or a FileWriter resume=True and name_key, which leave it out once it is computed"
        ) from None


def _done(
    manifest: Manifest,
    series: Series,
    records: Records,
    dataset: Sized,
    loader: int,
    names: Sequence[str] | Callable[[int], str] | None,
) -> NDArray[np.bool_]:
    """Which of the data set's samples one series has."""
    count = len(dataset)
    lengths = lengths_of(manifest, series)
    current = manifest.current_runs().get(series, set())
    about = [one for one in manifest.loaders if one.series == series and one.run in current]
    named = {one.run for one in about if one.named}
    # A run says itself whether its samples are numbered. A loop of the user's does not: there the names tell.
    numbered = {run.run for run in manifest.runs if run.numbered and run.series == series}
    of_callback = {one.run for one in about}
    if not named and all(
        block.head.run in numbered
        or (
            (block.head.run in of_callback or names is None)
            and _is_numbered(block, lengths, block.head.run in of_callback)
        )
        for block in records.blocks
    ):
        check_same(manifest, series, loader, dataset)
        done = IndexSet(records.indices(loader)).flags(count)
        if names is not None and any(block.head.is_array and block.head.numbered == NAMES for block in records.blocks):
            done &= _have_names(names, np.flatnonzero(done).tolist(), count, records, loader)
        return done
    if names is not None:
        return _are_stored(names, count, records)
    mine = fingerprint_of(dataset)
    same = {
        loaders.run
        for loaders in manifest.loaders
        if loaders.series == series
        and mine is not None
        and loader < len(loaders.loaders)
        and loaders.loaders[loader] == Loader(len(dataset), mine)
    }
    if not all(block.head.run in same for block in records.blocks):
        warn(
            f"{os.fspath(manifest.directory)!r} has samples with names, and whether their indices are those of this "
            "data set is not known, so they count as pending, and what is stored already is left out by its name only "
            "once it is computed; pending(..., names=...) tells the names before"
        )
    return IndexSet(records.where(lambda block: block.head.run in same).indices(loader)).flags(count)


def _have_names(
    names: Sequence[str] | Callable[[int], str], indices: list[int], count: int, records: Records, loader: int
) -> NDArray[np.bool_]:
    """Which of some rows are recorded under the names that their items have now, or by their numbers alone."""
    found = np.zeros(count, np.bool_)
    other: tuple[int, str, str] | None = None
    for index, known in zip(indices, records.names_at(loader, indices), strict=True):
        name = name_of(names(index) if callable(names) else names[index], "one of the names")
        found[index] = known == name or (known is not None and known.isdecimal())
        if not found[index] and other is None:
            other = index, name, str(known)
    if other is not None:
        warn(
            f"the data set has changed: item {other[0]} is {other[1]!r} now, and its row is that of {other[2]!r}; it "
            "counts as pending, and so do all items whose rows have other names"
        )
    return found


def _are_stored(names: Sequence[str] | Callable[[int], str], count: int, records: Records) -> NDArray[np.bool_]:
    """Which of the items are stored by their names.

    Raises:
        DuplicateNameError: Two of these have one name, so which of them is stored cannot be told.
    """
    suffix = next((block.head.suffix for block in records.blocks if block.head.suffix), "")
    # A sample's name with the suffix means the same file as without.
    known = {name.removesuffix(suffix) for name in records.names()}

    def given() -> Iterator[str]:
        items = map(names, range(count)) if callable(names) else names
        return (name_of(item, "one of the names").removesuffix(suffix) for item in items)

    done = np.fromiter((name in known for name in given()), np.bool_, count)
    before = len(known)
    known.difference_update(given())
    if before - len(known) < np.count_nonzero(done):
        first: dict[str, int] = {}
        for index, (name, is_done) in enumerate(zip(given(), done.tolist(), strict=True)):
            if is_done and first.setdefault(name, index) != index:
                raise DuplicateNameError(
                    f"items {first[name]} and {index} of the data set are both named {name!r}, and one sample of that "
                    "name is stored, so which of them it is cannot be told; give them different names, such as the "
                    "source folder and the file name"
                )
    return done


def _is_numbered(block: Block, lengths: Sequence[int | None], is_of_callback: bool) -> bool:
    """Whether the names of all samples are the numbers of their indices."""
    if not block.head.has_index:
        return False
    loader, may_be_index = block.head.loader, not (is_of_callback and lengths)
    numbers, indices = block.number_column(), block.index_column()
    if numbers is not None:
        numbers = numbers if block.alive is None else numbers[block.alive]
        first = number_name(0, loader, lengths)
        before = LARGEST if first is None else int(first)
        if before == 0 and np.array_equal(numbers, indices):
            return True
        if before <= LARGEST >> 1 and np.array_equal(numbers, indices.astype(np.int64) + before):
            return True
        if may_be_index and np.array_equal(numbers, indices):
            return True
    return all(
        name in (number_name(index, loader, lengths), f"{loader}/{index}") or (may_be_index and name == str(index))
        for name, index in zip(block.living_names(), indices.tolist(), strict=True)
    )


def _warn_of_missing_files(manifest: Manifest, store: Store) -> None:
    """Warn of recorded files that are gone: the manifest decides what is done, so they would not be computed again."""
    current = manifest.current_runs()
    # Rows that a run has superseded by beginning anew are written over or removed.
    standing = manifest.records.where(
        lambda block: not (block.head.is_row and is_superseded(block.series, block.head.run, current))
    )
    looked_at = standing.some_files(_LOOKED_AT)
    missing = [file for file in looked_at if not store.has(file)]
    if missing:
        directory = os.fspath(manifest.directory)
        warn(
            f"{len(missing)} of {len(looked_at)} files that were looked at are gone from {directory!r}, such as "
            f"{missing[0]!r}, though its manifest says that they are stored, so they count as done; "
            f"lighter-async verify {shlex.quote(directory)} --repair has them computed again"
        )


class PendingSampler(DistributedSampler[Any]):
    """Yields the indices of a data set that are still to do; of several ranks, each yields its share.

    It counts as a distributed sampler, so that Lightning leaves it as it is.

    Args:
        dataset: The data set.
        indices: What is to do, in order.
        batch_size: As for `pending`.
    """

    def __init__(self, dataset: Sized, indices: Sequence[int], batch_size: int | None = None) -> None:
        # Not the parent's, which asks for the number of ranks now: they may be started later.
        self.dataset = dataset  # type: ignore[assignment]
        self.indices = indices
        self.batch_size = batch_size
        self.shuffle = False
        self.drop_last = False
        self.seed = self.epoch = 0

    @property
    def num_replicas(self) -> int:  # type: ignore[override]
        """How many ranks share the indices."""
        return torch.distributed.get_world_size() if _is_distributed() else 1

    @property
    def rank(self) -> int:  # type: ignore[override]
        """Which of them this one is."""
        return torch.distributed.get_rank() if _is_distributed() else 0

    @property
    def left_out(self) -> int:
        """How many items of the data set it leaves out, on all ranks together, since they are stored."""
        return len(self.dataset) - len(self.indices)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self._share())

    def __repr__(self) -> str:
        return f"<PendingSampler: {len(self.indices)} of {len(self.dataset)} items>"  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._share())

    def set_epoch(self, epoch: int) -> None:
        """Does nothing: the order is the data set's."""

    def _share(self) -> Sequence[int]:
        rank, ranks = self.rank, self.num_replicas
        if self.batch_size is None:
            return self.indices[rank::ranks]
        size, count = self.batch_size, len(self.dataset)  # type: ignore[arg-type]
        # A batch of an undisturbed run is known by the rank that computed it, and its number there.
        wanted = sorted({(index // ranks // size, index % ranks) for index in self.indices})
        whole: list[list[int]] = []
        mine: list[int] = []
        for number, first in wanted:
            batch = list(range(first + number * size * ranks, count, ranks))[:size]
            if len(batch) == size:
                whole.append(batch)
            elif first == rank:
                mine = batch  # the rank's last batch, which is shorter; it stays one batch if it comes last
        return [index for batch in whole[rank::ranks] for index in batch] + mine


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
