"""Storing many small tensors: a file for each, `TarShards`, webdataset, `tarfile`, ArrayRecord and LitData.

All store the same tensors, in turns, in one folder that is removed at the end, since some file systems are slow for a
while after files were removed. What is measured ends when everything is stored, sealed shards included; the
others' writers store in the loop itself.

    python benchmarks/shards.py [--samples 20000] [--elements 384] [--rounds 5] [--folder .]
        [--outputs 1] [--journaled SIZE] [--only WAY ...] [--json FILE]

With more outputs each sample has so many tensors, stored together; only our writers are measured then.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import tarfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from measure import Plan, file_system, folder_in, installed, journaled, settle, spread, take_turns

from lighter_async import BackgroundWriter, LocalTarget, TarShards

_BATCH = 64


def ours(make: Callable[[Path], Any], backend: Any, durability: Any, folder: Path, batches: Sequence[Any]) -> float:
    """With one worker beside the loop."""
    target = make(folder, durability=durability)  # type: ignore[call-arg]
    values = batches[0][1]
    format = dict.fromkeys(values, "tensor") if isinstance(values, dict) else "tensor"
    writer = BackgroundWriter(format, target=target, backend=backend, max_workers=1)
    writer.start()
    settle()
    began = perf_counter()
    with writer:
        for names, values in batches:
            writer.submit_batch(names, values)
    return perf_counter() - began


def webdataset_writer(folder: Path, batches: Sequence[Any]) -> float:
    """In the loop."""
    import webdataset

    folder.mkdir()
    began = perf_counter()
    with webdataset.ShardWriter(f"{folder}/shard-%06d.tar", maxsize=1 << 30, verbose=0) as writer:
        for names, values in batches:
            for name, value in zip(names, values, strict=True):
                writer.write({"__key__": name, "pth": value.clone()})  # of a row alone, it would save the whole batch
    return perf_counter() - began


def plain_tarfile(folder: Path, batches: Sequence[Any]) -> float:
    """In the loop."""
    folder.mkdir()
    began = perf_counter()
    with tarfile.open(folder / "shard.tar", "w") as writer:
        for names, values in batches:
            for name, value in zip(names, values, strict=True):
                content = io.BytesIO()
                torch.save(value.clone(), content)
                info = tarfile.TarInfo(f"{name}.pt")
                info.size = content.tell()
                content.seek(0)
                writer.addfile(info, content)
    return perf_counter() - began


def array_record(folder: Path, batches: Sequence[Any]) -> float:
    """In the loop, a record for each sample."""
    from array_record.python.array_record_module import ArrayRecordWriter

    folder.mkdir()
    began = perf_counter()
    writer = ArrayRecordWriter(str(folder / "samples.array_record"), "group_size:1")
    for _, values in batches:
        for value in values:
            content = io.BytesIO()
            torch.save(value.clone(), content)
            writer.write(content.getvalue())
    writer.close()
    return perf_counter() - began


def litdata(folder: Path, batches: Sequence[Any]) -> float:
    """In the loop, by its own format for tensors."""
    from litdata.streaming.writer import BinaryWriter

    folder.mkdir()
    began = perf_counter()
    writer = BinaryWriter(str(folder), chunk_bytes=1 << 26)
    number = 0
    for names, values in batches:
        for name, value in zip(names, values, strict=True):
            writer[number] = {"name": name, "value": value.clone()}
            number += 1
    writer.done()
    return perf_counter() - began


def values_of(elements: int, outputs: int) -> Any:
    """A batch of one tensor a sample, or of several."""
    if outputs == 1:
        return torch.rand(_BATCH, elements)
    return {f"out{number}": torch.rand(_BATCH, elements) for number in range(outputs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--elements", type=int, default=384, help="of each tensor, float32")
    parser.add_argument("--outputs", type=int, default=1, help="tensors of each sample")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--journaled", metavar="SIZE", help="on an ext4 with a journal in a file there; takes root")
    parser.add_argument("--only", nargs="*", help="ways with one of these in their names")
    parser.add_argument("--json", help="where to write the figures")
    options = parser.parse_args()
    batches = [
        ([f"{number:08}" for number in range(start, start + _BATCH)], values_of(options.elements, options.outputs))
        for start in range(0, options.samples, _BATCH)
    ]
    ways: dict[str, Callable[[Path, Sequence[Any]], float]] = {}
    for backend in ("thread", "process"):
        for durability in ("rename", "fsync"):
            for title, make in (("files", LocalTarget), ("TarShards", TarShards)):
                ways[f"{title}, {backend}, {durability}"] = partial(ours, make, backend, durability)
    is_single = options.outputs == 1
    if is_single and installed("webdataset"):
        ways["webdataset.ShardWriter"] = webdataset_writer
    if is_single:
        ways["tarfile"] = plain_tarfile
    if is_single and installed("array_record"):
        ways["ArrayRecord"] = array_record
    if is_single and installed("litdata"):
        ways["LitData"] = litdata
    if options.only:
        ways = {title: way for title, way in ways.items() if any(one in title for one in options.only)}
    image = journaled(options.journaled, options.folder) if options.journaled else nullcontext(options.folder)
    with image as place, folder_in(place) as folder:
        count = iter(range(1 << 30))
        calls = {
            title: partial(lambda way: way(folder / f"{next(count)}", batches), way) for title, way in ways.items()
        }
        rounds, others = take_turns(calls, options.rounds, "shards", Plan("full" if options.rounds > 1 else "smoke"))
        kind = file_system(folder)
    print(f"{platform.platform()}, Python {platform.python_version()}, {kind}, {os.cpu_count()} cores")
    print(
        f"{len(batches) * _BATCH} samples of {options.outputs} x {options.elements} float32; "
        f"others used {others['median']:.0%} of a core"
    )
    figures: dict[str, Any] = {"others": others, "file_system": kind}
    for title in ways:
        per_s = spread(len(batches) * _BATCH / one[title][0] for one in rounds)
        name, _, rest = title.partition(", ")
        base = f"files, {rest}" if name == "TarShards" else "files, thread, rename"
        base = base if base in ways else next(iter(ways))
        ratio = spread(one[base][0] / one[title][0] for one in rounds)
        figures[title] = {"samples_per_s": per_s, "to_files": ratio}
        print(
            f"  {title:28} {per_s['median']:9,.0f} samples/s ({per_s['least']:,.0f} to {per_s['most']:,.0f}); "
            f"{ratio['median']:.2f} times '{base}' ({ratio['least']:.2f} to {ratio['most']:.2f})"
        )
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
