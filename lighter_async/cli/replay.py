"""``lighter-async replay``: write what could not be written, from quarantine."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from lighter_async.cli.steps import step
from lighter_async.errors import describe
from lighter_async.service import BackgroundWriter
from lighter_async.types import Origin, Run
from lighter_async.workers import Kept, kept_in
from lighter_async.writers import Encoder, resolve_writer

__all__ = ["run_replay"]


def run_replay(directory: Path, *, writer: str | None, list_only: bool) -> int:
    """Write the values in quarantine, each under its name, and remove those that are stored.

    Args:
        directory: Where the results are.
        writer: The writer, a registered name or ``module:name``; by default the one that failed, which has to be
            registered.
        list_only: Only say what there is.

    Returns:
        0 if all are written, 1 if not, 2 if the writer is not known.
    """
    kept = list(kept_in(directory))
    if list_only or not kept:
        for one in kept:
            print(f"{one.about['name']}: {one.about['error']}  [{one.folder}]")
        print(f"{len(kept)} values are in quarantine below {directory}")
        return 0
    failed = []
    with step(Console(stderr=True), f"Writing {len(kept)} values to {directory}", len(kept)) as tick:
        for one in kept:
            try:
                chosen = _writer(writer or one.about["writer"])
            except (ValueError, TypeError, ImportError, AttributeError) as error:
                print(
                    f"lighter-async: {error}; name the writer with --writer, a registered name or module:name",
                    file=sys.stderr,
                )
                return 2
            try:
                _write(one, chosen, directory)
            except Exception as error:
                failed.append(f"{one.about['name']}: {describe(error)}")
            else:
                one.release()
            tick()
    for text in failed:
        print(f"lighter-async: {text}", file=sys.stderr)
    print(f"{len(kept) - len(failed)} of {len(kept)} values are written; {len(failed)} are still in quarantine")
    return 1 if failed else 0


def _writer(name: str) -> Any:
    if ":" not in name:
        return resolve_writer(name)
    module, _, attribute = name.partition(":")
    sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module), attribute)
    finally:
        sys.path.remove("")


def _write(one: Kept, writer: Any, directory: Path) -> None:
    about = one.about
    run = Run(rank=int(about["rank"]), key=about["key"])
    function = writer if isinstance(writer, Encoder) or callable(writer) else writer.name
    index = about["index"]
    origin = Origin(None if index is None else [index], about["loader"], about["batch"])
    with BackgroundWriter(
        getattr(function, "function", function), directory, backend="thread", max_workers=1, resume=True, run=run
    ) as background:
        background.submit(about["name"], one.value(), origin=origin)
