"""What was stored, as a mapping from names to values."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lighter_async.errors import ReadError, describe, shown
from lighter_async.manifest import Record, checksum
from lighter_async.manifest.entry import place_of
from lighter_async.manifest.records import Records
from lighter_async.names import Name, name_of
from lighter_async.optional_packages import optional
from lighter_async.results.index import Index
from lighter_async.results.rows import stored_rows
from lighter_async.store import TABLE_WRITER, Store
from lighter_async.tables import content_of
from lighter_async.writers import Encoder, as_stored
from lighter_async.writers.registry import encoder_of

if TYPE_CHECKING:
    from lighter_async.results.dataset import ResultsDataset

__all__ = ["Results"]

_NO_REPAIR = "unreadable", "not decoded"


class Results(Mapping[str, Any]):
    """The stored samples of one series: a mapping from their names to their values. `open_results` makes one.

    It holds what was recorded when it was opened, in the data set's order: by loader and index, then what has no index,
    by time. Values are read when they are asked for. It has nothing open, may be used from several threads, and can be
    pickled. Two of them are equal only if they are the same object.

    Attributes:
        writer: The writer's name.
        key: The series' key: a `FileWriter`'s ``value_key``.
    """

    __hash__ = object.__hash__

    def __init__(
        self,
        index: Index,
        store: Store,
        *,
        writer: str,
        key: str,
        options: Mapping[tuple[str, int], tuple[Mapping[str, Any], tuple[str, ...]]] | None = None,
        decode: Callable[[bytes], Any] | Encoder | None = None,
        check: bool = True,
        trust: bool = False,
    ) -> None:
        self.writer = writer
        self.key = key
        self._index = index
        self._store = store
        self._chosen = decode
        self._check = check
        self._trust = trust
        self._options = dict(options or {})  # by run and rank: those that are recorded, and the names of others
        self._encoder: Encoder | None = None
        self._with_options: dict[tuple[str, int], Encoder] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_encoder": None, "_with_options": {}}  # found anew by its name

    def __eq__(self, other: object) -> bool:
        return self is other  # values may be tensors, so they are not compared

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[str]:
        return self._index.names()

    def __contains__(self, name: object) -> bool:
        return self._number(name) is not None

    def __getitem__(self, name: Name) -> Any:
        """The value of a sample, as its format holds it.

        A name may be what it may be in `BackgroundWriter.submit`: ``results[7]`` is the sample that is called ``"7"``.
        `at` looks up an index in the data set, which numbered samples are called by.

        A ``tensor`` is what `torch.load` reads, on the CPU; an image a numpy array of pixels, CHW (a volume CDHW), of
        uint8, or uint16 for mode ``"I;16"``; a text a str; of an encoder of yours, what its ``decode`` returns.

        Raises:
            KeyError: No sample of this name is stored.
            ReadError: Its file is gone, damaged or a link, or no value can be made of it.
        """
        return self._value(self.record(name))

    def at(self, index: int, *, loader: int = 0) -> Any:
        """The value of the sample that has an index in the data set.

        Args:
            index: The index.
            loader: Of which data loader.

        Raises:
            KeyError: It is not stored, its index was not recorded, or runs over different data sets count.
            ReadError: As for names.
        """
        return self._value(self._index[self._index.number_at(operator.index(index), loader)])

    def read_bytes(self, name: Name) -> bytes:
        """The bytes of a sample's file.

        Raises:
            KeyError: No sample of this name is stored.
            ReadError: Its file is gone, damaged or a link.
        """
        return bytes(self._data(self.record(name)))

    def record(self, name: Name) -> Record:
        """What is recorded of a sample: its file, size, checksum, index, shape, run, and more.

        Raises:
            KeyError: No sample of this name is stored.
        """
        number = self._number(name)
        if number is None:
            raise KeyError(self._why_no(name))
        return self._index[number]

    def to_array(self) -> NDArray[Any]:
        """All values in one numpy array, row by row in this mapping's order, which is the data set's.

        Of an `ArrayTarget` the file is mapped where it is complete: nothing is read or compared before it is looked at.
        Where it is not, the rows that are there are given, which `mask` tells.

        Raises:
            ValueError: There are none, or one has another shape or dtype than the first; it is named.
            TypeError: A value is no array of numbers; it is named.
            ReadError: As for names.
        """
        if self._chosen is None and (stored := stored_rows(self._index.blocks, self._store)) is not None:
            return stored.to_array()
        rows: NDArray[Any] | None = None
        first = ""
        for number, record in enumerate(self._index):
            row = _as_array(self._value(record), record.name)
            if rows is None:
                rows, first = np.empty((len(self), *row.shape), row.dtype), record.name
            elif (row.shape, row.dtype) != (rows.shape[1:], rows.dtype):
                raise ValueError(
                    f"{shown(record.name)} has shape {row.shape} and dtype {row.dtype}, but {shown(first)}, the first "
                    f"one, {rows.shape[1:]} and {rows.dtype}; only equal ones make one array"
                )
            rows[number] = row
        if rows is None:
            raise ValueError(f"nothing is stored in {self._store.location!r}, so the array's shape is not known")
        return rows

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Which rows of an array are stored: shape (rows,), bool. ``results.to_array()`` has those that are.

        Raises:
            TypeError: The samples are not the rows of one array.
            ReadError: Its file is gone, or is not as recorded.
        """
        stored = stored_rows(self._index.blocks, self._store)
        if stored is None:
            raise TypeError(
                f"{self!r} are not the rows of an array that an ArrayTarget has stored, so they have no mask"
            )
        return stored.mask

    def to_pandas(self) -> Any:
        """The records as a pandas `DataFrame`, a row each, in this mapping's order; columns as of `Record`.

        Of a table it is the table itself, with the columns of its file: lists are arrays.

        Raises:
            ImportError: pandas is not installed, or of a table pyarrow.
            ReadError: A row of a table is gone or damaged.
        """
        with optional("a DataFrame is one of pandas", "pandas"):
            import pandas

        if self.writer == TABLE_WRITER and self._chosen is None:
            return self.to_arrow().to_pandas()
        return pandas.DataFrame(self._index.columns())

    def to_arrow(self) -> Any:
        """A table as a `pyarrow.Table`, with the columns of its file and the types that its values were stored with.

        Raises:
            TypeError: The samples are not the rows of a table.
            ImportError: pyarrow is not installed.
            ReadError: A row is gone or damaged.
        """
        if self.writer != TABLE_WRITER:
            raise TypeError(f"{self!r} are not the rows of a table that a TableTarget has stored")
        with optional("a Table is one of pyarrow", "pyarrow"):
            import pyarrow

        from lighter_async.tables.arrow import arrow_table, schema_of

        content = content_of(Records(self._index.blocks), self._store)
        schema = schema_of(content.types)
        parts = [arrow_table(chunk, schema) for chunk in content.chunks()]
        for name, why in content.unread[:1]:
            raise self._error(self.record(name), "unreadable", why)
        return pyarrow.concat_tables(parts) if parts else schema.empty_table()

    def dataset(self) -> ResultsDataset:
        """A map-style torch `Dataset`: item i is ``(name, value)`` of the i-th sample in this mapping's order.

        A `DataLoader` makes batches of it: a tuple of names, and the values stacked. With ``spawn`` each worker is sent
        the records; values and open files are not shared.
        """
        from lighter_async.results.dataset import ResultsDataset

        return ResultsDataset(self)

    def item(self, number: int) -> tuple[str, Any]:
        """The name and value of the sample at a place of this mapping's order, from 0 on.

        Raises:
            IndexError: There are not so many.
            ReadError: As for names.
        """
        record = self._index[number]
        return record.name, self._value(record)

    def __repr__(self) -> str:
        of = f", key {self.key!r}" if self.key else ""
        return f"<{len(self)} results of writer {self.writer!r}{of} in {self._store.location!r}>"

    def _value(self, record: Record) -> Any:
        data = self._data(record)
        try:
            if self._chosen is not None and not isinstance(self._chosen, Encoder):
                return self._chosen(bytes(data))
            encoder = self._encoder_of(record)
            return encoder.decode(data, shape=record.shape, dtype=record.dtype, trust=self._trust)
        except Exception as error:
            raise self._error(record, "not decoded", describe(error)) from error

    def _encoder_of(self, record: Record) -> Encoder:
        encoder = self._encoder or self._find_encoder(record)
        source = record.run, record.rank
        if self._chosen is not None or source not in self._options:
            return encoder
        found = self._with_options.get(source)
        if found is None:
            found = self._with_options[source] = as_stored(encoder, *self._options[source], trust=self._trust)
        return found

    def _find_encoder(self, record: Record) -> Encoder:
        encoder = self._chosen if isinstance(self._chosen, Encoder) else encoder_of(self.writer, record.file or "")
        if encoder is None or encoder.decoder is None:
            lacks = "is registered under no name" if encoder is None else "has no decoder"
            raise TypeError(
                f"writer {self.writer!r} {lacks}; give open_results(..., decode=FUNCTION), from bytes to a value, or "
                "the encoder itself, or take read_bytes"
            )
        self._encoder = encoder
        return encoder

    def _data(self, record: Record) -> bytes | memoryview:
        place = place_of(record)
        if place is None:
            raise self._error(
                record,
                "unreadable",
                f"writer {self.writer!r} is a function (path, value), of whose files nothing is recorded; it was given "
                f"the path {record.name!r} below {self._store.location!r}",
            )
        try:
            data = self._store.read(place)
        except ReadError as error:
            raise self._error(record, error.trouble, error.detail) from error
        if self._check and (found := checksum([memoryview(data)])) != place.checksum:
            raise self._error(record, "wrong checksum", f"its checksum is {found} instead of {place.checksum}")
        return data

    def _error(self, record: Record, trouble: str, detail: str) -> ReadError:
        file = "" if record.file is None else f" ({record.file!r} in {self._store.location!r})"
        way_out = (
            ""
            if trouble in _NO_REPAIR
            else (
                "; if a run has stored it anew since these results were opened, open them again, else "
                "lighter-async verify DIR --repair has the next run with resume=True compute it again"
            )
        )
        return ReadError(
            f"sample {shown(record.name)}{file} cannot be read: {detail}{way_out}",
            name=record.name,
            file=record.file,
            trouble=trouble,
            detail=detail,
        )

    def _number(self, given: object) -> int | None:
        """The place of the sample of a name in this mapping's order; None if there is none, or that is no name."""
        try:
            return self._index.number(name_of(given, "the name of a sample"))
        except TypeError:
            return None

    def _why_no(self, given: object) -> str:
        try:
            name = name_of(given, "the name of a sample")
        except TypeError as error:
            return str(error)
        for record in self._index:
            suffix = (record.file or "").removeprefix(record.name)
            stem = name.removesuffix(suffix)
            if suffix and stem != name and stem in self:
                return f"{shown(name)} is a file; its sample is called {shown(stem)}"
            break
        some = ", ".join(shown(one) for one in islice(self, 3))
        stored = f"{len(self)} are, such as {some}" if some else "none is"
        told = f"{shown(name)} is not stored by writer {self.writer!r} in {self._store.location!r}; {stored}"
        return told if isinstance(given, str) else f"{told}; results.at(INDEX) looks up an index in the data set"


def _as_array(value: Any, name: str) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except Exception as error:
        raise TypeError(f"no numpy array can be made of {shown(name)}: {describe(error)}") from error
    if array.dtype.kind not in "biufcmM":
        raise TypeError(f"{shown(name)} is {shown(value)}, and to_array stacks tensors, arrays and numbers alone")
    return array
