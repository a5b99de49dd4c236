"""``lighter-async replay``: write what could not be written, from quarantine."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from lighter_async.cli.steps import step
from lighter_async.cli.words import printable, refuse, say
from lighter_async.errors import LighterAsyncError, WriteError, describe
from lighter_async.manifest import Manifest, Record, read_manifest
from lighter_async.names import with_suffix
from lighter_async.service import BackgroundWriter
from lighter_async.store import DirectoryStore, Store
from lighter_async.targets import LocalTarget, TarShards, has_shards
from lighter_async.types import Origin, Run
from lighter_async.workers import Kept, NeedsTrustError, kept_in
from lighter_async.writers import (
    Encoder,
    Outputs,
    PathFunction,
    first_series,
    key_of_output,
    outputs_of,
    resolve_writer,
    writer_registry,
)

__all__ = ["run_replay"]

_WAY_OUT = (
    "Name the writer with --writer: tensor, image_2d, image_3d, text, or module:name of an encoder or a function "
    "(path, value) in a module that can be imported from here"
)


def run_replay(directory: Path, *, writer: str | None, list_only: bool, trust: bool = False) -> int:
    """Write the values in quarantine, each under its name, and remove those that are stored.

    A value is not written, and removed too, if a later run has stored its sample, or has kept a later value of it.

    Args:
        directory: Where the results are.
        writer: The writer, a registered name or ``module:name``; by default the one that failed, which has to be
            registered.
        list_only: Only say what there is.
        trust: Whether values may be unpickled, which runs what their files say.

    Returns:
        0 if all are written, 1 if not, or if an error is not valid, 2 if nothing was tried: there is no such directory,
        or none of the writers is known.
    """
    if not directory.is_dir():
        return refuse(f"there is no directory {str(directory)!r}; give the one that the results were written to")
    try:
        manifest = read_manifest(directory)
        invalid: list[str] = []
        order = {run.run: run.sequence for run in manifest.runs}
        kept = sorted(
            kept_in(directory, skipped=invalid.append),
            key=lambda one: (order.get(one.about["run"], 0), float(one.about["time"])),
        )
    except (LighterAsyncError, OSError, ValueError, KeyError) as error:
        return refuse(f"what is in quarantine below {str(directory)!r} cannot be read: {describe(error)}")
    for text in invalid:
        say(text)
    if list_only or not kept:
        for one in kept:
            print(f"{printable(one.about['name'])}: {printable(one.about['error'])}  [{printable(str(one.folder))}]")
        print(f"{_values(len(kept))} in quarantine below {directory}")
        return 1 if invalid else 0
    # Values and writers may be of modules that lie where the command is called.
    with _importing_from_here() if writer is not None or trust else nullcontext():
        writers: dict[str, Any] = {}
        unknown: list[str] = []
        names = list(dict.fromkeys(one.about["writer"] for one in kept))
        chosen = ""
        if writer is not None:
            try:
                chosen = resolve_writer(_writer(writer, given=True)).name
            except Exception as error:
                return refuse(f"{_unknown(writer, error, given=True)}; nothing was written. {_WAY_OUT}")
        for name in names:
            # Of several writers, the one that is given is for its own values, and for those that nobody else knows.
            if writer is not None and (len(names) == 1 or name == chosen or not _is_registered(name)):
                writers[name] = writer
                continue
            try:
                writers[name] = _writer(name, given=False)
            except Exception as error:
                unknown.append(_unknown(name, error, given=False))
        if not writers:
            return refuse(f"{'; '.join(unknown)}; nothing was written. {_WAY_OUT}")
        for text in unknown:
            say(f"{text}; its values stay. {_WAY_OUT}")
        kept = [one for one in kept if one.about["writer"] in writers]
        code = _replay(directory, kept, manifest, lambda one: writers[one.about["writer"]], trust=trust)
    return 1 if invalid or unknown else code


def _replay(
    directory: Path, kept: Sequence[Kept], manifest: Manifest, writer_of: Callable[[Kept], Any], *, trust: bool
) -> int:
    kept, left = _of_runs_that_count(kept, manifest)
    current, old, refused = _current(kept, manifest, directory, writer_of)
    failed = []
    with step(Console(stderr=True), f"Writing {len(current)} from quarantine to {directory}", len(current)) as tick:
        with _Writers(directory, manifest, trust=trust) as writers:
            for one in current:
                try:
                    writers.write(one, writer_of(one))
                except Exception as error:
                    failed.append(f"{one.about['name']}: {_cause(error)}")
                else:
                    one.release()
                tick()
    for one in old:
        one.release()
    written = len(current) - len(failed)
    failed += [
        f"{one.about['name']}: another sample is stored under this name; rename one of them, and take the "
        f"value from {one.folder}"
        for one in refused
    ]
    for text in failed:
        say(text)
    if old:
        print(f"{_values(len(old))} not written, since the same samples were stored or kept again later")
    if left:
        others = " and others" if len(left) > 1 else ""
        print(
            f"{_values(len(left))} left in quarantine, since a run began anew after them, without resume=True, for "
            f"which they do not count: {printable(str(left[0].folder))}{others}; remove them"
        )
    print(f"{written} of {_values(len(current) + len(refused))} written; {len(failed)} still in quarantine")
    return 1 if failed else 0


def _of_runs_that_count(kept: Sequence[Kept], manifest: Manifest) -> tuple[list[Kept], list[Kept]]:
    """The values of runs that count, and those of runs before one that began anew."""
    counts: list[Kept] = []
    left: list[Kept] = []
    current = manifest.current_runs()
    known = {run.run for run in manifest.runs if run.sequence}
    for one in kept:
        about = one.about
        series = _series(one)
        # Without indices there is nothing that a run could begin anew.
        anew = about["index"] is not None and (
            about["run"] not in current.get(series, ())
            if about["run"] in known
            else any(
                run.series == series and not run.resume and run.time > float(about["time"]) for run in manifest.runs
            )
        )
        (left if anew else counts).append(one)
    return counts, left


def _current(
    kept: Sequence[Kept], manifest: Manifest, directory: Path, writer_of: Callable[[Kept], Any]
) -> tuple[list[Kept], list[Kept], list[Kept]]:
    """The latest value of each sample, those that something later replaced, and those whose name another one has."""
    store = DirectoryStore(directory)
    order = {run.run: run.sequence for run in manifest.runs}
    names = {str(one.about["name"]) for one in kept}
    stored = {(record.name, *record.series): record for record in _ordered(manifest.records.named(names))}
    outputs_of_kept = {id(one): _outputs(one, writer_of(one)) for one in kept}
    files = {output.file for outputs in outputs_of_kept.values() for output in outputs}
    of_files = {record.file: record for record in _ordered(manifest.records.of_files(files))}
    latest = {_sample(one): one for one in kept}
    current: list[Kept] = []
    old: list[Kept] = []
    refused: list[Kept] = []
    for one in kept:
        is_refused, is_stored = False, True
        # Of several outputs the sample is stored if all are: the value is the only copy of what is missing.
        for output in outputs_of_kept[id(one)]:
            record = stored.get((one.about["name"], *output.series))
            there = of_files.get(output.file)
            is_refused |= record is not None and _is_another(record, one)
            is_refused |= there is not None and there.key != output.series[1]
            is_stored &= (record is not None and _is_as_late(record, one, order)) or _is_newer(
                one, store, output.file, there, order
            )
        if is_refused:
            refused.append(one)
            continue
        (current if latest[_sample(one)] is one and not is_stored else old).append(one)
    return current, old, refused


def _ordered(records: Iterable[Record]) -> list[Record]:
    """In the data set's order, as `Manifest.records` are: of two the last one is meant."""
    return sorted(records, key=lambda one: (one.loader, one.index is None, one.index or 0, one.time))


