"""What helper processes cost: how soon the first sample is stored, and the memory of each helper.

Unique memory (USS) is what would be free without it; proportional memory (PSS) counts shared pages, such as the slots
that samples travel in, by how many processes share them.
"""

from __future__ import annotations

import os
from functools import partial
from time import perf_counter, sleep
from typing import Any

import torch
from measure import MEMORY, Plan, children, folder_in, settle, smaps, spread, take_turns
from workloads import WORKLOADS

from lighter_async import BackgroundWriter

__all__ = ["TITLE", "cases", "run"]

TITLE = "Helpers"

_BATCHES = 30


def cases(plan: Plan) -> list[str]:
    return plan.pick(*2 * [["embeddings", "png512"]], ["embeddings"])


def run(case: str, plan: Plan) -> dict[str, Any]:
    torch.set_num_threads(1)
    workload = WORKLOADS[case]
    batch = workload.make()[0]
    ways = {f"{workers} workers": partial(one_run, workload.format, batch, workers) for workers in (1, 2)}
    rounds, others = take_turns(ways, plan.pick(9, 5, 1), f"helpers {case}", plan)
    found = {}
    for way in ways:
        runs = [one[way][0] for one in rounds]
        found[way] = {name: spread(value for one in runs for value in one[name]) for name in runs[0]}
    return {"others": others, "title": f"{workload.title}; memory after {_BATCHES} batches", "ways": found}


def one_run(format: str, batch: torch.Tensor, workers: int) -> dict[str, list[float]]:
    before = set(children())
    with folder_in(MEMORY) as folder:
        writer = BackgroundWriter(format, folder / "files", backend="process", max_workers=workers)
        began = perf_counter()
        writer.start()
        started = perf_counter() - began
        writer.submit("first", batch[0])
        suffix = ".pt" if format == "tensor" else ".png"
        path = str(folder / "files" / f"first{suffix}")
        while not os.path.exists(path):
            sleep(0.0005)
        stored = perf_counter() - began
        for number in range(_BATCHES):
            writer.submit_batch([f"{number}-{row}" for row in range(len(batch))], batch)
        writer.flush()
        settle()
        memory = [smaps(child) for child in children() if child not in before]
        writer.close()
    return {
        "start_returns_s": [started],
        "first_stored_s": [stored],
        "rss_mb": [one["Rss"] / 1e6 for one in memory],
        "pss_mb": [one["Pss"] / 1e6 for one in memory],
        "uss_mb": [(one["Private_Clean"] + one["Private_Dirty"]) / 1e6 for one in memory],
    }
