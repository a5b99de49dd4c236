"""One run of a plain loop on a device, and what it took."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from gpu_ways import Way, Writing
from measure import MEMORY, folder_in, settle, tell
from torch import Tensor

__all__ = ["Device", "PLACE", "Taken", "idle_of_kernels", "one_run", "step_seconds"]

_ROOM = 4 << 30  # bytes that runs may take
PLACE = MEMORY if shutil.disk_usage(MEMORY).free > _ROOM else Path(tempfile.gettempdir())
"""Where runs write: to memory, unless a container has little of it there."""

_WARM_UPS = 3  # batches that are written before the clock starts
_LEAST_STEPS = 4
_NO_KERNELS = ("Memcpy", "Memset")

Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Taken:
    """What a step of a run took on average, in seconds.

    Attributes:
        loop: Until the device had computed everything.
        whole: Until all was stored.
        hand_over: Of the loop's own thread, in the hand-over; the median.
        idle: The share of the time in which the device had nothing to compute, between the steps.
    """

    loop: float
    whole: float
    hand_over: float
    idle: float


class Device:
    """A GPU, or the CPU in its place to see that everything runs."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.is_gpu = device.type == "cuda"

    def synchronize(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()

    def mark(self) -> Any:
        """An event on the stream that computes; the clock, if there is none."""
        if not self.is_gpu:
            return perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds_between(self, one: Any, other: Any) -> float:
        return float(one.elapsed_time(other)) / 1e3 if self.is_gpu else float(other - one)

    def about(self) -> str:
        """What it is."""
        if not self.is_gpu:
            return "the CPU, which shows that everything runs, and no more"
        found = torch.cuda.get_device_properties(self.device)
        runtime = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
        return f"{found.name}, {found.total_memory / 1e9:.0f} GB, {runtime}"


def step_seconds(model: Model, batches: Sequence[Tensor], device: Device) -> float:
    """What a step takes by itself, when the device has warmed up."""
    for _ in range(3):
        model(batches[0])
    device.synchronize()
    steps, began = 0, perf_counter()
    while steps < 3 or (perf_counter() - began < 0.2 and steps < 50):
        model(batches[steps % len(batches)])
        steps += 1
        if steps % 3 == 0:
            device.synchronize()
    device.synchronize()
    return (perf_counter() - began) / steps


def one_run(way: Way, model: Model, batches: Sequence[Tensor], device: Device, *, steps: int, seconds: float) -> Taken:
    """Run the loop once.

    Args:
        way: Who writes.
        model: What computes.
        batches: Its inputs, in turn.
        device: Where they are.
        steps: At most.
        seconds: After which no further step begins, but for the first few: who writes slowly makes fewer.
    """
    with folder_in(PLACE) as folder:
        writing = way(Path(folder))
        try:
            _warm_up(writing, model, batches, device)
            marks, handed_over = [], []
            began = perf_counter()
            for step in range(steps):
                if step >= _LEAST_STEPS and perf_counter() - began > seconds:
                    break
                start = device.mark()
                output = model(batches[step % len(batches)])
                marks.append((start, device.mark()))
                before = perf_counter()
                writing.hand_over(_names(f"{step}", output), output)
                handed_over.append(perf_counter() - before)
            device.synchronize()
            loop = perf_counter() - began
            writing.wait()
            whole = perf_counter() - began
        finally:
            writing.close()
    made = len(marks)
    busy = sum(device.seconds_between(start, end) for start, end in marks)
    span = device.seconds_between(marks[0][0], marks[-1][1])
    return Taken(loop / made, whole / made, sorted(handed_over)[made // 2], max(0.0, 1 - busy / span))


def _warm_up(writing: Writing, model: Model, batches: Sequence[Tensor], device: Device) -> None:
    for number in range(_WARM_UPS):
        output = model(batches[number % len(batches)])
        writing.hand_over(_names(f"warm-{number}", output), output)
    writing.wait()
    settle()
    device.synchronize()


def _names(step: str, output: Tensor) -> list[str]:
    return [f"{step}-{row}" for row in range(len(output))]


def idle_of_kernels(way: Way, model: Model, batches: Sequence[Tensor], device: Device, *, steps: int) -> float | None:
    """The share of a few steps in which no kernel runs, by PyTorch's profiler; None where that sees none."""
    if not device.is_gpu:
        return None
    from torch.profiler import ProfilerActivity, profile

    with folder_in(PLACE) as folder:
        writing = way(Path(folder))
        try:
            _warm_up(writing, model, batches, device)
            with profile(activities=[ProfilerActivity.CUDA]) as seen:
                for step in range(steps):
                    output = model(batches[step % len(batches)])
                    writing.hand_over(_names(f"{step}", output), output)
                device.synchronize()
            writing.wait()
        except (AssertionError, RuntimeError) as error:
            tell(f"the profiler cannot be had: {error}")
            return None
        finally:
            writing.close()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in seen.events() or ()
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.name.startswith(_NO_KERNELS)
    )
    return idle_share(spans)


def idle_share(spans: Sequence[tuple[float, float]]) -> float | None:
    """The share of the time from the first begin to the last end that lies in none of the spans, which are in order."""
    if not spans:
        return None
    busy, until = 0.0, spans[0][0]
    for start, end in spans:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    taken = until - spans[0][0]
    return float(f"{1 - busy / taken:.4g}") if taken > 0 else None
