"""The writers that write values from quarantine."""

from __future__ import annotations

from typing import Any

from lighter_async.errors import LighterAsyncError, describe
from lighter_async.manifest import Manifest
from lighter_async.names import check_name
from lighter_async.service import BackgroundWriter
from lighter_async.store import ARRAY_SUFFIXES, TABLE_SUFFIXES, TABLE_WRITER
from lighter_async.targets import ArrayTarget, DirectoryTarget, LocalTarget, TableTarget, TarShards, has_shards
from lighter_async.types import Durability, Origin, Run
from lighter_async.workers import Kept, NeedsTrustError
from lighter_async.writers import PathFunction, first_series, resolve_writer

__all__ = ["Writers", "object_of", "series_of"]

# By the writer of rows, what the names of their objects end in.
_ENDINGS = {"row": ARRAY_SUFFIXES, TABLE_WRITER: TABLE_SUFFIXES}


class Writers:
    """One writer for the values of each rank and series, opened anew after it has failed.

    Args:
        target: Where the results are; each writer stores in one of its own, made of it.
        manifest: What is stored there.
        trust: Whether values may be unpickled.
    """

    def __init__(self, target: DirectoryTarget, manifest: Manifest, *, trust: bool) -> None:
        self._trust = trust
        self._target = target
        self._blocks = list(manifest.records.blocks)
        self._runs = {(run.run, run.writer, run.key): run for run in manifest.runs}
        self._open: tuple[object, BackgroundWriter] | None = None

    def __enter__(self) -> Writers:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def write(self, one: Kept, writer: Any) -> None:
        """Write one value, by its writer of `WritersOfValues`; it is stored and recorded when this returns."""
        about = one.about
        try:
            value = one.value(trust=self._trust)
        except NeedsTrustError as error:
            raise LighterAsyncError(f"{error}; give --trust if you trust all who can write to {one.folder}") from error
        except Exception as error:
            raise LighterAsyncError(
                f"its value cannot be loaded here ({describe(error)}); what it is made of has to be in a module that "
                "can be imported from the working folder"
            ) from error
        index = about["index"]
        origin = Origin(None if index is None else (index,), about["loader"], about["batch"])
        background = self._writer_of(one, writer)
        try:
            background.submit(about["name"], value, origin=origin)
            background.flush()
        except BaseException:
            self._open = None
            background.abort()
            raise

    def _writer_of(self, one: Kept, writer: Any) -> BackgroundWriter:
        about = one.about
        wanted = about["rank"], about["key"], about["run"], about["writer"], id(writer)
        if self._open is not None and self._open[0] == wanted:
            return self._open[1]
        self._close()
        earlier = self._runs.get((about["run"], *series_of(one)))
        run = Run(rank=int(about["rank"]), key=about["key"], numbered=earlier is not None and earlier.numbered)
        # A run without a manifest is not to get one that knows these values alone.
        recorded = earlier is not None
        is_function = isinstance(resolve_writer(writer), PathFunction)
        # As the run had it; a function's files are its own affair.
        is_synced = "fsync" in (about.get("durability"), earlier.durability if earlier is not None else None)
        durability: Durability = "fsync" if is_synced and not is_function else "rename"
        target: Any
        if (name := object_of(one)) is not None:
            kind = ArrayTarget if about["writer"] == "row" else TableTarget
            target = kind(self._target.directory / name, durability=durability, run=run)
        else:
            target = self._target
            if isinstance(target, LocalTarget) and self._lies_in_shards(one) and not is_function:
                target = TarShards(target.directory)
            target = target.of_run(run)
            target.if_exists = "overwrite"
            target.durability = durability
        background = BackgroundWriter(
            writer,
            target=target,
            run_config=None if earlier is None else earlier.config,
            mix_configs=True,
            backend="thread",
            max_workers=1,
            manifest=recorded,
            resume=recorded,
        )
        background._start_replacing()  # what lacks a sample is not replaced by it, and needs no warning
        self._open = wanted, background
        return background

    def _lies_in_shards(self, one: Kept) -> bool:
        """Whether samples of a value's series are stored in shards: as its run has stored others, if it has."""
        for block in self._blocks:
            if block.is_known and (block.head.writer, block.head.key) == series_of(one):
                return block.head.has_offsets
        return has_shards(self._target.directory)

    def _close(self) -> None:
        open_, self._open = self._open, None
        if open_ is not None:
            open_[1].close()


def object_of(one: Kept) -> str | None:
    """The file name of the array, or the table, that a sample is to be a row of; None of any other sample.

    Raises:
        LighterAsyncError: What its error says is no such name.
    """
    key = str(one.about["key"])
    if not key.endswith(_ENDINGS.get(str(one.about["writer"]), ())):
        return None
    check_name(key)
    if "/" in key:
        raise LighterAsyncError(f"its key, {key!r:.200}, is no name of an array or a table")
    return key


def series_of(one: Kept) -> tuple[str, str]:
    """The writer and the key that the sample is recorded under; of a sample of several outputs, those of the first."""
    return first_series(str(one.about["writer"]), str(one.about["key"]))
