"""Which of the values in quarantine are still to be written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lighter_async.cli.replay_writers import object_of, series_of
from lighter_async.manifest import Manifest, Record
from lighter_async.names import with_suffix
from lighter_async.store import Store
from lighter_async.target_and_record import stored_as
from lighter_async.workers import Kept
from lighter_async.writers import resolve_writer

__all__ = ["of_runs_that_count", "still_to_write"]


class _Output(NamedTuple):
    """Where one output of a kept value would be stored, and the writer and the key that it is recorded under."""

    file: str
    series: tuple[str, str]


def of_runs_that_count(kept: Sequence[Kept], manifest: Manifest) -> tuple[list[Kept], list[Kept]]:
    """The values of runs that count, and those of runs before one that began anew."""
    counts: list[Kept] = []
    left: list[Kept] = []
    current = manifest.current_runs()
    known = {run.run for run in manifest.runs if run.sequence}
    for one in kept:
        about = one.about
        series = series_of(one)
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


def still_to_write(
    kept: Sequence[Kept], manifest: Manifest, store: Store, writer_of: Callable[[Kept], Any]
) -> tuple[list[Kept], list[Kept], list[Kept]]:
    """The latest value of each sample, those that something later replaced, and those whose name another one has.

    Args:
        kept: The values, in the order in which they were kept.
        manifest: What is stored.
        store: Where it is.
        writer_of: Gives the writer of a value.
    """
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


def _outputs(one: Kept, writer: Any) -> list[_Output]:
    """Where the outputs of a kept value would be stored, and what they would be recorded as."""
    if (name := object_of(one)) is not None:  # its row is no file that could be there
        row = one.about["index"] if one.about["writer"] == "row" else one.about["name"]
        return [_Output(f"{name}/{row}", series_of(one))]
    outputs = stored_as(resolve_writer(writer), str(one.about["key"]))
    return [_Output(with_suffix(one.about["name"], output.suffix), (output.writer, output.key)) for output in outputs]


def _sample(one: Kept) -> tuple[str, str, str]:
    return one.about["name"], *series_of(one)
