"""What writing does to the loop: Lightning's predict loop with writing, as a multiple of its time without.

A step is launch-bound (small torch calls, each of which has to have the interpreter's lock) or device-bound (it sleeps
without the lock, as a loop does that waits for an accelerator). Everything is written to memory. Runs take turns, and
each is compared with the runs without writing of its own round.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_loop import Times, predict
from measure import MEMORY, Plan, folder_in, median, spread, take_turns
from peers import OURS, PEERS, peers_for
from workloads import WORKLOADS, Workload

from lighter_async.cli.bench.loops import Step, make_step

__all__ = ["TITLE", "cases", "run"]

TITLE = "The loop's slow-down"

NOTHING = "nothing"
_CALIBRATIONS = 5
_SECONDS = {"ours": 1.0, "others": 0.4}  # of a loop; slow peers make fewer steps in it


def cases(plan: Plan) -> list[str]:
    workloads = plan.pick(list(WORKLOADS), list(WORKLOADS), ["embeddings"])
    return [
        f"{kind}/{name}" for kind in plan.pick(("launch", "device"), ("launch",), ("launch",)) for name in workloads
    ]


def run(case: str, plan: Plan) -> dict[str, Any]:
    torch.set_num_threads(1)
    kind, _, name = case.partition("/")
    workload = WORKLOADS[name]
    batches = workload.make()
    with torch.inference_mode():  # as Lightning predicts
        # The one of most calls: those made in a moment in which the machine was slow would be too short.
        step = max((make_step(kind, workload.step_seconds) for _ in range(_CALIBRATIONS)), key=lambda one: one.calls)
    peers, missing = peers_for(workload)
    rounds = plan.pick(5, 3, 1)
    scale = plan.pick(1.0, 0.7, 0.05)
    ways = {NOTHING: partial(one_run, None, workload, batches, step, scale * _SECONDS["ours"])}
    for peer in peers:
        seconds = _SECONDS["ours" if peer in OURS else "others"]
        ways[peer] = partial(one_run, peer, workload, batches, step, scale * seconds)
    steps = max(4, round(scale * _SECONDS["ours"] / workload.step_seconds))
    for peer in OURS:
        ways[alone(peer)] = partial(one_run, peer, workload, batches, Step(lambda: None), 3600, steps)
    found, others = take_turns(ways, rounds, f"loops {case}", plan, twice=[NOTHING])
    return {
        "others": others,
        "title": f"{workload.title}, a step of {workload.step_seconds * 1e3:g} ms, {kind}-bound",
        "step_ms": workload.step_seconds * 1e3,
        "without_ms": spread(1e3 * times.loop / times.steps for one in found for times in one[NOTHING]),
        "noise": spread(difference(one[NOTHING]) for one in found),
        "peers": {peer: figures(peer, found) for peer in peers},
        "left_out": missing,
    }


def alone(peer: str) -> str:
    return f"{peer}, writing alone"


def one_run(
    peer: str | None,
    workload: Workload,
    batches: list[torch.Tensor],
    step: Step,
    seconds: float,
    steps: int = 10**9,
) -> Times:
    if peer is None:
        return predict(step.run, batches, None, steps=steps, seconds=seconds)
    with folder_in(MEMORY) as folder:
        written = PEERS[peer].make(Path(folder), workload)
        return predict(step.run, batches, written.callback, written.wait, steps=steps, seconds=seconds)


def difference(runs: list[Times]) -> float:
    """How far the runs without writing of one round lie apart, as a share of the loop."""
    taken = [times.loop / times.steps for times in runs]
    return (max(taken) - min(taken)) / min(taken)


def figures(peer: str, rounds: list[dict[str, list[Times]]]) -> dict[str, Any]:
    """The ratios of one peer, each to its own round's runs without writing."""
    loop, whole, longer = [], [], []
    for one in rounds:
        (ours,) = one[peer]
        without = median(times.loop / times.steps for times in one[NOTHING])
        without_whole = median(times.whole / times.steps for times in one[NOTHING])
        loop.append(ours.loop / ours.steps / without)
        whole.append(ours.whole / ours.steps / without_whole)
        if peer in OURS:
            (writing,) = one[alone(peer)]
            longer.append(ours.whole / ours.steps / max(without_whole, writing.whole / writing.steps))
    return {
        "loop": spread(loop),
        "whole": spread(whole),
        "steps": round(median(one[peer][0].steps for one in rounds)),
        **({"whole_to_longer": spread(longer)} if longer else {}),
    }
