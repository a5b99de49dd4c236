"""Rows of one array through the whole service, with records, beside one bare `pwrite` a batch and numpy's memmap.

All of them write the same rows of 384 float32, in batches, into a file with room for all of them, in turns. The clock
runs from the second batch until everything is stored (`flush`, of the service). Files are kept until the end, since
some file systems are slow for a while after files were removed. The first round of each way does not count. Beside the
rows a second stands the processor time of the process that has the rows, of all of its threads, without helpers: where
other programs keep the cores busy, that tells more.

    python benchmarks/arrays.py [--folder DIR] [--rows 51200] [--batch 256] [--rounds 9] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
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


def memmap(path: Path, batch: torch.Tensor, count: int) -> Taken:
    """The same into numpy's mapped file."""
    values, size = batch.numpy(), len(batch)
    array = open_memmap(path, mode="w+", dtype=np.float32, shape=(size * count, WIDTH))
    array[:size] = values
    began = time.perf_counter(), time.process_time()
    for number in range(1, count):
        array[number * size : (number + 1) * size] = values
    return since(began, (count - 1) * size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="on which file system; by default that of temporary files")
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
    taken: dict[str, list[Taken]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for turn in range(options.rounds + 1):
            for number, (way, write) in enumerate(ways.items()):
                inside = Path(folder, f"{turn}-{number}")
                inside.mkdir()
                taken[way].append(write(inside / "a.npy", batch, options.rows // options.batch))
        kind = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True).stdout.strip()
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
