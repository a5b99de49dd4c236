"""``lighter-async replay``: write what could not be written, from quarantine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from rich.console import Console

from lighter_async.cli.replay_choice import of_runs_that_count, still_to_write
from lighter_async.cli.replay_named import WritersOfValues, is_registered, writer_named
from lighter_async.cli.replay_writers import Writers, object_of
from lighter_async.cli.steps import step
from lighter_async.cli.words import printable, refuse, say
from lighter_async.errors import LighterAsyncError, WriteError, describe
from lighter_async.manifest import Manifest, read_manifest
from lighter_async.store import Store, source_of
from lighter_async.targets import DirectoryTarget, LocalTarget
from lighter_async.workers import Kept, kept_in
from lighter_async.writers import resolve_writer

__all__ = ["run_replay"]

_WAY_OUT = (
    "Name the writer with --writer: tensor, image_2d, image_3d, text, or module:name of an encoder or a function "
    "(path, value) in a module that can be imported from here"
)


def run_replay(
    where: str | os.PathLike[str] | DirectoryTarget, *, writer: str | None, list_only: bool, trust: bool = False
) -> int:
    """Write the values in quarantine, each under its name, and remove those that are stored.

    A value is not written, and removed too, if a later run has stored its sample, or has kept a later value of it.

    Args:
        where: What the writer was given: the directory, or a target that stores below one.
        writer: The writer, a registered name or ``module:name``; by default the one that failed, which has to be
            registered.
        list_only: Only say what there is.
        trust: Whether values may be unpickled, which runs what their files say, and whether writers of the user's get
            the options that errors tell.

    Returns:
        0 if all are written, 1 if not, or if an error is not valid, 2 if nothing was tried: there is no such directory,
        or none of the writers is known.
    """
    directory, store, key = source_of(where)
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
        kept = [one for one in kept if key in (None, one.about["key"]) and _is_valid(one, invalid)]
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
        writers: dict[str, str] = {}
        unknown: list[str] = []
        names = list(dict.fromkeys(one.about["writer"] for one in kept))
        chosen = ""
        if writer is not None:
            try:
                chosen = resolve_writer(writer_named(writer, given=True)).name
            except Exception as error:
                return refuse(f"{_unknown(writer, error, given=True)}; nothing was written. {_WAY_OUT}")
        for name in names:
            # Of several writers, the one that is given is for its own values, and for those that nobody else knows.
            if writer is not None and (len(names) == 1 or name == chosen or not is_registered(name)):
                writers[name] = writer
                continue
            try:
                writers[name] = writer_named(name, given=False)
            except Exception as error:
                unknown.append(_unknown(name, error, given=False))
        if not writers:
            return refuse(f"{'; '.join(unknown)}; nothing was written. {_WAY_OUT}")
        for text in unknown:
            say(f"{text}; its values stay. {_WAY_OUT}")
        kept = [one for one in kept if one.about["writer"] in writers]
        target = LocalTarget(directory) if isinstance(where, (str, os.PathLike)) else where
        code = _replay(target, store, kept, manifest, WritersOfValues(writers, given=writer, trust=trust), trust=trust)
    return 1 if invalid or unknown else code


def _replay(
    target: DirectoryTarget,
    store: Store,
    kept: Sequence[Kept],
    manifest: Manifest,
    writers_of: WritersOfValues,
    *,
    trust: bool,
) -> int:
    kept, left = of_runs_that_count(kept, manifest)
    made: dict[int, Any] = {}
    failed = []
    for one in kept:
        try:
            made[id(one)] = writers_of.of(one)
        except Exception as error:
            failed.append(f"{one.about['name']}: {_cause(error)}")
    unfit = len(failed)
    kept = [one for one in kept if id(one) in made]
    todo, old, refused = still_to_write(kept, manifest, store, lambda one: made[id(one)])
    with step(Console(stderr=True), f"Writing {len(todo)} from quarantine to {target.directory}", len(todo)) as tick:
        with Writers(target, manifest, trust=trust) as writers:
            for one in todo:
                try:
                    writers.write(one, made[id(one)])
                except Exception as error:
                    failed.append(f"{one.about['name']}: {_cause(error)}")
                else:
                    one.release()
                tick()
    for one in old:
        one.release()
    written = len(todo) - len(failed) + unfit
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
    print(f"{written} of {_values(len(todo) + len(refused) + unfit)} written; {len(failed)} still in quarantine")
    return 1 if failed else 0


def _is_valid(one: Kept, invalid: list[str]) -> bool:
    """Whether it is told where a value would be stored; else that is noted."""
    try:
        object_of(one)
    except LighterAsyncError as error:
        invalid.append(f"{one.folder} is left out, for its error is not valid: {error}")
        return False
    return True


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
