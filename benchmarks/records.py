"""What it costs to record what is stored, and to have it outlive a loss of power.

Small samples, handed over as fast as they go: with and without the manifest, and with each kind of durability.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from measure import Plan, folder_in, place_for, settle, spread, take_turns

from lighter_async import BackgroundWriter, Origin

__all__ = ["TITLE", "cases", "run"]

TITLE = "Records and durability"

_BATCH = 64
_ELEMENTS = 256  # of float32: 1 kB
_OPTIONS: dict[str, dict[str, Any]] = {
    "no manifest": {"manifest": False},
    "manifest": {},
    "manifest, fsync": {"durability": "fsync"},
}


def cases(plan: Plan) -> list[str]:
    return ["memory", "disk"]


def run(case: str, plan: Plan) -> dict[str, Any]:
    with place_for(case) as (place, where):
        return _run(case, place, where, plan)


def _run(case: str, place: Path, where: str, plan: Plan) -> dict[str, Any]:
    torch.set_num_threads(1)
    batches = plan.pick(*((400, 100) if case == "memory" else (40, 20)), 3)
    names = list(_OPTIONS)[: 2 if case == "memory" else 3]
    ways = {
        f"{backend}, {name}": partial(one_run, place, backend, _OPTIONS[name], batches)
        for backend in ("process", "thread")
        for name in names
    }
    rounds, others = take_turns(ways, plan.pick(9, 5, 1), f"records {case}", plan)
    return {
        "others": others,
        "title": f"1 kB tensors in batches of {_BATCH}, one worker, {where}",
        "ways": {
            way: {
                "files_per_s": spread(one[way][0] for one in rounds),
                "to_plain": spread(one[way][0] / one[f"{way.partition(',')[0]}, {names[0]}"][0] for one in rounds),
            }
            for way in ways
        },
    }


def one_run(place: Path, backend: Any, options: dict[str, Any], batches: int) -> float:
    """Files a second."""
    batch = torch.rand(_BATCH, _ELEMENTS)
    with folder_in(place) as folder:
        with BackgroundWriter("tensor", folder / "files", backend=backend, max_workers=1, **options) as writer:
            for number in range(2):
                writer.submit_batch([f"warm-up-{number}-{row}" for row in range(_BATCH)], batch)
            writer.flush()
            settle()
            began = perf_counter()
            for number in range(batches):
                rows = range(number * _BATCH, (number + 1) * _BATCH)
                writer.submit_batch([f"{row:08}" for row in rows], batch, origin=Origin(rows, 0, number))
            writer.flush()
            return batches * _BATCH / (perf_counter() - began)
