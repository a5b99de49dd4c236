"""``lighter-async verify``: whether everything that was stored is there, whole and unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lighter_async.cli.results_below import choose, results_below
from lighter_async.cli.steps import step
from lighter_async.cli.words import counted, in_bytes, printable, say
from lighter_async.errors import LighterAsyncError
from lighter_async.manifest.verify import Report, drop, is_in_use, verify
from lighter_async.store import source_of
from lighter_async.targets.table import write_again
from lighter_async.workers.quarantine import kept_in

__all__ = ["print_report", "run_verify"]

_SHOWN = 20


@dataclass(frozen=True)
class _Outcome:
    """What came of one place.

    Attributes:
        place: The place.
        code: The exit status of it alone.
        report: What was found; None if that cannot be told.
        left: What could not be removed; None if nothing was repaired.
        error: Why it cannot be told, or could not be repaired.
        below: Directories with results of their own below it, which were not compared.
    """

    place: Path
    code: int
    report: Report | None = None
    left: list[OSError] | None = None
    error: str | None = None
    below: Sequence[Path] = ()


def run_verify(places: Sequence[Path], *, as_json: bool, repair: bool, workers: int | None) -> int:
    """Compare directories with their manifests, and say what was found.

    Args:
        places: Where the results are. Below a folder that has none of its own, those are compared that are found there.
        as_json: Print one JSON object, with every finding, instead of text; of several directories a list of them.
        repair: Drop what is damaged, so that a run with ``resume=True`` computes it again.
        workers: Files that are read at once.

    Returns:
        0 if all is sound or was repaired, 1 if something is damaged, 2 if it cannot be told: there is no manifest, or
        a writer is at work in what is to be repaired. Of several directories the largest.
    """
    chosen = choose(places)
    if not as_json:
        for folder, found in chosen.found.items():
            print(f"{folder} has no manifest; {_with_results(found, folder)} below it:")
    outcomes: list[_Outcome] = []
    for place in chosen.places:
        outcome = _verify_one(place, repair=repair, workers=workers)
        outcomes.append(outcome)
        if outcome.report is not None and not as_json and outcome.error is None:
            print_report(outcome.report, outcome.left, outcome.below)
        if outcome.error is not None:
            say(outcome.error)
        for reason in outcome.left or ():
            say(f"this is in the way of what is to be stored again, and has to be removed by hand: {reason}")
    is_one = len(outcomes) == 1 and not chosen.found
    if as_json:
        objects = [_as_json(outcome) for outcome in outcomes]
        if not is_one:
            print(json.dumps(objects, indent=1))
        elif outcomes[0].error is None:
            print(json.dumps(objects[0], indent=1))
    elif not is_one:
        _print_summary(outcomes)
    return max(outcome.code for outcome in outcomes)


def _verify_one(place: Path, *, repair: bool, workers: int | None) -> _Outcome:
    if repair and is_in_use(source_of(place).directory):
        return _Outcome(
            place,
            2,
            error=f"a writer is at work in {place}, and may be storing what --repair would drop; wait until it has "
            "ended, or leave --repair out",
        )
    with ExitStack() as stack:

        def begin(total: int) -> Callable[[], None]:
            title = f"Verifying {counted(total, 'record')} of {place}"
            return stack.enter_context(step(Console(stderr=True), title, total))

        try:
            report = verify(place, workers=workers, begin=begin)
            below = results_below(report.directory) if report.key is None else []
        except (LighterAsyncError, OSError, ImportError) as error:  # such as of zarr, which reads its arrays
            return _Outcome(place, 2, error=str(error))
    if not repair:
        return _Outcome(place, 0 if report.is_sound else 1, report, below=below)
    try:
        left = drop(report)
    except OSError as error:
        return _Outcome(place, 1, report, error=f"{place} cannot be repaired, and nothing was dropped: {error}")
    try:
        for one in report.tables:
            write_again(report.directory, one.file)
    except (OSError, LighterAsyncError, TypeError, ValueError, ImportError) as error:
        return _Outcome(
            place, 1, report, left, error=f"{place} cannot be repaired, since a table cannot be written: {error}"
        )
    return _Outcome(place, 1 if left else 0, report, left, below=below)


def _as_json(outcome: _Outcome) -> dict[str, Any]:
    report, left = outcome.report, outcome.left
    if report is None or outcome.error is not None:
        return {"directory": str(outcome.place), "sound": False, "error": outcome.error}
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
        "below": [str(folder) for folder in outcome.below],
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


def _with_results(folders: Sequence[Path], above: Path) -> str:
    """Some directories of results, by their paths below a folder, in words."""
    some = ", ".join(printable(str(folder.relative_to(above))) for folder in folders[:_SHOWN])
    more = f" and {len(folders) - _SHOWN} more" if len(folders) > _SHOWN else ""
    return f"{len(folders)} {'directory' if len(folders) == 1 else 'directories'} of results ({some}{more})"


def _print_summary(outcomes: Sequence[_Outcome]) -> None:
    told = {0: "sound", 1: "DAMAGED", 2: "not compared"}
    if any(outcome.left is not None for outcome in outcomes):
        told = {0: "sound or repaired", 1: "NOT REPAIRED", 2: "not compared"}
    counts = (f"{count} {told[code]}" for code in told if (count := [one.code for one in outcomes].count(code)))
    print(f"{len(outcomes)} directories: {', '.join(counts)}")
    for outcome in outcomes:
        if outcome.code:
            print(f"  {told[outcome.code]}: {printable(str(outcome.place))}")


def print_report(report: Report, left: Sequence[OSError] | None = None, below: Sequence[Path] = ()) -> None:
    """Print what was found, in words.

    Args:
        report: What was found.
        left: What could not be removed of what was dropped; None if nothing was to be repaired.
        below: Directories of results below this one, which were not compared.
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
    if below:
        print(f"  {_with_results(below, report.directory)} below were not compared; name them, too")
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
    if report.tables:
        print(f"TO BE WRITTEN: {counted(len(report.tables), 'table')}")
    if left is None:
        if report.damaged:
            print("--repair drops what is damaged: run again with resume=True, and it is computed again")
        if report.tables:
            print("--repair writes a table of the rows that are stored")
        return
    if report.dropped:
        again = "it is computed again" if len(report.dropped) == 1 else "they are computed again"
        print(f"dropped {len(report.dropped)}: run again with resume=True, and {again}")
    if report.tables:
        print(f"wrote {counted(len(report.tables), 'table')} of the rows that are stored")


def _checked(report: Report) -> str:
    """What was compared, in words."""
    in_shards = f"{counted(report.in_shards, 'sample')} in tar shards" if report.in_shards else ""
    rows = counted(report.rows, "row") if report.rows or report.key is not None else ""
    files = counted(report.files, "file") if report.files or not (in_shards or rows) else ""
    return ", ".join(filter(None, (files, in_shards, rows)))
