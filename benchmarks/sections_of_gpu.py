"""The tables of what was measured on a GPU, from its figures alone."""

from __future__ import annotations

from typing import Any

from sections import Section, table
from targets import show

__all__ = ["NEVER_RUN", "SECTIONS"]

Figures = dict[str, Any]

NEVER_RUN = (
    "Never run: these figures need a machine with a GPU. `make gpu` measures there; "
    "[gpu.md](gpu.md) says what else was never run on one.\n"
)


def _gpu(cases: dict[str, Figures]) -> list[str]:
    text = [f"On {device}.\n" for device in sorted({figures["device"] for figures in cases.values()})]
    if bus := cases.get("bus"):
        text += _bus(bus)
    models = {case: figures for case, figures in cases.items() if "ways" in figures}
    return [*text, *_models(models)] if models else text


def _bus(figures: Figures) -> list[str]:
    text = (
        f"{figures['title'][0].upper()}{figures['title'][1:]}. The first copy takes the memory from the system, and "
        "pins it; later ones use it again. Ours clone the batch on the device first.\n"
    )
    rows = [
        (
            f"{int(size):,} B",
            way,
            show(found["gb_per_s"], ".2f"),
            show(found["to_pinned"], ".2f"),
            show(found["first_ms"], ".2f"),
        )
        for size, ways in figures["sizes"].items()
        for way, found in ways.items()
    ]
    return [text, table(("batch", "", "GB/s", "beside copies into pinned memory", "the first, ms"), rows)]


def _models(cases: dict[str, Figures]) -> list[str]:
    text = (
        "A plain loop of a model, as a multiple of its time without writing. It ends when the device has computed "
        "everything, and the whole job when everything is stored. Idle is the device: between the steps by events, and "
        "by the profiler the share of a few steps in which no kernel ran.\n"
    )
    rows = []
    for figures in cases.values():
        without = f"nothing: {show(figures['without_ms'], '.2f')} ms a step, noise {figures['noise']['median']:.1%}"
        idle = _percent(figures["idle"]["nothing"]), _share(figures, "nothing")
        rows.append((f"**{figures['title']}**, {figures['output_bytes'] / 1e6:.1f} MB a step", without, "", "", *idle))
        for way, found in figures["ways"].items():
            ratios = show(found["loop"]), show(found["whole"]), show(found["hand_over_us"], ",.0f")
            rows.append((way, *ratios, _percent(found["idle"]), _share(figures, way)))
    headings = ("", "loop, times", "whole job, times", "hand-over, us", "idle between steps", "no kernel runs")
    reasons = {way: why for figures in cases.values() for way, why in figures["why_left_out"].items()}
    return [text, table(headings, rows), *(f"{way} is left out: {why}.\n" for way, why in reasons.items())]


def _percent(figure: Figures) -> str:
    return f"{figure['median']:.1%} ({figure['least']:.1%} to {figure['most']:.1%})"


def _share(figures: Figures, way: str) -> str:
    return f"{figures['kernels_idle'][way]:.1%}" if way in figures["kernels_idle"] else "not seen"


SECTIONS: dict[str, Section] = {"gpu": ("On a GPU", _gpu)}
