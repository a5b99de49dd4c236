"""Rows of one array through the whole service, with records, beside one bare `pwrite` a batch and others' formats.

All of them write the same rows of 384 float32, in batches, into a file with room for all of them, in turns. The clock
runs from the second batch until everything is stored (`flush`, of the service). Files are kept until the end, since
some file systems are slow for a while after files were removed. The first round does not count. Beside the rows a
second stands the processor time of the process that has the rows, of all of its threads, without helpers: where other
programs keep the cores busy, that tells more.

    python benchmarks/arrays.py [--rows 51200] [--batch 256] [--rounds 9] [--folder /dev/shm]
        [--journaled SIZE] [--only WAY ...] [--json FILE]
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from alone import parser_for, place_of, show
from measure import Plan, folder_in, installed, place_for, spread, take_turns
from numpy.lib.format import open_memmap

from lighter_async import ArrayTarget, BackgroundWriter, Origin
from lighter_async.npy import header

__all__ = ["TITLE", "cases", "run"]

TITLE = "Rows of one array"

WIDTH = 384
_BATCH = 256
_BARE = "bare pwrite"
_ROWS = {"memory": 51_200, "disk": 25_600}
_PATIENCE = 10.0  # what is repeated stays there, too

Taken = tuple[float, float]
"""Rows a second, and processor microseconds a row."""

Write = Callable[[Path, torch.Tensor, int], Taken]
"""Stores a batch so many times, at a path that is only its own."""


def cases(plan: Plan) -> list[str]:
    return plan.pick(["memory", "disk"], ["memory"], ["memory"])


def run(case: str, plan: Plan) -> dict[str, Any]:
    ways, missing = all_ways()
    rows = plan.pick(_ROWS[case], _ROWS[case], 1024)
    with place_for(case, "6G") as (place, where):
        found = measured(place, where, ways, rows=rows, rounds=plan.pick(5, 3, 1), plan=plan)
    return {**found, "left_out": missing}


def all_ways() -> tuple[dict[str, Write], list[str]]:
    """The ways by their names, and those that are not installed."""
    ways: dict[str, Write] = {_BARE: bare}
    for backend, workers in (("process", 1), ("process", 2), ("thread", 1)):
        ways[f"ArrayTarget, {backend}, {workers}"] = partial(ours, backend=backend, workers=workers)
    ways["numpy memmap"] = memmap
    ways.update({title: write for title, (package, write) in PEERS.items() if installed(package)})
    return ways, [title for title in PEERS if title not in ways]


def measured(
    place: Path, where: str, ways: dict[str, Write], *, rows: int, rounds: int, plan: Plan, size: int = _BATCH
) -> dict[str, Any]:
    """The figures of all ways, in one place."""
    torch.set_num_threads(1)
    batch = torch.rand(size, WIDTH)
    numbers = iter(range(1 << 30))
    with folder_in(place) as folder:

        def one_run(write: Write) -> Taken:
            inside = folder / f"{next(numbers)}"
            inside.mkdir()
            return write(inside / "a.npy", batch, rows // size)

        calls = {way: partial(one_run, write) for way, write in ways.items()}
        found, others = take_turns(calls, rounds + 1, f"arrays {where}", plan, patience=_PATIENCE)
    counted = found[1:]
    figures = {}
    for way in ways:
        figures[way] = {
            "thousand_rows_per_s": spread(one[way][0][0] / 1e3 for one in counted),
            "to_bare": spread(one[way][0][0] / one[_BARE][0][0] for one in counted),
            "cpu_us_per_row": spread(one[way][0][1] for one in counted),
        }
    title = f"{rows // size * size:,} rows of {WIDTH} float32 in batches of {size}, {where}"
    return {"others": others, "title": title, "ways": figures}


def since(began: tuple[float, float], rows: int) -> Taken:
    """What was done since a moment."""
    return rows / (time.perf_counter() - began[0]), 1e6 * (time.process_time() - began[1]) / rows


def ours(path: Path, batch: torch.Tensor, count: int, *, backend: Any, workers: int) -> Taken:
    """By `ArrayTarget`."""
    size = len(batch)
    target = ArrayTarget(path, rows=size * count)
    with BackgroundWriter(target=target, backend=backend, max_workers=workers, queue_size=16 * size) as writer:
        writer.submit_batch(None, batch, origin=Origin(range(size)))
        writer.flush()
        began = time.perf_counter(), time.process_time()
        for number in range(1, count):
            writer.submit_batch(None, batch, origin=Origin(range(number * size, (number + 1) * size)))
        writer.flush()
        return since(began, (count - 1) * size)


def bare(path: Path, batch: torch.Tensor, count: int) -> Taken:
    """The same with one `pwrite` a batch, and nothing else."""
    data = batch.numpy().reshape(-1).view(np.uint8).data
    start = header(np.dtype(np.float32), (len(batch) * count, WIDTH))
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.posix_fallocate(descriptor, 0, len(start) + count * len(data))
        os.pwrite(descriptor, start, 0)
        os.pwrite(descriptor, data, len(start))
        began = time.perf_counter(), time.process_time()
        for number in range(1, count):
            os.pwrite(descriptor, data, len(start) + number * len(data))
        return since(began, (count - 1) * len(batch))
    finally:
        os.close(descriptor)


def fill(array: Any, batch: torch.Tensor, count: int) -> Taken:
    """The same into something that takes slices of rows."""
    values, size = batch.numpy(), len(batch)
    array[:size] = values
    began = time.perf_counter(), time.process_time()
    for number in range(1, count):
        array[number * size : (number + 1) * size] = values
    return since(began, (count - 1) * size)


def memmap(path: Path, batch: torch.Tensor, count: int) -> Taken:
    """numpy's mapped file."""
    return fill(open_memmap(path, mode="w+", dtype=np.float32, shape=(len(batch) * count, WIDTH)), batch, count)