def _is_another(record: Record, one: Kept) -> bool:
    """Whether a record is of another sample of the same run, which has the name of the one that was kept."""
    about = one.about
    return (
        record.run == about["run"]
        and None not in (record.index, about["index"])
        and (record.loader, record.index) != (about["loader"], about["index"])
    )


def _is_as_late(record: Record, one: Kept, order: Mapping[str, int]) -> bool:
    """Whether a sample was recorded by the run that has kept a value, or a later one; of old runs clocks tell."""
    recorded, kept = order.get(record.run, 0), order.get(one.about["run"], 0)
    return recorded >= kept if recorded and kept else record.time > float(one.about["time"])


def _is_newer(one: Kept, store: Store, file: str, record: Record | None, order: Mapping[str, int]) -> bool:
    """Whether there is a file under its name that was stored later, whoever stored it."""
    try:
        if record is not None and order.get(record.run, 0) and order.get(one.about["run"], 0):
            if _is_as_late(record, one, order):
                return True
            if store.checksum(file) == record.xxh3:
                return False  # the earlier run's, whatever the clock was then
        identity = store.identity(file)
        return identity is not None and identity.changed > one.since
    except OSError:
        return False


class _Output(NamedTuple):
    """Where one output of a kept value would be stored, and the writer and the key that it is recorded under."""

    file: str
    series: tuple[str, str]


