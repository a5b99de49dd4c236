"""What a file costs as a run gets long: from a thousand files to a hundred thousand, in one folder in memory.

Time and memory are looked at whenever a number of files is stored; each stretch is counted by itself.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import Any

import torch
from measure import MEMORY, Plan, folder_in, processes_memory, settle, spread, take_turns

from lighter_async import BackgroundWriter

__all__ = ["TITLE", "cases", "run"]

TITLE = "Cost per file, over long runs"

_BATCH = 100
_ELEMENTS = {"64 B": 16, "1.5 kB": 384}
_WARM_UPS = 20  # batches


def cases(plan: Plan) -> list[str]:
    return ["embeddings"]


def run(case: str, plan: Plan) -> dict[str, Any]:
    torch.set_num_threads(1)
    counts = plan.pick(
        [1_000, 3_000, 10_000, 30_000, 100_000], [1_000, 3_000, 10_000, 30_000, 100_000], [200, 400, 1_000]
    )
    ways = {size: partial(one_run, elements, counts) for size, elements in _ELEMENTS.items()}
    rounds, others = take_turns(ways, plan.pick(3, 1, 1), "scale", plan)
    sizes = {}
    for size in ways:
        sizes[size] = [
            {
                "files": count,
                "us_per_file": spread(one[size][0][index][0] for one in rounds),
                "grown_mb": spread(one[size][0][index][1] for one in rounds),
            }
            for index, count in enumerate(counts)
        ]
    return {
        "others": others,
        "title": f"batches of {_BATCH} embeddings as .pt, process backend, default options",
        "sizes": sizes,
    }


def one_run(elements: int, counts: list[int]) -> list[tuple[float, float]]:
    """For each count of files: microseconds a file since the count before, and by how many megabytes all
    processes together have grown."""
    batch = torch.rand(_BATCH, elements)
    found = []
    with folder_in(MEMORY) as folder, BackgroundWriter("tensor", folder / "files", backend="process") as writer:
        for number in range(_WARM_UPS):
            writer.submit_batch([f"warm-up-{number}-{row}" for row in range(_BATCH)], batch)
        writer.flush()
        settle()
        done, before = 0, processes_memory("Rss")
        for count in counts:
            began = perf_counter()
            for start in range(done, count, _BATCH):
                writer.submit_batch([f"{number:08}" for number in range(start, start + _BATCH)], batch)
            writer.flush()
            taken = perf_counter() - began
            found.append((1e6 * taken / (count - done), (processes_memory("Rss") - before) / 1e6))
            done = count
    return found