def zarr_array(path: Path, batch: torch.Tensor, count: int) -> Taken:
    """A zarr array's chunks, one for each batch, compressed as by default."""
    import zarr

    size = len(batch)
    array = zarr.create_array(
        path.with_suffix(".zarr"), shape=(size * count, WIDTH), chunks=(size, WIDTH), dtype=np.float32
    )
    return fill(array, batch, count)


def hdf5(path: Path, batch: torch.Tensor, count: int) -> Taken:
    """A data set of HDF5's with room for all rows; closing it is not measured."""
    import h5py

    with h5py.File(path.with_suffix(".h5"), "w") as file:
        return fill(file.create_dataset("rows", (len(batch) * count, WIDTH), np.float32), batch, count)


def _record_batch(batch: torch.Tensor) -> Any:
    import pyarrow

    column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(batch.numpy().reshape(-1)), WIDTH)
    return pyarrow.record_batch({"row": column})


def append(writer: Any, batch: torch.Tensor, count: int) -> Taken:
    """The same with a writer of pyarrow's, until it is closed."""
    writer.write_batch(_record_batch(batch))
    began = time.perf_counter(), time.process_time()
    for _ in range(1, count):
        writer.write_batch(_record_batch(batch))
    writer.close()
    return since(began, (count - 1) * len(batch))


def arrow(path: Path, batch: torch.Tensor, count: int) -> Taken:
    """A record batch of Arrow's for each batch."""
    import pyarrow

    with pyarrow.OSFile(str(path.with_suffix(".arrow")), "wb") as file:
        return append(pyarrow.ipc.new_file(file, _record_batch(batch).schema), batch, count)


def parquet(path: Path, batch: torch.Tensor, count: int) -> Taken:
    """A row group for each batch."""
    import pyarrow.parquet

    return append(
        pyarrow.parquet.ParquetWriter(path.with_suffix(".parquet"), _record_batch(batch).schema), batch, count
    )


def lance(path: Path, batch: torch.Tensor, count: int) -> Taken:
    """One data set of all batches, which is there once all are written."""
    import lance
    import pyarrow

    began = time.perf_counter(), time.process_time()
    some = (_record_batch(batch) for _ in range(count))
    reader = pyarrow.RecordBatchReader.from_batches(_record_batch(batch).schema, some)
    lance.write_dataset(reader, str(path.with_suffix(".lance")))
    return since(began, count * len(batch))


PEERS: dict[str, tuple[str, Callable[[Path, torch.Tensor, int], Taken]]] = {
    "zarr": ("zarr", zarr_array),
    "HDF5": ("h5py", hdf5),
    "Arrow IPC": ("pyarrow", arrow),
    "Parquet": ("pyarrow", parquet),
    "Lance": ("lance", lance),
}


def main() -> None:
    parser = parser_for(__doc__, rounds=9)
    parser.add_argument("--rows", type=int, default=_ROWS["memory"])
    parser.add_argument("--batch", type=int, default=_BATCH)
    parser.add_argument("--only", nargs="*", help="ways with one of these in their names, and the bare one")
    options = parser.parse_args()
    ways, missing = all_ways()
    if options.only:
        ways = {way: one for way, one in ways.items() if way == _BARE or any(some in way for some in options.only)}
    sizes = {"rows": options.rows, "size": options.batch, "rounds": options.rounds}
    with place_of(options) as (place, where):
        found = measured(place, where, ways, **sizes, plan=Plan("full" if options.rounds > 1 else "smoke"))
    show("arrays", {"alone": {**found, "left_out": missing}}, options)


if __name__ == "__main__":
    main()
