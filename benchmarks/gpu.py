"""What writing does to a loop that predicts on a GPU, and how fast its outputs come to the host.

Needs torch and this package alone; peers that are not installed are left out and named. A run is a plain loop of a real
model over a few batches that are on the device. It ends when the device has computed all of them (the loop), and when
all outputs are stored (the whole). Runs take turns; each is compared with the two runs without writing of its own
round, and what these differ by is the noise. The device's idle time is measured twice: between the steps of each run,
by events on the stream that computes, and in a few further steps by PyTorch's profiler, as the share of the time in
which no kernel runs, where the system lets it look.

    python benchmarks/gpu.py [--json FILE] [--only bus,resnet50] [--rounds 3] [--seconds 0.6] [--budget 150] [--smoke]

``--smoke`` only shows that everything runs, on the CPU if there is no GPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import figures
import torch
from gpu_bus import bus
from gpu_loop import PLACE, Device, Taken, idle_of_kernels, one_run, step_seconds
from gpu_models import MODELS, has_weights
from gpu_ways import NOTHING, ways_for
from measure import Plan, file_system, folder_in, median, spread, take_turns, tell
from report import tables

__all__ = ["main"]

_LEAST_STEPS = 4


def measured(name: str, device: Device, plan: Plan, *, rounds: int, seconds: float) -> dict[str, Any]:
    """The figures of one model."""
    workload = MODELS[name]
    model, batches = workload.make(device.device, plan)
    with torch.inference_mode(), folder_in(PLACE) as place:
        alone = step_seconds(model, batches, device)
        steps = max(_LEAST_STEPS, round(seconds / alone))
        tell(f"{name}: {alone * 1e3:.2f} ms a step")
        ways, left_out = ways_for(small=workload.small, folder=place)
        calls: dict[str, Callable[[], Taken]] = {
            way: partial(one_run, make, model, batches, device, steps=steps, seconds=2 * seconds)
            for way, make in ways.items()
        }
        turns, others = take_turns(calls, rounds, name, plan, twice=[NOTHING], patience=0)
        kernels = {}
        for way, make in ways.items():
            share = idle_of_kernels(make, model, batches, device, steps=min(steps, plan.pick(10, 10, 4)))
            if share is not None:
                kernels[way] = share
        output = model(batches[0])
    without = [median(one.loop for one in turn[NOTHING]) for turn in turns]
    wholes = [median(one.whole for one in turn[NOTHING]) for turn in turns]
    noise = [max(one.loop for one in turn[NOTHING]) / min(one.loop for one in turn[NOTHING]) - 1 for turn in turns]
    return {
        "title": f"{workload.title}, {len(batches[0])} a step",
        "device": device.about(),
        "stored_on": file_system(PLACE),
        "weights": "of the package" if name == "minilm" and has_weights() else "random",
        "output_bytes": output.nbytes,
        "without_ms": spread(1e3 * one for one in without),
        "noise": spread(noise),
        "others": others,
        "why_left_out": left_out,
        "idle": {NOTHING: spread(one.idle for turn in turns for one in turn[NOTHING])},
        "kernels_idle": kernels,
        "ways": {
            way: {
                "loop": spread(turn[way][0].loop / base for turn, base in zip(turns, without, strict=True)),
                "whole": spread(turn[way][0].whole / base for turn, base in zip(turns, wholes, strict=True)),
                "hand_over_us": spread(1e6 * turn[way][0].hand_over for turn in turns),
                "idle": spread(turn[way][0].idle for turn in turns),
            }
            for way in ways
            if way != NOTHING
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="a file that the figures are added to")
    parser.add_argument("--only", default="", help=f"of bus, {', '.join(MODELS)}, with commas between")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.6, help="that a run computes for")
    parser.add_argument("--budget", type=float, default=150, help="seconds after which no further part is begun")
    parser.add_argument("--smoke", action="store_true", help="whether all of it runs, also without a GPU")
    options = parser.parse_args()
    if not (torch.cuda.is_available() or options.smoke):
        parser.error("there is no CUDA device; --smoke shows on the CPU whether everything runs")
    plan = Plan("smoke" if options.smoke else "full")
    device = Device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    torch.manual_seed(20)
    if not device.is_gpu:
        torch.set_num_threads(1)
    sizes = {"rounds": 1, "seconds": 0.05} if options.smoke else {"rounds": options.rounds, "seconds": options.seconds}
    parts: dict[str, Callable[[], dict[str, Any]]] = {"bus": partial(bus, device, plan)}
    parts.update((name, partial(measured, name, device, plan, **sizes)) for name in MODELS)
    new: dict[str, dict[str, Any]] = {"environments": {}, "cases": {}}
    began = time.perf_counter()
    for part, run in parts.items():
        if options.only and part not in options.only.split(","):
            continue
        if time.perf_counter() - began > options.budget:
            tell(f"{part} is left out: the {options.budget:g} s are over")
            continue
        entry = figures.entry({f"gpu/{part}": run()}, plan.level)
        for kind, found in entry.items():
            new[kind].update(found)
        if options.json:
            figures.keep(options.json, entry)  # as soon as it is there
        tell(f"{part} is done after {time.perf_counter() - began:.0f} s")
    print("\n".join(tables(new)))


if __name__ == "__main__":
    main()
