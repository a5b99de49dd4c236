"""``lighter-async verify``: whether everything that was stored is there, whole and unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from lighter_async.cli.steps import step
from lighter_async.cli.words import counted, in_bytes, printable, say
from lighter_async.errors import LighterAsyncError
from lighter_async.manifest.verify import Report, drop, is_in_use, verify
from lighter_async.store import source_of
from lighter_async.targets.table import write_again
from lighter_async.workers.quarantine import kept_in

__all__ = ["print_report", "run_verify"]

_SHOWN = 20


def run_verify(directory: Path, *, as_json: bool, repair: bool, workers: int | None) -> int:
    """Compare a directory with its manifest, and say what was found.

    Args:
        directory: Where the results are.
        as_json: Print one JSON object, with every finding, instead of text.
        repair: Drop what is damaged, so that a run with ``resume=True`` computes it again.
        workers: Files that are read at once.

    Returns:
        0 if all is sound or was repaired, 1 if something is damaged, 2 if it cannot be told: there is no manifest, or
        a writer is at work in what is to be repaired.
    """
    console = Console(stderr=True)
    if repair and is_in_use(source_of(directory).directory):
        say(
            f"a writer is at work in {directory}, and may be storing what --repair would drop; wait until it has "
            "ended, or leave --repair out"
        )
        return 2
    with ExitStack() as stack:

        def begin(total: int) -> Callable[[], None]:
            return stack.enter_context(step(console, f"Verifying {counted(total, 'record')} of {directory}", total))

        try:
            report = verify(directory, workers=workers, begin=begin)
        except (LighterAsyncError, OSError, ImportError) as error:  # such as of zarr, which reads its arrays
            say(str(error))
            return 2
    left: list[OSError] | None = None
    if repair:
        try:
            left = drop(report)
        except OSError as error:
            say(f"{directory} cannot be repaired, and nothing was dropped: {error}")
            return 1
        try:
            for one in report.findings:
                if one.trouble == "table":
                    write_again(report.directory, one.file)
        except (OSError, LighterAsyncError, TypeError, ValueError, ImportError) as error:
            say(f"{directory} cannot be repaired, since a table cannot be written: {error}")
            return 1
    if as_json:
        print(json.dumps(_as_json(report, left), indent=1))
    else:
        print_report(report, left)
    for reason in left or ():
        say(f"this is in the way of what is to be stored again, and has to be removed by hand: {reason}")
    return 1 if left or (left is None and not report.is_sound) else 0


def _as_json(report: Report, left: Sequence[OSError] | None) -> dict[str, Any]:
    return {
        "directory": str(report.directory),
        "sound": report.is_sound,
        "recorded": len(report.manifest.records),
        "checked": report.checked,
        "bytes": report.nbytes,
        "opaque": report.opaque,
        "torn_lines": report.manifest.torn,
        "in_use": report.in_use,
        "counts": report.counts(),
        "dropped": 0 if left is None else len(report.dropped),
        "not_removed": [str(error) for error in left or ()],
        "ranks": _ranks(report),
        "findings": [
            {
                "file": one.file,
                "trouble": one.trouble,
                "detail": one.detail,
                "loader": None if one.record is None else one.record.loader,
                "index": None if one.record is None else one.record.index,
            }
            for one in report.findings
        ],
    }


def _ranks(report: Report) -> dict[str, dict[str, int]]:
    ranks: dict[str, dict[str, int]] = {}
    for block in report.manifest.records.blocks:
        rank = ranks.setdefault(str(block.head.rank), {"samples": 0, "bytes": 0})
        rank["samples"] += len(block)
        rank["bytes"] += block.sizes_of_living()
    return dict(sorted(ranks.items(), key=lambda item: int(item[0])))


def print_report(report: Report, left: Sequence[OSError] | None = None) -> None:
    """Print what was found, in words.

    Args:
        report: What was found.
        left: What could not be removed of what was dropped; None if nothing was to be repaired.
    """
    where = report.directory if report.key is None else report.directory / report.key
    print(f"{where}: {_checked(report)}, {in_bytes(report.nbytes)}, compared with the manifest")
    for rank, found in _ranks(report).items():
        print(f"  rank {rank}: {counted(found['samples'], 'sample')}, {in_bytes(found['bytes'])}")
    if report.opaque:
        print(
            f"  {counted(report.opaque, 'sample')} written by a function (path, value), whose files are not known "
            "and were not compared"
        )
    if report.in_use:
        print("  a writer is at work here: what it has stored meanwhile may be missing in this report")
    if quarantined := len(list(kept_in(report.directory))):
        print(f"  {counted(quarantined, 'value')} could not be written and kept: lighter-async replay says which")
    if report.manifest.torn:
        print(
            f"  {counted(report.manifest.torn, 'line')} of the manifest not whole, as a crash or a writer at work "
            "leaves them; what they would tell of counts as not stored"
        )
    # What is damaged first, for it must not be hidden by files that are only not known.
    bad = {one.trouble for one in (*report.damaged, *report.tables)}
    findings = sorted(report.findings, key=lambda one: one.trouble not in bad)
    for one in findings[:_SHOWN]:
        print(f"  {one.trouble}: {printable(one.file)} ({printable(one.detail)})")
    if len(findings) > _SHOWN:
        print(f"  and {len(findings) - _SHOWN} more; --json lists all")
    if report.is_sound:
        print("sound: everything that was recorded is there, whole and unchanged")
        return
    if report.damaged:
        damages = {one.trouble for one in report.damaged}
        counts = (f"{count} {trouble}" for trouble, count in sorted(report.counts().items()) if trouble in damages)
        print(f"DAMAGED: {', '.join(counts)}")
    if report.tables and left is None:
        print(f"TO BE WRITTEN: {counted(len(report.tables), 'table')}")
    if left is not None:
        if report.tables:
            print(f"wrote {counted(len(report.tables), 'table')} of the rows that are stored")
        if report.dropped:
            print(f"dropped {len(report.dropped)}: run again with resume=True, and they are computed again")
        return
    if report.damaged:
        print("--repair drops what is damaged, so that a run with resume=True computes it again")
    if report.tables:
        print("--repair writes a table of the rows that are stored")


def _checked(report: Report) -> str:
    """What was compared, in words."""
    in_shards = f"{counted(report.in_shards, 'sample')} in tar shards" if report.in_shards else ""
    rows = counted(report.rows, "row") if report.rows or report.key is not None else ""
    files = counted(report.files, "file") if report.files or not (in_shards or rows) else ""
    return ", ".join(filter(None, (files, in_shards, rows)))
