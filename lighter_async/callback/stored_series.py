"""Which samples of one series are stored already, and which ones a run has come by."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from lighter_async.callback.dataset_indices import length_of
from lighter_async.data_set_fingerprint import fingerprint_of
from lighter_async.errors import DuplicateNameError
from lighter_async.manifest import Loader, Manifest, ManifestLog, read_manifest
from lighter_async.manifest.adopt import adoptable, with_unrecorded
from lighter_async.manifest.indices import IndexSet
from lighter_async.manifest.reader import Series
from lighter_async.manifest.records import Records
from lighter_async.names import with_suffix
from lighter_async.notices import warn
from lighter_async.options import whole_number
from lighter_async.resume_checks import check_same
from lighter_async.store import Source, source_of
from lighter_async.types import Origin, Run

__all__ = ["StoredSeries"]

_MOST_FLAGS = 1 << 27  # bytes for the items that a run has come by


class StoredSeries:
    """The samples of one series that earlier runs have stored, and those that this run has come by.

    Args:
        where: Where they are stored, and what reads them; or a directory of files.
        writer: The writer's name.
        key: The key of the output.
        suffix: The writer's suffix, with which a name may end or not.
        named: Whether the user names the samples. If not, they are known by their loader and index.
        manifest: The directory's manifest, if it has been read already.
    """

    def __init__(
        self,
        where: Source | str | os.PathLike[str],
        *,
        writer: str,
        key: str,
        suffix: str = "",
        named: bool = False,
        manifest: Manifest | None = None,
    ) -> None:
        where = where if isinstance(where, Source) else source_of(where)
        manifest = read_manifest(where.directory) if manifest is None else manifest
        self._manifest: Manifest | None = manifest  # kept until `check`, since it is large
        self._where = where
        self._series = writer, key
        self._named = named
        self._numbered = 0  # samples that have numbers where they have names now
        self._unrecorded = [record for record, _ in adoptable(manifest, where.store, writer=writer, key=key)]
        counted = with_unrecorded(manifest.counted(writer=writer, key=key), self._unrecorded)
        self._records = counted.get(self._series, Records([]))
        if named:
            numbered = {one.run for one in manifest.loaders if one.series == self._series and not one.named}
            self._numbered = len(self._records.where(lambda block: block.head.run in numbered))
        self._records.prepare()  # now, and not when the loop hands its first batch over
        self._suffix = suffix
        self._stems = {name.removesuffix(suffix) for name in self._records.names()} if named else set()
        # Records of other outputs whose files a sample of this series could replace; a row of an array replaces none.
        self._others = Records(
            [
                block
                for series, counted in manifest.counted().items()
                for block in counted.blocks
                if where.key is None
                and series != self._series
                and block.is_known
                and _may_be_equal(suffix, block.head.suffix)
            ]
        )
        # The names that this run has come by, with their items where these are known.
        self._met: dict[str, tuple[int, int] | None] = {}
        # By loader, the runs over the very same data set, in which an index means the same item as now.
        self._same: dict[int, set[str]] = {}
        self._place_of_stem: dict[str, tuple[int, int]] | None = None
        self._met_indices: dict[int, bytearray] = {}  # by loader, a byte for each sample without a name
        self._warned = False

    def __len__(self) -> int:
        return len(self._records)

    @property
    def found_as_now(self) -> int:
        """How many are known by what samples are known by now: by names, or by numbers."""
        return len(self) - self._numbered

    @property
    def names(self) -> set[str]:
        """The names of the stored samples."""
        return set(self._records.names())

    @property
    def indices(self) -> dict[int, IndexSet]:
        """The indices of the stored samples, by loader."""
        loaders = {block.head.loader for block in self._records.blocks}
        return {loader: IndexSet(self._records.indices(loader)) for loader in loaders}

    def check(self, datasets: Sequence[Any]) -> None:
        """Refuse to resume numbered samples of other data sets.

        Raises:
            ResumeError: A data set has changed.
        """
        if self._manifest is not None and self._named:
            self._same = _same_runs(self._manifest, self._series, datasets)
        if self._manifest is not None and not self._named:
            for loader, dataset in enumerate(datasets):
                if length_of(dataset) is not None:
                    check_same(self._manifest, self._series, loader, dataset)
        self._manifest = None

    def adopt(self) -> None:
        """Record the samples that were stored but not recorded."""
        if not self._unrecorded:
            return
        log = ManifestLog(self._where.directory, Run(), store=self._where.store)
        log.open()
        try:
            log.adopt(self._unrecorded)
        finally:
            log.close()

    def missing(self, names: Sequence[str], origin: Origin, count: int) -> list[int]:
        """Which of the first `count` samples of a batch are not stored. From now on they count as stored.

        Raises:
            DuplicateNameError: Two items have one name, under which a sample is stored already; or a sample would
                replace a file of another output.
        """
        missing = self.not_stored(names, origin, count)
        self.check_others(names, missing)
        return missing

    def check_others(self, names: Sequence[str], positions: Sequence[int]) -> None:
        """Refuse to replace files of another output.

        Args:
            names: The names of a batch's samples.
            positions: The samples to write, by their positions in the batch.

        Raises:
            DuplicateNameError: One of them would replace a file of another output.
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
        """The same as `missing`, without `check_others`."""
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
            return False  # the same item again, from a sampler that pads
        if is_stored:
            raise DuplicateNameError(
                f"two samples of one run are named {name!r}, and one of that name is stored already, so which of them "
                "it is cannot be told; give them different names, such as the source folder and the file name"
            )
        return True  # the second one is refused when it is handed over

    def _check_item(self, stem: str, name: str, place: tuple[int, int]) -> None:
        """Refuse an item if its name is stored for another item of the very same data set.

        Raises:
            DuplicateNameError: It is.
        """
        if self._place_of_stem is None:
            # Made only here, since it is large and rarely needed.
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
        """Note that the run has come by an item; returns whether it had before, as with samplers that repeat items."""
        flags = self._met_indices.setdefault(loader, bytearray())
        if index >= len(flags):
            flags.extend(bytes(max(index + 1, 2 * len(flags)) - len(flags)))
        met, flags[index] = bool(flags[index]), 1
        return met

    def _is_number(self, name: str, place: tuple[int, int] | None) -> bool:
        """Whether earlier versions gave this number to a sample of several loaders."""
        return not self._named and place is not None and name == f"{place[0]}/{place[1]}"

    def _warn_of_other_name(self, name: str, earlier: str, place: tuple[int, int] | None) -> None:
        if self._warned or place is None:
            return
        self._warned = True
        what = "the data set has changed" if self._named else "earlier samples were numbered otherwise"
        warn(
            f"{what}: item {place[1]} of loader {place[0]} is {name!r} now, and what is stored of it is named "
            f"{earlier!r}; a sample is known by its name, and is stored if there is none of that name"
        )


def _same_runs(manifest: Manifest, series: Series, datasets: Sequence[Any]) -> dict[int, set[str]]:
    """By loader, the runs over the very same data set, as far as that is known."""
    same: dict[int, set[str]] = {}
    about = [one for one in manifest.loaders if one.series == series]
    for number, dataset in enumerate(datasets if about else ()):
        now = Loader(length_of(dataset), fingerprint_of(dataset))
        if now.fingerprint is not None:
            same[number] = {one.run for one in about if number < len(one.loaders) and one.loaders[number] == now}
    return same


def _may_be_equal(suffix: str, other: str | None) -> bool:
    """Whether files with these suffixes may have one name, as `a.mask` with `.png` and `a` with `.mask.png` have.

    Args:
        suffix: A suffix.
        other: Another one; None for records that name the files themselves.
    """
    return other is None or suffix.endswith(other) or other.endswith(suffix)
