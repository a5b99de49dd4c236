"""Rows of one array through the whole service, with records, beside one bare `pwrite` a batch and others' formats.

All of them write the same rows of 384 float32, in batches, into a file with room for all of them, in turns. The clock
runs from the second batch until everything is stored (`flush`, of the service). Files are kept until the end, since
some file systems are slow for a while after files were removed. The first round of each way does not count. Beside the
rows a second stands the processor time of the process that has the rows, of all of its threads, without helpers: where
other programs keep the cores busy, that tells more.

    python benchmarks/arrays.py [--folder DIR] [--rows 51200] [--batch 256] [--rounds 9]
        [--journaled SIZE] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import file_system, installed, journaled
from numpy.lib.format import open_memmap

from lighter_async import ArrayTarget, BackgroundWriter, Origin
from lighter_async.npy import header

WIDTH = 384

Taken = tuple[float, float]
"""Rows a second, and processor microseconds a row."""


def since(began: tuple[float, float], rows: int) -> Taken:
    """What was done since a moment."""
    return rows / (time.perf_counter() - began[0]), 1e6 * (time.process_time() - began[1]) / rows


def service(path: Path, batch: torch.Tensor, count: int, *, backend: Any, workers: int) -> Taken:
    """Rows a second, and processor seconds."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="on which file system; by default that of temporary files")
    parser.add_argument("--journaled", metavar="SIZE", help="on an ext4 with a journal in a file there; takes root")
    parser.add_argument("--rows", type=int, default=51_200)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", help="where to write the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    batch = torch.rand(options.batch, WIDTH)
    ways: dict[str, Callable[[Path, torch.Tensor, int], Taken]] = {
        "bare pwrite": bare,
        "numpy memmap": memmap,
        "service, process, 1 worker": partial(service, backend="process", workers=1),
        "service, process, 2 workers": partial(service, backend="process", workers=2),
        "service, thread, 1 worker": partial(service, backend="thread", workers=1),
    }
    ways.update({title: write for title, (package, write) in PEERS.items() if installed(package)})
    taken: dict[str, list[Taken]] = {way: [] for way in ways}
    image = journaled(options.journaled, options.folder) if options.journaled else nullcontext(options.folder)
    with image as place, tempfile.TemporaryDirectory(dir=place) as folder:
        for turn in range(options.rounds + 1):
            for number, (way, write) in enumerate(ways.items()):
                inside = Path(folder, f"{turn}-{number}")
                inside.mkdir()
                taken[way].append(write(inside / "a.npy", batch, options.rows // options.batch))
        kind = file_system(Path(folder))
    print(
        f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} cores"
    )
    print(f"file system: {kind}; {options.rows} rows of {WIDTH} float32 in batches of {options.batch}")
    print(f"thousand rows a second, beside the bare pwrite of its round; median of {options.rounds} (least to most)")
    figures: dict[str, Any] = {"file_system": kind, "rows": options.rows, "batch": options.batch}
    floor = [speed for speed, _ in taken["bare pwrite"][1:]]
    for way, rounds in taken.items():
        counted = [speed for speed, _ in rounds[1:]]
        processor = statistics.median(seconds for _, seconds in rounds[1:])
        ratios = [one / least for one, least in zip(counted, floor, strict=True)]
        figures[way] = {
            "rows_per_s": statistics.median(counted),
            "to_bare": statistics.median(ratios),
            "cpu_us_per_row": processor,
        }
        print(
            f"  {way:30} {figures[way]['rows_per_s'] / 1e3:8.0f} ({min(counted) / 1e3:.0f} to {max(counted) / 1e3:.0f})"
            f"  {figures[way]['to_bare']:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            f"  {processor:6.2f} us of CPU a row"
        )
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
