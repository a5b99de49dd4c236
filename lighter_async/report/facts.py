"""All that a report says, from the records of a directory and what lies there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from time import time

from lighter_async.locks import held_by
from lighter_async.manifest import Manifest, read_manifest
from lighter_async.manifest.reader import is_superseded
from lighter_async.manifest.verify import why_empty
from lighter_async.names import RESERVED_PREFIX
from lighter_async.report.failures import Cause, Failure, Missing, failures_in, missing_in
from lighter_async.report.listing import Listing, listing_of
from lighter_async.report.outputs import OutputFacts, outputs_in
from lighter_async.report.runs import RunFacts, runs_in
from lighter_async.store import Readable, source_of
from lighter_async.whole_files import local_path

__all__ = ["Facts", "facts_of"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a directory.

    Attributes:
        title: What was given, as text.
        directory: Where the results and their records are.
        made: When this was looked up, in seconds since the epoch.
        runs: In the order in which they began.
        outputs: What is stored of the samples that count, the largest first.
        samples: How many samples count; one that has several outputs is one.
        superseded: Outputs that are stored, and do not count since a later run has begun anew.
        causes: Of the values in quarantine, the most frequent first.
        failures: The first of these values.
        failed: How many there are.
        missing: What is stored of the data sets whose lengths are known.
        damaged: Files that ``verify --repair`` has found damaged and that were not stored again, at most a thousand.
        torn: Lines of the manifests that are not whole.
        listing: The samples that count.
    """

    title: str
    directory: Path
    made: float
    runs: list[RunFacts]
    outputs: list[OutputFacts]
    samples: int
    superseded: int
    causes: list[Cause]
    failures: list[Failure]
    failed: int
    missing: list[Missing]
    damaged: list[str]
    torn: int
    listing: Listing


_MOST_DAMAGED = 1_000


def facts_of(where: str | os.PathLike[str] | Readable) -> Facts:
    """Look up what is known of results, without reading them.

    A writer may be at work there; what it records meanwhile may be missing.

    Args:
        where: What the writer was given: the directory, the path of an array or a table, or the target.

    Raises:
        FileNotFoundError: There is no directory, or nothing is recorded in it.
        LighterAsyncError: The records were written by a later version.
        OSError: They cannot be read.
        TypeError: It is neither a path nor a target that stores below a directory.
        ValueError: It is a URL.
    """
    directory, store, key = source_of(where)
    manifest = read_manifest(directory)
    if key is not None:
        manifest.records = manifest.records.where(lambda block: block.head.key == key)
    _check(directory, manifest, key)
    current = manifest.current_runs()
    counted = manifest.records.where(lambda block: not is_superseded(block.series, block.head.run, current))
    suffixes = {(run.run, run.series): run.suffix for run in manifest.runs}
    runs = runs_in(manifest, key=key, at_work=held_by(os.path.join(directory, RESERVED_PREFIX)))
    causes, failures, failed = failures_in(manifest, key=key)
    return Facts(
        title=str(local_path(where)) if isinstance(where, (str, os.PathLike)) else str(directory / (key or "")),
        directory=directory,
        made=time(),
        runs=runs,
        outputs=outputs_in(counted.blocks, suffixes),
        samples=len(set(counted.names())),
        superseded=len(manifest.records) - len(counted),
        causes=causes,
        failures=failures,
        failed=failed,
        missing=missing_in(manifest, key=key),
        damaged=sorted(manifest.damaged)[:_MOST_DAMAGED] if key is None else [],
        torn=manifest.torn,
        listing=listing_of(counted, store, suffixes),
    )


def _check(directory: Path, manifest: Manifest, key: str | None) -> None:
    if not manifest.runs and not manifest.records:
        if not directory.is_dir():
            raise FileNotFoundError(f"there is no directory {os.fspath(directory)!r}")
        raise FileNotFoundError(
            f"{os.fspath(directory)!r} {why_empty(manifest)}; give what the results were written to"
        )
    if key is not None and not manifest.records and key not in {run.key for run in manifest.runs}:
        raise FileNotFoundError(f"nothing is recorded of an array or a table {key!r} in {os.fspath(directory)!r}")
