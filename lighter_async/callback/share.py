"""Which samples of the data set a batch has, and which of them are to be written."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from operator import eq, index
from typing import Any

from lighter_async.errors import DuplicateNameError
from lighter_async.manifest import Loader, Manifest, ManifestLog, read_manifest
from lighter_async.manifest.adopt import adoptable, with_unrecorded
from lighter_async.manifest.indices import IndexSet
from lighter_async.manifest.reader import Series
from lighter_async.manifest.records import Records
from lighter_async.names import Numbers, with_suffix
from lighter_async.options import whole_number
from lighter_async.same import check_same, fingerprint_of
from lighter_async.types import Origin, Run

__all__ = ["Known", "Share", "choose", "length_of"]


class Share:
    """What the trainer's loaders say of the samples of a batch.

    Args:
        trainer: A trainer that predicts.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        # Of each loader: its batch sampler, and whether that repeats items so that all ranks have as many.
        self._loaders: dict[int, tuple[Any, bool]] = {}
        self._before: dict[int, tuple[int, int]] = {}  # of each loader, its next batch and the items before that
        self._uneven: set[int] = set()  # loaders of whose items a model has given none, or several samples
        self._lengths: list[int | None] | None = None

    def origin(self, count: int, batch_idx: int, dataloader_idx: int) -> Origin:
        """Where the samples of a batch come from, with their indices in the data set where Lightning knows them.

        Args:
            count: Samples of the batch.
            batch_idx: Its number in its loader.
            dataloader_idx: The loader's number.
        """
        seen = self._indices(dataloader_idx)
        items = seen[batch_idx] if batch_idx < len(seen) else None
        if items is not None and len(items) != count:
            # A sample is not an item of the data set; from here on equal numbers of both may be chance.
            self._uneven.add(dataloader_idx)
        indices = None if items is None or dataloader_idx in self._uneven else _whole(items)
        return Origin(indices, dataloader_idx, batch_idx)

    @property
    def datasets(self) -> list[Any]:
        """The loaders' data sets, in their order."""
        return [getattr(loader, "dataset", None) for loader in _flat(self._trainer.predict_dataloaders)]

    @property
    def items(self) -> int:
        """The items of all data sets whose length is known."""
        return sum(length for length in self._known_lengths() if length is not None)

    def numbers(self, origin: Origin) -> Sequence[str] | None:
        """The names of samples after their indices, going on over the loaders; None if those are not known."""
        before = self._known_lengths()[: origin.loader]
        if origin.indices is None or None in before:
            return None
        first = sum(length or 0 for length in before)
        if (numbers := _range(origin.indices, first)) is not None:
            return Numbers(numbers)
        return [str(first + index) for index in origin.indices]

    def _known_lengths(self) -> list[int | None]:
        if self._lengths is None:
            self._lengths = [length_of(dataset) for dataset in self.datasets]
        return self._lengths

    def without_padding(self, count: int, batch_idx: int, dataloader_idx: int) -> int:
        """How many of a batch's samples are not there a second time, to give all ranks the same number of items.

        Args:
            count: Samples of the batch, of which an item of the data set may give none, one or several.
            batch_idx: Its number in its loader.
            dataloader_idx: The loader's number.
        """
        batch_sampler, pads = self._loader(dataloader_idx)
        if not pads:
            return count
        sampler = batch_sampler.sampler
        seen = self._indices(dataloader_idx)
        if batch_idx >= len(seen):
            return count
        batch, items = self._before.get(dataloader_idx, (0, 0))
        items += sum(map(len, seen[batch:batch_idx]))
        self._before[dataloader_idx] = batch_idx, items
        own = len(range(sampler.rank, len(sampler.dataset), sampler.num_replicas)) - items
        size = len(seen[batch_idx])
        if own >= size:
            return count
        if own <= 0:
            return 0
        # Where samples and items are not one to one, it is not known which of them are the padding's; better one twice
        # than one not at all.
        return own if count == size else count

    def _indices(self, dataloader_idx: int) -> Sequence[Sequence[int]]:
        """The indices of the items of each batch so far, which Lightning notes down."""
        return getattr(self._loader(dataloader_idx)[0], "seen_batch_indices", ())

    def _loader(self, dataloader_idx: int) -> tuple[Any, bool]:
        found = self._loaders.get(dataloader_idx)
        if found is None:
            loader = _flat(self._trainer.predict_dataloaders)[dataloader_idx]
            # Not the loader's own sampler, which Lightning has made anew with a batch sampler alone.
            batch_sampler = getattr(loader, "batch_sampler", None)
            found = self._loaders[dataloader_idx] = batch_sampler, _pads(getattr(batch_sampler, "sampler", None))
        return found


def _pads(sampler: Any) -> bool:
    """Whether it repeats items; of a subclass with an order of its own it is not known which ones."""
    from torch.utils.data import DistributedSampler

    return getattr(type(sampler), "__iter__", None) is DistributedSampler.__iter__ and not sampler.drop_last


def _flat(loaders: Any) -> list[Any]:
    """The loaders of a collection of them, in Lightning's order."""
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if isinstance(loaders, (list, tuple)):
        return [loader for one in loaders for loader in _flat(one)]
    return [loaders]


