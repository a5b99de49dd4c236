"""``lighter-async verify``: whether everything that was stored is there, whole and unchanged."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from lighter_async.cli.steps import step
from lighter_async.errors import LighterAsyncError
from lighter_async.manifest.verify import Report, drop, verify

__all__ = ["run_verify"]

_SHOWN = 20


def run_verify(directory: Path, *, as_json: bool, repair: bool, workers: int | None) -> int:
    """Compare a directory with its manifest, and say what was found.

    Args:
        directory: Where the results are.
        as_json: Print one JSON object, with every finding, instead of text.
        repair: Drop what is damaged, so that a run with ``resume=True`` computes it again.
        workers: Files that are read at once.

    Returns:
        0 if all is sound or was repaired, 1 if something is damaged, 2 if there is no manifest.
    """
    console = Console(stderr=True)
    with ExitStack() as stack:

        def begin(total: int) -> Callable[[], None]:
            return stack.enter_context(step(console, f"Verifying {total} files of {directory}", total))

        try:
            report = verify(directory, workers=workers, begin=begin)
        except (LighterAsyncError, OSError) as error:
            print(f"lighter-async: {error}", file=sys.stderr)
            return 2
    dropped = 0
    if repair:
        try:
            dropped = drop(report)
        except OSError as error:
            print(f"lighter-async: {directory} cannot be repaired: {error}", file=sys.stderr)
            return 1
    if as_json:
        print(json.dumps(_as_json(report, dropped), indent=1))
    else:
        _print(report, dropped)
    return 0 if report.is_sound or dropped == len(report.damaged) else 1


def _as_json(report: Report, dropped: int) -> dict[str, Any]:
    return {
        "directory": str(report.directory),
        "sound": report.is_sound,
        "recorded": len(report.manifest.records),
        "checked": report.checked,
        "bytes": report.nbytes,
        "opaque": report.opaque,
        "torn_lines": report.manifest.torn,
        "counts": report.counts(),
        "dropped": dropped,
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
    for record in report.manifest.records:
        rank = ranks.setdefault(str(record.rank), {"samples": 0, "bytes": 0})
        rank["samples"] += 1
        rank["bytes"] += record.bytes or 0
    return ranks


def _print(report: Report, dropped: int) -> None:
    print(f"{report.directory}: {report.checked} files, {report.nbytes / 1e6:.1f} MB, compared with the manifest")
    for rank, found in _ranks(report).items():
        print(f"  rank {rank}: {found['samples']} samples, {found['bytes'] / 1e6:.1f} MB")
    if report.opaque:
        print(f"  {report.opaque} samples were written by a function (path, value); their files are not known")
    if report.manifest.torn:
        print(f"  {report.manifest.torn} lines of the manifest are torn, as a crash leaves them; they do not count")
    for one in report.findings[:_SHOWN]:
        print(f"  {one.trouble}: {one.file} ({one.detail})")
    if len(report.findings) > _SHOWN:
        print(f"  and {len(report.findings) - _SHOWN} more; --json lists all")
    if report.is_sound:
        print("sound: everything that was recorded is there, whole and unchanged")
        return
    counts = ", ".join(f"{count} {trouble}" for trouble, count in sorted(report.counts().items()))
    print(f"DAMAGED: {counts}")
    if dropped:
        print(f"dropped {dropped}: run again with resume=True, and they are computed again")
    else:
        print("--repair drops what is damaged, so that a run with resume=True computes it again")
