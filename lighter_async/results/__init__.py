"""Reading back what was stored: by name, by index in the data set, as an array, a table or a torch data set."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from lighter_async.errors import shown
from lighter_async.manifest import read_manifest
from lighter_async.manifest.adopt import stored
from lighter_async.manifest.reader import Series
from lighter_async.manifest.records import Records
from lighter_async.manifest.verify import why_empty
from lighter_async.results.index import Index
from lighter_async.results.results import Results
from lighter_async.store import Readable, source_of
from lighter_async.writers import Encoder

__all__ = ["Results", "open_results"]


def open_results(
    where: str | os.PathLike[str] | Readable,
    *,
    writer: str | None = None,
    key: str | None = None,
    decode: Callable[[bytes], Any] | Encoder | None = None,
    check: bool = True,
    trust: bool = False,
) -> Results:
    """Read back what was stored: a mapping from names to values, also by index.

    ```python
    results = open_results("preds")
    results["case.1"]  # the value; results.at(7) is that of index 7 in the data set
    ```

    It holds what is recorded now and counts: what runs stored since the last one that did not resume, with the files
    that `pending` counts as done. The manifest is read once; each value is read from its file when it is asked for.

    Args:
        where: What the writer was given: the directory, the path of an array or a table, or the target.
        writer: The writer's name, such as ``"tensor"``, where several have stored in the directory.
        key: The key, which of a `FileWriter` is its ``value_key``, likewise.
        decode: Makes a value of a file's bytes, in place of the writer's own decoder; an `Encoder` stands for its
            decoder, as in ``decode=write_text.with_options(encoding="latin-1")``. Without it, the writer's decoder gets
            those of its options that the run has recorded.
        check: Compare each sample's checksum when it is read. Its size is compared in any case.
        trust: Unpickle what a ``tensor`` writer has stored of other values than tensors and plain containers of them,
            numpy arrays for example, and hand recorded options to decoders of yours. Whoever can write to the directory
            can then run code as you.

    Raises:
        FileNotFoundError: There is no such directory, or no manifest in it.
        ValueError: Several series are stored there, and the options choose none of them; they are listed. Or it is a
            URL.
        TypeError: An option is of another type, or a target in the directory's place keeps no records.
        LighterAsyncError: A later version of this package has written the manifest.
    """
    directory, store, one = source_of(where)
    key = key if one is None else one
    if decode is not None and not callable(decode):
        raise TypeError(f"decode is a function from bytes to a value, or an Encoder, not {shown(decode)}")
    manifest = read_manifest(directory)
    if not manifest.runs and not manifest.records:
        if not directory.is_dir():
            raise FileNotFoundError(f"there is no directory {os.fspath(directory)!r} to read results from")
        what = "" if one is None else f" as {one!r}"
        raise FileNotFoundError(
            f"{os.fspath(directory)!r} {why_empty(manifest)}, so it is not known what is stored{what}; one is written "
            "unless manifest=False, into the directory that the writer was given, or beside its array or table"
        )
    series = _choose(os.fspath(directory), stored(manifest, store), writer, key)
    (chosen, of), records = series
    return Results(
        Index(manifest, records),
        store,
        writer=chosen,
        key=of,
        options={
            (run.run, run.rank): (run.options or {}, run.lost_options)
            for run in manifest.runs
            if run.series == (chosen, of) and (run.options or run.lost_options)
        },
        decode=decode,
        check=check,
        trust=trust,
    )


def _choose(
    directory: str, found: Mapping[Series, Records], writer: str | None, key: str | None
) -> tuple[Series, Records]:
    """The one series that is asked for; one in which nothing is stored gives way to those in which something is."""
    asked = {
        series: records
        for series, records in found.items()
        if (writer is None or series[0] == writer) and (key is None or series[1] == key)
    }
    left = {series: records for series, records in asked.items() if records} or asked
    if len(left) == 1:
        return next(iter(left.items()))
    there = "; ".join(f"writer={one!r}, key={of!r} ({len(records)})" for (one, of), records in found.items())
    if not left:
        raise ValueError(f"nothing of writer={writer!r}, key={key!r} is recorded in {directory!r}, but {there}")
    raise ValueError(f"several series of samples are stored in {directory!r}; give writer= or key=: {there}")