def _whole(items: Sequence[Any]) -> tuple[int, ...] | None:
    """The indices of items, if they are some: a sampler may give keys of another kind."""
    if any(isinstance(item, bool) for item in items):
        return None
    try:
        indices = tuple(map(index, items))
    except (TypeError, ValueError, RuntimeError):
        return None
    return indices if min(indices, default=0) >= 0 else None


def _range(indices: Sequence[int], before: int) -> range | None:
    """The numbers of indices as a range, if they are one that goes up."""
    if not indices:
        return None
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    numbers = range(before + indices[0], before + indices[-1] + 1, step) if step > 0 else range(0)
    return (
        numbers if len(numbers) == len(indices) and all(map(eq, numbers, (before + one for one in indices))) else None
    )


def length_of(dataset: Any) -> int | None:
    """A data set's length; None if it has none."""
    try:
        return len(dataset)
    except Exception:  # also of those that say that they have one, and cannot tell it
        return None


def _same_runs(manifest: Manifest, series: Series, datasets: Sequence[Any]) -> dict[int, set[str]]:
    """For each loader the runs that went over the very same data set, as far as that is known."""
    same: dict[int, set[str]] = {}
    about = [one for one in manifest.loaders if one.series == series]
    for number, dataset in enumerate(datasets if about else ()):
        now = Loader(length_of(dataset), fingerprint_of(dataset))
        if now.fingerprint is not None:
            same[number] = {one.run for one in about if number < len(one.loaders) and one.loaders[number] == now}
    return same


_MOST_FLAGS = 1 << 27  # bytes, of the items that a run has come by


