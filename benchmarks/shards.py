"""Storing many small samples: a file for each, `TarShards`, webdataset, `tarfile`, ArrayRecord and LitData.

All store the same tensors, in turns, in one folder that is removed at the end, since some file systems are slow for a
while after files were removed. What is measured ends when everything is stored, sealed shards included; the
others' writers store in the loop itself.

    python benchmarks/shards.py [--samples 20000] [--elements 384] [--rounds 5] [--folder /dev/shm]
        [--outputs 1] [--journaled SIZE] [--only WAY ...] [--json FILE]

With more outputs each sample has so many tensors, stored together; only our writers are measured then.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from alone import parser_for, place_of, show
from measure import Plan, folder_in, installed, place_for, settle, spread, take_turns

from lighter_async import BackgroundWriter, LocalTarget, TarShards

__all__ = ["TITLE", "cases", "run"]

TITLE = "Files and shards"

_BATCH = 64
_ELEMENTS = 384
_WEBDATASET = "webdataset.ShardWriter"
_SAMPLES = {"journaled": 51_200, "disk": 12_800, "memory": 25_600}
_SLOW = (_WEBDATASET, "tarfile", "ArrayRecord")
_SLOW_SHARE = 4  # these store a part of that
_PATIENCE = 10.0  # what is repeated stays there, too

Batches = Sequence[tuple[list[str], Any]]
Write = Callable[[Path, Batches], float]
"""Stores batches in a folder, and says how many seconds that took."""


def cases(plan: Plan) -> list[str]:
    return plan.pick(["journaled", "disk"], ["journaled"], ["memory"])


def run(case: str, plan: Plan) -> dict[str, Any]:
    samples = round(_SAMPLES[case] * plan.pick(1, 0.5, 0.02))
    ways, missing = all_ways()
    if case == "journaled":
        ways = {way: write for way, write in ways.items() if "fsync" not in way}
    with place_for(case, plan.pick("8G", "4G", "")) as (place, where):
        found = measured(place, where, ways, samples=samples, rounds=plan.pick(3, 3, 1), plan=plan)
    return {**found, "left_out": missing}


def all_ways() -> tuple[dict[str, Write], list[str]]:
    """The ways by their names, and those that are not installed."""
    ways: dict[str, Write] = {}
    for durability in ("rename", "fsync"):
        for backend in ("thread", "process"):
            for title, make in (("files", LocalTarget), ("TarShards", TarShards)):
                ways[f"{title}, {backend}, {durability}"] = partial(ours, make, backend, durability)
    others: dict[str, tuple[str, Write]] = {
        _WEBDATASET: ("webdataset", webdataset_writer),
        "tarfile": ("tarfile", plain_tarfile),
        "ArrayRecord": ("array_record", array_record),
        "LitData": ("litdata", litdata),
    }
    ways.update({title: write for title, (package, write) in others.items() if installed(package)})
    return ways, [title for title in others if title not in ways]


def measured(
    place: Path,
    where: str,
    ways: dict[str, Write],
    *,
    samples: int,
    rounds: int,
    plan: Plan,
    elements: int = _ELEMENTS,
    outputs: int = 1,
) -> dict[str, Any]:
    """The figures of all ways, in one place."""
    torch.set_num_threads(1)
    batches = [
        ([f"{number:08}" for number in range(start, start + _BATCH)], values_of(elements, outputs))
        for start in range(0, samples, _BATCH)
    ]
    count = iter(range(1 << 30))
    with folder_in(place) as folder:

        def one_run(title: str) -> float:
            """Samples a second."""
            some = batches[: -(-len(batches) // _SLOW_SHARE)] if title in _SLOW else batches
            return len(some) * _BATCH / ways[title](folder / f"{next(count)}", some)

        calls = {title: partial(one_run, title) for title in ways}
        found, others = take_turns(calls, rounds, f"shards {where}", plan, patience=_PATIENCE)
    figures = {}
    for title in ways:
        base = base_of(title, ways)
        figures[title] = {
            "samples_per_s": spread(one[title][0] for one in found),
            "to_files": spread(one[title][0] / one[base][0] for one in found),
        }
        if _WEBDATASET in ways:
            figures[title]["to_webdataset"] = spread(one[title][0] / one[_WEBDATASET][0] for one in found)
    return {
        "others": others,
        "title": f"{len(batches) * _BATCH:,} {'tensors' if outputs == 1 else f'times {outputs} tensors'} of {elements} "
        f"float32 as .pt, one worker, {where}",
        "ways": figures,
    }


def values_of(elements: int, outputs: int) -> Any:
    """A batch of one tensor a sample, or of several."""
    if outputs == 1:
        return torch.rand(_BATCH, elements)
    return {f"out{number}": torch.rand(_BATCH, elements) for number in range(outputs)}


def base_of(title: str, ways: dict[str, Write]) -> str:
    """The way to store files that another is compared with."""
    name, _, rest = title.partition(", ")
    base = f"files, {rest}" if name == "TarShards" else "files, thread, rename"
    return base if base in ways else next(iter(ways))


def ours(make: Callable[[Path], Any], backend: Any, durability: Any, folder: Path, batches: Batches) -> float:
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


def webdataset_writer(folder: Path, batches: Batches) -> float:
    """In the loop."""
    import webdataset

    folder.mkdir()
    began = perf_counter()
    with webdataset.ShardWriter(f"{folder}/shard-%06d.tar", maxsize=1 << 30, verbose=0) as writer:
        for names, values in batches:
            for name, value in zip(names, values, strict=True):
                writer.write({"__key__": name, "pth": value.clone()})  # of a row alone, it would save the whole batch
    return perf_counter() - began


def plain_tarfile(folder: Path, batches: Batches) -> float:
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


def array_record(folder: Path, batches: Batches) -> float:
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


def litdata(folder: Path, batches: Batches) -> float:
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


def main() -> None:
    parser = parser_for(__doc__, rounds=5)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--elements", type=int, default=_ELEMENTS, help="of each tensor, float32")
    parser.add_argument("--outputs", type=int, default=1, help="tensors of each sample")
    parser.add_argument("--only", nargs="*", help="ways with one of these in their names")
    options = parser.parse_args()
    ways, missing = all_ways()
    if options.only:
        ways = {title: way for title, way in ways.items() if any(one in title for one in options.only)}
    if options.outputs > 1:
        ways = {title: way for title, way in ways.items() if title.startswith(("files", "TarShards"))}
    sizes = {"samples": options.samples, "elements": options.elements, "outputs": options.outputs}
    sizes["rounds"] = options.rounds
    with place_of(options) as (place, where):
        found = measured(place, where, ways, **sizes, plan=Plan("full" if options.rounds > 1 else "smoke"))
    show("shards", {"alone": {**found, "left_out": missing}}, options)


if __name__ == "__main__":
    main()
