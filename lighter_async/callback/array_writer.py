"""The callback that writes all predictions as rows of one array, in the background."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lighter_async.callback.dataset_indices import length_of
from lighter_async.callback.file_writer import FileWriter
from lighter_async.callback.target_of_ranks import target_of_rank
from lighter_async.configs import PathLike
from lighter_async.options import RowOptions, as_attributes, documented
from lighter_async.service import BackgroundWriter
from lighter_async.targets import ArrayTarget
from lighter_async.types import Run

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ArrayWriter"]


@as_attributes(RowOptions)
@documented(RowOptions)
class ArrayWriter(FileWriter):
    """Writes one value per predicted sample as a row of one array, ``.npy`` or ``.zarr``, in the background.

    Row i is the sample with index i in the data set; of several data loaders the rows go on one after the other. All of
    them have the dtype and shape of the first one. Until every row is stored they lie in ``NAME.npy.part``, or
    ``NAME.zarr.part``; `open_results` reads them then, too. Indices have to be known, as they are for loaders of
    map-style data sets of whose items `predict_step` returns a sample each. See `ArrayTarget`, and `FileWriter` for all
    else.

    Args:
        path: Where the array goes, ending in ``.npy`` or ``.zarr``. Its folder is made if there is none.
        value_key: The entry of the outputs to write: a tensor or array with a batch dimension, or a sequence of these.
        name_key: The entry of the outputs that names the samples, for the records. They are known by their indices.
        chunk_rows: As of `ArrayTarget`.
        sigterm_grace: As of `FileWriter`.
        return_predictions: As of `FileWriter`.
        {options}

    Raises:
        ValueError: An option is out of range, or the path ends in neither ``.npy`` nor ``.zarr``.
        TypeError: `value_key` is no text, or an option is of a wrong type.
    """

    def __init__(
        self,
        path: str | PathLike,
        value_key: str,
        name_key: str | None = None,
        *,
        chunk_rows: int | None = None,
        sigterm_grace: float | None = 25.0,
        return_predictions: bool | None = None,
        **options: Unpack[RowOptions],
    ) -> None:
        if not isinstance(value_key, str):
            raise TypeError(
                f"value_key is the one entry that becomes a row, not {type(value_key).__name__}; of several outputs "
                "each takes an ArrayWriter of its own"
            )
        self._rows: list[int] | None = None
        self._run: Run | None = None
        self._local_ranks = 1
        super().__init__(
            ArrayTarget(path, chunk_rows=chunk_rows),
            value_key,
            "row",
            name_key,
            sigterm_grace=sigterm_grace,
            return_predictions=return_predictions,
            **options,
        )

    _takes = RowOptions
    _takes_also = (*FileWriter._takes_also, "chunk_rows")

    @property
    def replaces(self) -> bool:
        return self.options.if_exists is None and not self.options.resume

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin the array, now that Lightning knows how many rows there will be."""
        if self._writer is not None and self._outputs is not None and self._run is not None:
            lengths = [length_of(dataset) for dataset in self._outputs.datasets]
            known: list[int] = [length for length in lengths if length is not None]
            if len(known) == len(lengths) and any(known):
                self._rows = known
                self._writer = self._background_writer(local_ranks=self._local_ranks, run=self._run)
        super().on_predict_start(trainer, pl_module)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Close the writer."""
        super().teardown(trainer, pl_module, stage)
        self._rows = self._run = None

    @property
    def _starts_with_batches(self) -> bool:
        return True  # only then the number of rows is known

    def _background_writer(self, *, local_ranks: int, run: Run) -> BackgroundWriter:
        self._local_ranks, self._run = local_ranks, run
        given, target = self.options, self._target
        assert isinstance(target, ArrayTarget)
        target = ArrayTarget(
            target.path,
            self._rows,
            if_exists=given.if_exists or "overwrite",
            durability=given.durability or "rename",
            chunk_rows=target.chunk_rows,
        )
        options = self._given(replace(given, if_exists=None, durability=None), local_ranks)
        return BackgroundWriter("row", target_of_rank(target, run, self._path), **options)
