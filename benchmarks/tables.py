"""Rows of one table through the whole service, with records, beside what people write first.

All of them write the same rows, an id, a label and a score in batches of 256, in turns: a file of CSV row by row and
then by pandas, as lighter 0.1.0 does, a list of dicts that pandas writes at the end, and a row group of Parquet for
each batch. The loop's clock runs while batches are handed over; the other one until the file is there. Files are kept
until the end, since some file systems are slow for a while after files were removed. The first round does not count.

    python benchmarks/tables.py [--rows 51200] [--rounds 5] [--folder /dev/shm] [--journaled SIZE] [--only WAY ...]
        [--json FILE]
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from alone import parser_for, place_of, show
from measure import Plan, folder_in, installed, place_for, spread, take_turns

from lighter_async import BackgroundWriter, Origin, TableTarget

__all__ = ["TITLE", "cases", "run"]

TITLE = "Rows of one table"

_BATCH = 256
_ROWS = 51_200
_MANY = 512_000
_USUAL = "lighter 0.1.0's way, .csv"

Batch = tuple[range, dict[str, Any]]

Taken = tuple[float, float, float]
"""Seconds of the loop, seconds until the file is there, and seconds of this process's processor time."""

Write = Callable[[Path, Sequence[Batch]], Taken]
"""Writes all rows, into a folder that is only its own."""


def cases(plan: Plan) -> list[str]:
    return plan.pick(["memory", "memory/many"], ["memory"], ["memory"])


def run(case: str, plan: Plan) -> dict[str, Any]:
    ways, missing = all_ways()
    place, _, many = case.partition("/")
    rows = _MANY if many else plan.pick(_ROWS, _ROWS, 1024)
    with place_for(place, "1G") as (folder, where):
        found = measured(folder, where, ways, rows=rows, rounds=plan.pick(5, 3, 1), plan=plan)
    return {**found, "left_out": missing}


def all_ways() -> tuple[dict[str, Write], list[str]]:
    """The ways by their names, and those that are not installed."""
    has_arrow = installed("pyarrow")
    ways: dict[str, Write] = {}
    for suffix in (".csv", ".jsonl", *([".parquet"] if has_arrow else [])):
        for backend in ("thread", "process"):
            ways[f"TableTarget, {suffix}, {backend}"] = partial(ours, suffix=suffix, backend=backend)
    peers: dict[str, tuple[str, Write]] = {
        _USUAL: ("pandas", row_by_row),
        "pandas at the end, .csv": ("pandas", at_the_end),
        "a row group a batch, .parquet": ("pyarrow", row_groups),
    }
    ways.update({title: write for title, (package, write) in peers.items() if installed(package)})
    return ways, [title for title in peers if title not in ways]


def measured(place: Path, where: str, ways: dict[str, Write], *, rows: int, rounds: int, plan: Plan) -> dict[str, Any]:
    """The figures of all ways, in one place."""
    torch.set_num_threads(1)
    batches = [batch_from(start) for start in range(0, rows, _BATCH)]
    count = len(batches) * _BATCH
    numbers = iter(range(1 << 30))
    with folder_in(place) as folder:

        def one_run(write: Write) -> Taken:
            inside = folder / f"{next(numbers)}"
            inside.mkdir()
            return write(inside, batches)

        calls = {way: partial(one_run, write) for way, write in ways.items()}
        found, others = take_turns(calls, rounds + 1, f"tables {where}", plan)
    figures = {}
    for way in ways:
        figures[way] = {
            "loop_us_per_row": spread(1e6 * one[way][0][0] / count for one in found[1:]),
            "thousand_rows_per_s": spread(count / one[way][0][1] / 1e3 for one in found[1:]),
            "cpu_us_per_row": spread(1e6 * one[way][0][2] / count for one in found[1:]),
        }
    return {"others": others, "title": f"{count:,} rows in batches of {_BATCH}, {where}", "ways": figures}


def batch_from(start: int) -> Batch:
    """Some rows, as a model gives them."""
    indices = range(start, start + _BATCH)
    ids = [f"case.{index:07}" for index in indices]
    return indices, {"id": ids, "label": torch.arange(_BATCH) % 10, "score": torch.rand(_BATCH)}


class Clock:
    """What was taken since it was made."""

    def __init__(self) -> None:
        self.began = time.perf_counter(), time.process_time()
        self.loop = 0.0

    def loop_ends(self) -> None:
        self.loop = time.perf_counter() - self.began[0]

    def taken(self) -> Taken:
        return self.loop, time.perf_counter() - self.began[0], time.process_time() - self.began[1]


def ours(folder: Path, batches: Sequence[Batch], *, suffix: str, backend: Any) -> Taken:
    """By `TableTarget`, with one worker."""
    target = TableTarget(folder / f"t{suffix}")
    with BackgroundWriter(target=target, backend=backend, max_workers=1, queue_size=1 << 16) as writer:
        writer.start()
        clock = Clock()
        for indices, columns in batches:
            writer.submit_batch(None, columns, origin=Origin(indices))
        clock.loop_ends()
    return clock.taken()


def row_by_row(folder: Path, batches: Sequence[Batch]) -> Taken:
    """A row of CSV for each sample, and at the end all of it by pandas."""
    import pandas

    clock = Clock()
    with open(folder / "part.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", "score"])
        for indices, columns in batches:
            for row in range(len(indices)):
                values = [column[row] for column in columns.values()]
                writer.writerow([one.item() if isinstance(one, torch.Tensor) else one for one in values])
    clock.loop_ends()
    pandas.read_csv(folder / "part.csv").to_csv(folder / "t.csv", index=False)
    return clock.taken()


def at_the_end(folder: Path, batches: Sequence[Batch]) -> Taken:
    """Rows in a list, which pandas writes at the end; a crash loses all of them."""
    import pandas

    clock = Clock()
    rows = []
    for _, columns in batches:
        plain = {key: one.tolist() if isinstance(one, torch.Tensor) else one for key, one in columns.items()}
        rows += [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]
    clock.loop_ends()
    pandas.DataFrame(rows).to_csv(folder / "t.csv", index=False)
    return clock.taken()


def row_groups(folder: Path, batches: Sequence[Batch]) -> Taken:
    """By pyarrow in the loop; a crash leaves a file that cannot be read."""
    import pyarrow.parquet

    clock, writer = Clock(), None
    for _, columns in batches:
        table = pyarrow.table(
            {key: one.numpy() if isinstance(one, torch.Tensor) else one for key, one in columns.items()}
        )
        writer = writer or pyarrow.parquet.ParquetWriter(folder / "t.parquet", table.schema)
        writer.write_table(table)
    clock.loop_ends()
    if writer is not None:
        writer.close()
    return clock.taken()


def main() -> None:
    parser = parser_for(__doc__, rounds=5)
    parser.add_argument("--rows", type=int, default=_ROWS)
    parser.add_argument("--only", nargs="*", help="ways with one of these in their names")
    options = parser.parse_args()
    ways, missing = all_ways()
    if options.only:
        ways = {way: one for way, one in ways.items() if any(some in way for some in options.only)}
    with place_of(options) as (place, where):
        plan = Plan("full" if options.rounds > 1 else "smoke")
        found = measured(place, where, ways, rows=options.rows, rounds=options.rounds, plan=plan)
    show("tables", {"alone": {**found, "left_out": missing}}, options)


if __name__ == "__main__":
    main()