class Known:
    """What earlier runs have stored of one series of samples.

    Args:
        directory: Where.
        writer: The writer's name.
        key: The output that is written.
        suffix: The writer's, which a name may have or not.
        named: Whether the samples have names of the user's; else they are known by their loader and index.
        manifest: What is recorded there, if it has been read already.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        writer: str,
        key: str,
        suffix: str = "",
        named: bool = False,
        manifest: Manifest | None = None,
    ) -> None:
        manifest = read_manifest(directory) if manifest is None else manifest
        self._manifest: Manifest | None = manifest  # until it is checked: it is large
        self._directory = manifest.directory
        self._series = writer, key
        self._named = named
        self._unrecorded = [record for record, _ in adoptable(manifest, writer=writer, key=key)]
        counted = with_unrecorded(manifest.counted(writer=writer, key=key), self._unrecorded)
        self._records = counted.get(self._series, Records([]))
        self._records.prepare()  # now, and not when the loop hands its first batch over
        self._suffix = suffix
        self._stems = {name.removesuffix(suffix) for name in self._records.names()} if named else set()
        # Of other outputs, whose files a sample of this one could replace.
        self._others = Records(
            [
                block
                for series, counted in manifest.counted().items()
                for block in counted.blocks
                if series != self._series and block.is_known and _may_be_equal(suffix, block.head.suffix)
            ]
        )
        # What this run has come by, and the items that these were, where that is known.
        self._met: dict[str, tuple[int, int] | None] = {}
        # Runs over the very same data sets, whose indices mean what they mean now, and the items that they stored.
        self._same: dict[int, set[str]] = {}
        self._place_of_stem: dict[str, tuple[int, int]] | None = None
        self._met_indices: dict[int, bytearray] = {}  # of samples without names, by loader: a byte for each
        self._said = False

    def __len__(self) -> int:
        return len(self._records)

    @property
    def names(self) -> set[str]:
        """The names of what is stored."""
        return set(self._records.names())

    @property
    def indices(self) -> dict[int, IndexSet]:
        """The indices of what is stored, for each loader."""
        loaders = {block.head.loader for block in self._records.blocks}
        return {loader: IndexSet(self._records.indices(loader)) for loader in loaders}

    def check(self, datasets: Sequence[Any]) -> None:
        """Refuse to go on from numbers of another data set.

        Raises:
            ResumeError: They are.
        """
        if self._manifest is not None and self._named:
            self._same = _same_runs(self._manifest, self._series, datasets)
        if self._manifest is not None and not self._named:
            for loader, dataset in enumerate(datasets):
                if length_of(dataset) is not None:
                    check_same(self._manifest, self._series, loader, dataset)
        self._manifest = None

    def adopt(self) -> None:
        """Record what was stored and not recorded."""
        if not self._unrecorded:
            return
        log = ManifestLog(self._directory, Run())
        log.open()
        try:
            log.adopt(self._unrecorded)
        finally:
            log.close()

    def missing(self, names: Sequence[str], origin: Origin, count: int) -> list[int]:
        """Which of the first `count` samples of a batch are not stored; they count as stored from now on.

        Raises:
            DuplicateNameError: Two items have one name, under which one sample is stored already.
        """
        missing = self.not_stored(names, origin, count)
        self.check_others(names, missing)
        return missing

    def check_others(self, names: Sequence[str], positions: Sequence[int]) -> None:
        """Refuse to replace what is stored of another output.

        Args:
            names: Of the samples of a batch.
            positions: Those of them that are to be written.

        Raises:
            DuplicateNameError: The file of one of these is that.
        """
        if not self._others or not positions:
            return
        files = {with_suffix(names[position], self._suffix) for position in positions}
        taken = self._others.of_files(files.difference(self._others.without(files, str)))
        if taken:
            raise DuplicateNameError(
                f"{taken[0].file!r} is a sample of writer {taken[0].writer!r} and output {taken[0].key!r}, which is "
                f"stored, and one of writer {self._series[0]!r} and output {self._series[1]!r} would replace it; give "
                "each output a directory of its own"
            )

    def not_stored(self, names: Sequence[str], origin: Origin, count: int) -> list[int]:
        """As `missing`, whatever else is stored where these samples are to go."""
        if origin.indices is None:
            return [position for position in range(count) if self._is_missing(names[position], None, None)]
        indices = [whole_number(index, "the index of a sample") for index in origin.indices[:count]]
        earlier = self._records.names_at(origin.loader, indices)
        return [
            position
            for position, (index, known) in enumerate(zip(indices, earlier, strict=True))
            if self._is_missing(names[position], (origin.loader, index), known)
        ]

    def _is_missing(self, name: str, place: tuple[int, int] | None, earlier: str | None) -> bool:
        if earlier is not None and earlier != name and not self._is_number(earlier, place):
            self._warn_of_other_name(name, earlier, place)
            earlier = None
        if not self._named and place is not None and 0 <= place[1] < _MOST_FLAGS:
            return not self._meet(*place) and earlier is None
        stem = name.removesuffix(self._suffix)
        is_stored = stem in self._stems if self._named else earlier is not None
        if stem not in self._met:
            self._met[stem] = place
            if is_stored and earlier is None and place is not None:
                self._check_item(stem, name, place)
            return not is_stored
        if place is not None and self._met[stem] == place:
            return False  # the same item once more, as samplers give that pad
        if is_stored:
            raise DuplicateNameError(
                f"two samples of one run are named {name!r}, and one of that name is stored already, so which of them "
                "it is cannot be told; give them different names, such as the source folder and the file name"
            )
        return True  # and refused where it is to be stored

    def _check_item(self, stem: str, name: str, place: tuple[int, int]) -> None:
        """Refuse an item whose name is stored of another item of the very same data set.

        Raises:
            DuplicateNameError: It is.
        """
        if self._place_of_stem is None:
            # Only here, since it is large, and nearly never asked.
            self._place_of_stem = {
                known.removesuffix(self._suffix): (block.head.loader, index)
                for block in self._records.blocks
                if block.head.run in self._same.get(block.head.loader, ())
                for known, index in zip(block.living_names(), block.index_column().tolist(), strict=False)
            }
        stored = self._place_of_stem.get(stem, place)
        if stored != place:
            raise DuplicateNameError(
                f"two items of the data set are named {name!r}: {stored[1]} of loader {stored[0]}, which is stored, "
                f"and {place[1]} of loader {place[0]}; give them different names, such as the source folder and the "
                "file name"
            )

    def _meet(self, loader: int, index: int) -> bool:
        """Note that an item comes by; returns whether it did before, as samplers give some twice."""
        flags = self._met_indices.setdefault(loader, bytearray())
        if index >= len(flags):
            flags.extend(bytes(max(index + 1, 2 * len(flags)) - len(flags)))
        met, flags[index] = bool(flags[index]), 1
        return met

    def _is_number(self, name: str, place: tuple[int, int] | None) -> bool:
        """Whether it is how earlier versions numbered samples of several loaders."""
        return not self._named and place is not None and name == f"{place[0]}/{place[1]}"

    def _warn_of_other_name(self, name: str, earlier: str, place: tuple[int, int] | None) -> None:
        if self._said or place is None:
            return
        self._said = True
        what = "the data set has changed" if self._named else "earlier samples were numbered otherwise"
        warnings.warn(
            f"{what}: item {place[1]} of loader {place[0]} is {name!r} now, and what is stored of it is named "
            f"{earlier!r}; a sample is known by its name, and is stored if there is none of that name",
            UserWarning,
            stacklevel=2,
        )


def _may_be_equal(suffix: str, other: str | None) -> bool:
    """Whether files with these suffixes may have one name: `a.mask` with `.png` has that of `a` with `.mask.png`.

    Args:
        suffix: One of them.
        other: The other one; None where a record says the files themselves.
    """
    return other is None or suffix.endswith(other) or other.endswith(suffix)


def choose(keep: Sequence[int], names: Sequence[str], values: Any, origin: Origin) -> tuple[Sequence[str], Any, Origin]:
    """Some of the samples of a batch, whose values are a sequence, or a dict with one for each output."""
    chosen = {key: _some(keep, one) for key, one in values.items()} if type(values) is dict else _some(keep, values)
    indices = None if origin.indices is None else [origin.indices[position] for position in keep]
    return [names[position] for position in keep], chosen, Origin(indices, origin.loader, origin.batch)


def _some(keep: Sequence[int], values: Any) -> Any:
    return values[list(keep)] if hasattr(values, "ndim") else [values[position] for position in keep]
