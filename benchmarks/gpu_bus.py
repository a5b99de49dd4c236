"""How fast batches come from a device to the host: through staging, and by plain copies into pinned memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import torch
from gpu_loop import Device
from measure import Plan, spread, take_turns

from lighter_async.staging import StagingPool, plan_batch

__all__ = ["bus"]

PINNED = "copies into pinned memory"
_WINDOW = 4  # copies under way at once


def bus(device: Device, plan: Plan) -> dict[str, Any]:
    """The figures of batches of several sizes."""
    sizes = plan.pick((1 << 16, 1 << 20, 1 << 24, 1 << 26), (1 << 20, 1 << 26), (1 << 12, 1 << 16))
    found: dict[str, Any] = {}
    others: list[dict[str, float]] = []
    for size in sizes:
        batch = torch.rand(16, size // 64, device=device.device)
        count = max(8, min(plan.pick(400, 100, 8), plan.pick(4 << 30, 1 << 30, 1 << 20) // size))
        calls: dict[str, Callable[[], tuple[float, float]]] = {
            PINNED: partial(_pinned, batch, device, count),
            "copies into other memory": partial(_pageable, batch, device, count),
            "lighter_async, thread": partial(_staged, batch, device, count, shared=False),
            "lighter_async, process": partial(_staged, batch, device, count, shared=True),
        }
        turns, beside = take_turns(calls, plan.pick(3, 3, 1), f"bus, {size:,} bytes", plan, patience=0)
        others.append(beside)
        found[str(size)] = {
            way: {
                "gb_per_s": spread(size / turn[way][0][0] / 1e9 for turn in turns),
                "to_pinned": spread(turn[PINNED][0][0] / turn[way][0][0] for turn in turns),
                "first_ms": spread(1e3 * turn[way][0][1] for turn in turns),
            }
            for way in calls
        }
    return {
        "title": f"batches of float32 from {device.about()}, {_WINDOW} copies under way",
        "device": device.about(),
        "others": max(others, key=lambda one: one["median"]),
        "sizes": found,
    }


def _pinned(batch: torch.Tensor, device: Device, count: int) -> tuple[float, float]:
    """Seconds a copy, and of the first one with its memory: `cudaMemcpyAsync` on a side stream."""
    began = perf_counter()
    hosts = [torch.empty(batch.shape, pin_memory=device.is_gpu) for _ in range(_WINDOW)]
    hosts[0].copy_(batch)
    first = perf_counter() - began
    if not device.is_gpu:
        return _blocking(batch, hosts, count), first
    side = torch.cuda.Stream()
    torch.cuda.synchronize()
    began = perf_counter()
    with torch.cuda.stream(side):
        for number in range(count):
            hosts[number % _WINDOW].copy_(batch, non_blocking=True)
    side.synchronize()
    return (perf_counter() - began) / count, first


def _pageable(batch: torch.Tensor, device: Device, count: int) -> tuple[float, float]:
    """The same into memory that is not pinned, which has been touched: what ``tensor.cpu()`` does at best."""
    began = perf_counter()
    hosts = [torch.zeros(batch.shape) for _ in range(_WINDOW)]
    hosts[0].copy_(batch)
    first = perf_counter() - began
    device.synchronize()
    return _blocking(batch, hosts, count), first


def _blocking(batch: torch.Tensor, hosts: list[torch.Tensor], count: int) -> float:
    began = perf_counter()
    for number in range(count):
        hosts[number % _WINDOW].copy_(batch)
    return (perf_counter() - began) / count


def _staged(batch: torch.Tensor, device: Device, count: int, *, shared: bool) -> tuple[float, float]:
    """The same as a writer does it: planned, cloned on the device, copied into a slot, waited for."""
    pool = StagingPool(2 * _WINDOW * batch.nbytes, shared=shared)
    if pool.shared is not None:
        pool.shared.open()
    under_way: deque[Any] = deque()

    def stage() -> None:
        under_way.append(pool.stage(plan_batch(batch, shared=shared)))
        if len(under_way) == _WINDOW:
            _end(pool, under_way.popleft())

    began = perf_counter()
    stage()
    first = perf_counter() - began
    for _ in range(_WINDOW):
        stage()
    device.synchronize()
    began = perf_counter()
    for _ in range(count):
        stage()
    while under_way:
        _end(pool, under_way.popleft())
    seconds = (perf_counter() - began) / count
    pool.close()
    if pool.shared is not None:
        pool.shared.close()
    return seconds, first


def _end(pool: StagingPool, staged: Any) -> None:
    if staged.ready is not None:
        staged.ready.synchronize()
    pool.release(staged)