def _outputs(one: Kept, writer: Any) -> list[_Output]:
    name, key = one.about["name"], str(one.about["key"])
    outputs = outputs_of(resolve_writer(writer))
    if not any(output.key for output in outputs):
        suffix = outputs[0].suffix if outputs else ""
        return [_Output(with_suffix(name, suffix), _series(one))]
    return [
        _Output(with_suffix(name, output.suffix), (output.encoder.name, key_of_output(key, output.key)))
        for output in outputs
    ]


def _sample(one: Kept) -> tuple[str, str, str]:
    return one.about["name"], *_series(one)


def _series(one: Kept) -> tuple[str, str]:
    """The writer and the key that the sample is recorded under; of a sample of several outputs, those of the first."""
    return first_series(str(one.about["writer"]), str(one.about["key"]))


class _Writers:
    """One writer for the values of each rank and series, opened anew after it has failed.

    Args:
        directory: Where the results are.
        manifest: What is stored there.
        trust: Whether values may be unpickled.
    """

    def __init__(self, directory: Path, manifest: Manifest, *, trust: bool) -> None:
        self._trust = trust
        self._directory = directory
        self._blocks = list(manifest.records.blocks)
        self._runs = {(run.run, run.writer, run.key): run for run in manifest.runs}
        self._open: tuple[object, BackgroundWriter] | None = None

    def __enter__(self) -> _Writers:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def write(self, one: Kept, writer: Any) -> None:
        """Write one value; it is stored and recorded when this returns."""
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
        wanted = about["rank"], about["key"], about["run"], about["writer"]
        if self._open is not None and self._open[0] == wanted:
            return self._open[1]
        self._close()
        named = _named(writer, str(about["writer"]))
        earlier = self._runs.get((about["run"], *_series(one)))
        run = Run(rank=int(about["rank"]), key=about["key"], numbered=earlier is not None and earlier.numbered)
        # A run without a manifest is not to get one that knows these values alone.
        recorded = earlier is not None
        # As the run had it; a function's files are its own affair.
        is_synced = "fsync" in (about.get("durability"), earlier.durability if earlier is not None else None)
        is_function = isinstance(resolve_writer(named), PathFunction)
        make = TarShards if self._lies_in_shards(one) and not is_function else LocalTarget
        background = BackgroundWriter(
            named,
            make(self._directory, durability="fsync" if is_synced and not is_function else "rename", run=run),
            run_config=None if earlier is None else earlier.config,
            mix_configs=True,
            backend="thread",
            max_workers=1,
            manifest=recorded,
            resume=recorded,
        )
        self._open = wanted, background
        return background

    def _lies_in_shards(self, one: Kept) -> bool:
        """Whether samples of a value's series are stored in shards: as its run has stored others, if it has."""
        for block in self._blocks:
            if block.is_known and (block.head.writer, block.head.key) == _series(one):
                return block.head.has_offsets
        return has_shards(self._directory)

    def _close(self) -> None:
        open_, self._open = self._open, None
        if open_ is not None:
            open_[1].close()


def _writer(name: str, *, given: bool) -> Any:
    """A writer as `BackgroundWriter` takes it.

    Raises:
        Exception: There is none of the name, or its module cannot be imported.
    """
    if ":" in name and not given and name not in writer_registry:
        raise ValueError("it is named by a module, and what an error says is never imported")
    resolve_writer(name)
    return name


def _is_registered(name: str) -> bool:
    try:
        _writer(name, given=False)
    except Exception:
        return False
    return True


def _named(writer: Any, name: str) -> Any:
    """A writer under the name of the one that failed, for its samples are to be of that one's series."""
    found = resolve_writer(writer)
    if found.name == name or isinstance(found, Outputs):
        return writer
    if isinstance(found, Encoder):
        encoder = copy.copy(found)
        encoder.name = name
        return encoder
    function = found.function

    def call(path: Path, value: Any) -> Any:
        return function(path, value)

    async def call_async(path: Path, value: Any) -> None:
        await function(path, value)

    named = call_async if found.is_async else call
    named.__name__ = name
    return named


def _unknown(name: str, error: Exception, *, given: bool) -> str:
    if isinstance(error, ValueError) and ":" not in name:
        return f"{'writer' if given else 'the writer that failed,'} {name!r} is none that is registered here"
    return (
        str(error) if given and isinstance(error, ValueError) else f"writer {name!r} cannot be had: {describe(error)}"
    )


@contextmanager
def _importing_from_here() -> Iterator[None]:
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _cause(error: Exception) -> str:
    if isinstance(error, WriteError) and error.cause is not None:
        return describe(error.cause)
    return str(error) if type(error) is LighterAsyncError else describe(error)


def _values(count: int) -> str:
    return "1 value is" if count == 1 else f"{count} values are"
