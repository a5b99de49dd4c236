"""The callbacks that write all predictions as rows of one table, in the background."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lighter_async.callback.file_writer import FileWriter
from lighter_async.callback.target_of_ranks import target_of_rank
from lighter_async.errors import shown
from lighter_async.options import RowOptions, as_attributes, documented
from lighter_async.service import BackgroundWriter
from lighter_async.targets import TableTarget
from lighter_async.types import Run

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["CsvWriter", "TableWriter"]


@as_attributes(RowOptions)
@documented(RowOptions)
class TableWriter(FileWriter):
    """Writes some values per predicted sample as a row of one table, ``.parquet``, ``.csv`` or ``.jsonl``.

    Rows stand in the data set's order, whichever rank has predicted them, and each sample is there once: those with
    which a sampler fills up ranks are left out. Beside the columns of `keys` there are ``index``, where it is known,
    ``loader``, where there are several, and ``name``, where there is a `name_key`; a key that is called so takes that
    column's place. Texts stay as they are, and tensors keep their dtype. The table is there when the last rank ends,
    whole; what was stored before a crash is not lost, and `open_results` reads it at any time. See `TableTarget`, and
    `FileWriter` for all else.

    Args:
        path: Where the table goes, ending in ``.parquet``, ``.csv`` or ``.jsonl``. Its folder is made if there is none.
        keys: The entries of the outputs that become columns. Of each a tensor or array with a batch dimension is one
            value per row, a sequence one per item; anything else is that of all samples of the batch.
        name_key: The entry of the outputs that names the samples. None numbers them by their index in the data set.
        sigterm_grace: As of `FileWriter`.
        return_predictions: As of `FileWriter`.
        {options}

    Raises:
        ValueError: An option is out of range, the path ends otherwise, or a key is there twice.
        TypeError: `keys` is no list of texts, or an option is of a wrong type.
        ImportError: A ``.parquet`` table needs pyarrow, which is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        keys: Sequence[str],
        name_key: str | None = None,
        *,
        sigterm_grace: float | None = 25.0,
        return_predictions: bool | None = None,
        **options: Unpack[RowOptions],
    ) -> None:
        if isinstance(keys, str) or not isinstance(keys, Sequence) or not all(isinstance(key, str) for key in keys):
            raise TypeError(f"keys is a list of the entries that become columns, not {shown(keys)}; write ['score']")
        if not keys:
            raise ValueError("keys are the entries that become columns, one or more, and there are none")
        twice = [key for place, key in enumerate(keys) if key in keys[:place]]
        if twice:
            raise ValueError(
                f"keys are the entries that become columns, each once, and {shown(twice[0])} is there twice"
            )
        self.keys = list(keys)
        super().__init__(
            TableTarget(path),
            dict.fromkeys(self.keys, "table_row"),
            None,
            name_key,
            sigterm_grace=sigterm_grace,
            return_predictions=return_predictions,
            **options,
        )

    _takes = RowOptions
    _shares_single_values = True

    def _background_writer(self, *, local_ranks: int, run: Run) -> BackgroundWriter:
        given, target = self.options, self._target
        assert isinstance(target, TableTarget)
        target = TableTarget(
            target.path, if_exists=given.if_exists or "overwrite", durability=given.durability or "rename"
        )
        options = self._given(replace(given, if_exists=None, durability=None), local_ranks)
        return BackgroundWriter("table_row", target_of_rank(target, run, self._path), **options)

    @property
    def replaces(self) -> bool:
        return self.options.if_exists is None and not self.options.resume


@as_attributes(RowOptions)
@documented(RowOptions)
class CsvWriter(TableWriter):
    """Writes some values per predicted sample as a row of one CSV file: a `TableWriter` whose path ends in ``.csv``.

    It has the interface of ``lighter.callbacks.CsvWriter``.

    Args:
        path: Where the file goes, ending in ``.csv``. Its folder is made if there is none.
        keys: The entries of the outputs that become columns, as of `TableWriter`.
        name_key: As of `TableWriter`.
        sigterm_grace: As of `FileWriter`.
        return_predictions: As of `FileWriter`.
        {options}

    Raises:
        ValueError: As `TableWriter`, or the path ends otherwise.
        TypeError: As `TableWriter`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        keys: Sequence[str],
        name_key: str | None = None,
        *,
        sigterm_grace: float | None = 25.0,
        return_predictions: bool | None = None,
        **options: Unpack[RowOptions],
    ) -> None:
        if Path(path).suffix != ".csv":
            raise ValueError(
                f"CsvWriter writes .csv files, and {os.fspath(path)!r:.500} ends otherwise; TableWriter also writes "
                ".parquet and .jsonl"
            )
        super().__init__(
            path,
            keys,
            name_key,
            sigterm_grace=sigterm_grace,
            return_predictions=return_predictions,
            **options,
        )
