"""What the project has set itself, and what of it the figures reach."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Row", "rows"]

Figures = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A target and what was reached.

    Attributes:
        target: What is asked for.
        workload: On what.
        reached: The median, with its spread.
        hit: Whether the median keeps the target.
    """

    target: str
    workload: str
    reached: str
    hit: bool


def rows(cases: dict[str, Figures]) -> list[Row]:
    """A row for each target and workload that was measured."""
    return [*_loops(cases), *_handover(cases), *_encoders(cases), *_saturated(cases), *_waits(cases), *_helpers(cases)]


def show(figure: Figures, form: str = ".3f") -> str:
    """A median with its spread and the number of values."""
    least, most = format(figure["least"], form), format(figure["most"], form)
    return f"{figure['median']:{form}} ({least} to {most}, n {figure['n']})"


def _of(cases: dict[str, Figures], part: str) -> Iterator[tuple[str, Figures]]:
    for case, figures in cases.items():
        if case.startswith(f"{part}/"):
            yield case.partition("/")[2], figures


def _loops(cases: dict[str, Figures]) -> Iterator[Row]:
    for backend, most in (("process", 1.03), ("thread", 1.10)):
        for case, figures in _of(cases, "loops"):
            if found := figures["peers"].get(f"lighter_async, {backend}"):
                figure = found["loop"]
                yield Row(f"loop's slow-down, {backend}, at most {most}", case, show(figure), figure["median"] <= most)
    for backend in ("process", "thread"):
        for case, figures in _of(cases, "loops"):
            if found := figures["peers"].get(f"lighter_async, {backend}"):
                figure = found["whole_to_longer"]
                target = f"whole job, {backend}, at most 1.05 times the longer of loop alone and writing alone"
                yield Row(target, case, show(figure), figure["median"] <= 1.05)


def _handover(cases: dict[str, Figures]) -> Iterator[Row]:
    for case, figures in _of(cases, "handover"):
        for way, found in figures["ways"].items():
            callback, copy = found["callback_us"], found["copy_us"]
            reached = (
                f"{show(callback, ',.0f')} us; a copy {show(copy, ',.0f')} us; over by {found['excess_us']:,.0f} us"
            )
            yield Row("callback at most 1.2 copies + 60 us", f"{case}, {way}", reached, found["excess_us"] <= 60)


def _encoders(cases: dict[str, Figures]) -> Iterator[Row]:
    if found := cases.get("encoders/png512", {}).get("ways", {}).get("lighter_async"):
        faster, size = found["faster"], found["size"]
        yield Row(
            "PNG at least 10 times as fast as Pillow's level 6, at most 1.05 times its size",
            "photographs, 512 x 512 RGB floats",
            f"{show(faster, '.1f')} times as fast, {show(size)} of the size",
            faster["median"] >= 10 and size["median"] <= 1.05,
        )
    for size, ways in cases.get("encoders/pt", {}).get("sizes", {}).items():
        if int(size) <= 50_000:
            figure = ways["lighter_async"]["faster"]
            reached = f"{show(figure, '.1f')} times"
            yield Row(".pt at least 4 times as fast as torch.save", f"{int(size):,} B", reached, figure["median"] >= 4)


def _saturated(cases: dict[str, Figures]) -> Iterator[Row]:
    for case in ("memory/embeddings", "memory/tensors"):
        for way, found in cases.get(f"saturated/{case}", {}).get("ways", {}).items():
            if way.startswith("lighter_async, process"):
                figure = found["to_floor"]
                target = "saturated, in memory, at least 0.8 of the floor with as many workers"
                yield Row(
                    target, f"{case.partition('/')[2]}, {way[15:]} workers", show(figure), figure["median"] >= 0.8
                )


def _waits(cases: dict[str, Figures]) -> Iterator[Row]:
    for case, figures in _of(cases, "waits"):
        for way, found in figures["ways"].items():
            if way.startswith("lighter_async"):
                most = 5 if "process" in way else 20
                middle, mean = found["added_to_median_us"], found["added_to_mean_us"]
                yield Row(
                    f"wait of a torch call, median and mean, at most {most} us",
                    f"{case}, {way[15:]} workers",
                    f"median {show(middle, '.2f')}, mean {show(mean, '.1f')} us",
                    middle["median"] <= most and mean["median"] <= most,
                )


def _helpers(cases: dict[str, Figures]) -> Iterator[Row]:
    for case, figures in _of(cases, "helpers"):
        for way, found in figures["ways"].items():
            stored, memory = found["first_stored_s"], found["uss_mb"]
            reached = f"first sample stored after {show(stored)} s"
            yield Row("helper at work within 0.3 s", f"{case}, {way}", reached, stored["median"] <= 0.3)
            shared = show(found["pss_mb"], ".1f")
            reached = f"{show(memory, '.1f')} MB of its own, {shared} MB with its share of shared memory"
            yield Row("at most 40 MB a helper", f"{case}, {way}", reached, memory["median"] <= 40)
