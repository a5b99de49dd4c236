"""The tables of each part, from its figures alone: what the loop and its writers take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from targets import show

__all__ = ["SECTIONS", "Section", "table"]

Figures = dict[str, Any]
Section = tuple[str, Callable[[dict[str, Figures]], list[str]]]
"""A title, and what makes the text of the cases' figures."""


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def _loops(cases: dict[str, Figures]) -> list[str]:
    text = (
        "Time of Lightning's predict loop with writing, as a multiple of its time without. Whole jobs include the wait "
        "until everything is stored. What two runs without writing in one round differ by is the noise.\n"
    )
    rows = []
    for figures in cases.values():
        without = f"nothing: {show(figures['without_ms'], '.2f')} ms a step, noise {figures['noise']['median']:.1%}"
        rows.append((f"**{figures['title']}**", without, "", ""))
        for peer, found in figures["peers"].items():
            longer = show(found["whole_to_longer"]) if "whole_to_longer" in found else ""
            rows.append((peer, show(found["loop"]), show(found["whole"]), longer))
    headings = ("", "loop, times", "whole job, times", "whole job to the longer of loop and writing alone")
    return [text, table(headings, rows)]


def _handover(cases: dict[str, Figures]) -> list[str]:
    rows = [
        (
            figures["title"],
            way,
            show(found["callback_us"], ",.0f"),
            show(found["copy_us"], ",.0f"),
            f"{found['excess_us']:,.0f}",
        )
        for figures in cases.values()
        for way, found in figures["ways"].items()
    ]
    return [table(("batch", "", "callback, us", "one plain copy, us", "callback - 1.2 copies, us"), rows)]


def _saturated(cases: dict[str, Figures]) -> list[str]:
    text = (
        "The number is that of workers. The floor writes the same bytes, encoded beforehand, by plain system calls.\n"
    )
    rows = []
    for figures in cases.values():
        rows.append((f"**{figures['title']}**, {figures['file_bytes'] / 1e3:,.1f} kB a file", "", "", ""))
        for way, found in figures["ways"].items():
            rates = show(found["files_per_s"], ",.0f"), show(found["mb_per_s"], ",.0f")
            rows.append((way, *rates, show(found["to_floor"], ".2f")))
    return [text, table(("", "files/s", "MB/s", "to the floor"), rows)]


def _waits(cases: dict[str, Figures]) -> list[str]:
    rows = []
    for figures in cases.values():
        rows.append((f"**beside {figures['title']}**", "", "", "", "", ""))
        for way, found in figures["ways"].items():
            times = [show(found[name], ".2f") for name in ("median_us", "mean_us")]
            rest = [f"{found[name]['median']:,.0f}" for name in ("p999_us", "most_us")]
            rows.append((way, *times, *rest, show(found["added_to_mean_us"], ".1f")))
    return [table(("", "median, us", "mean, us", "99.9 %, us", "most, us", "added to the mean, us"), rows)]


def _encoders(cases: dict[str, Figures]) -> list[str]:
    sections = []
    for case, figures in cases.items():
        sections.append(f"{figures['title']}.\n")
        if case == "pt":
            rows = [
                (
                    f"{int(size):,} B",
                    way,
                    show(found["us"], ".1f"),
                    show(found["faster"], ".1f"),
                    f"{found['size']:.3f}",
                )
                for size, ways in figures["sizes"].items()
                for way, found in ways.items()
            ]
            sections.append(table(("tensor", "", "us", "times as fast as torch.save", "size to torch.save's"), rows))
            continue
        rows = [
            (
                way,
                *(show(found[name], form) for name, form in (("mb_per_s", ".1f"), ("faster", ".1f"), ("size", ".3f"))),
            )
            for way, found in figures["ways"].items()
        ]
        sections.append(table(("", "MB/s of pixels", "times as fast as Pillow 6", "size to Pillow 6's"), rows))
    return sections


def _formats(cases: dict[str, Figures]) -> list[str]:
    text = (
        "A sample to bytes, in one thread: milliseconds of the processor, how many times as fast as the first of the "
        "group, and the size to that of the first. Ours are called as the writer is, with its options. A detection is "
        "a dict of 100 boxes, scores and labels. The photograph is scikit-image's `astronaut` as floats, whose "
        "conversion to pixels is included for all; the scan is nibabel's `example4d`. Ours begin with a sample in a "
        "worker's memory. `npy` and `safetensors` copy nothing, since a target writes the elements from where they "
        "lie; `numpy.save` and `safetensors.save` copy. `SaveImage` and `nibabel.save` write files into memory. "
        "tifffile compresses with imagecodecs, which is installed here.\n"
    )
    rows = []
    for case, figures in cases.items():
        for title, ways in figures["of"].items():
            rows.append((f"**{case}: {title}**", "", "", ""))
            for way, found in ways.items():
                rows.append((way, show(found["ms"], ".3g"), show(found["faster"], ".3g"), f"{found['size']:.3f}"))
    return [text, table(("", "ms of the processor", "times as fast", "size"), rows)]


def _minilm(cases: dict[str, Figures]) -> list[str]:
    sections = []
    for figures in cases.values():
        if "without_ms" not in figures:
            continue
        rows = [("nothing", "1", "1", show(figures["sentences_per_s"], ".0f"))]
        for peer, found in figures["peers"].items():
            rows.append((peer, show(found["loop"]), show(found["whole"]), show(found["sentences_per_s"], ".0f")))
        sections.append(f"{figures['title']}; without writing {show(figures['without_ms'], '.1f')} ms a batch.\n")
        sections.append(table(("", "loop, times", "whole job, times", "sentences/s"), rows))
    return sections


def _memory(cases: dict[str, Figures]) -> list[str]:
    rows = [
        (way, show(found["peak_mb"], ",.0f")) for figures in cases.values() for way, found in figures["ways"].items()
    ]
    titles = [f"{figures['title']}.\n" for figures in cases.values()]
    return [*titles, table(("", "most resident memory beyond the start, MB"), rows)]


def _scale(cases: dict[str, Figures]) -> list[str]:
    rows = [
        (size, f"{point['files']:,}", show(point["us_per_file"], ".1f"), show(point["grown_mb"], ".1f"))
        for figures in cases.values()
        for size, points in figures["sizes"].items()
        for point in points
    ]
    titles = [f"{figures['title']}; each stretch by itself.\n" for figures in cases.values()]
    return [*titles, table(("", "files", "us a file", "all processes have grown by, MB"), rows)]


def _records(cases: dict[str, Figures]) -> list[str]:
    rows = [
        (figures["title"], way, show(found["files_per_s"], ",.0f"), show(found["to_plain"], ".3f"))
        for figures in cases.values()
        for way, found in figures["ways"].items()
    ]
    return [table(("", "", "files/s", "to that without a manifest"), rows)]


def _helpers(cases: dict[str, Figures]) -> list[str]:
    names = ("start_returns_s", "first_stored_s", "rss_mb", "pss_mb", "uss_mb")
    rows = [
        (figures["title"], way, *(show(found[name], ".3f" if name.endswith("_s") else ".1f") for name in names))
        for figures in cases.values()
        for way, found in figures["ways"].items()
    ]
    text = "From the call of start() on. Memory is that of each helper; samples travel in shared memory.\n"
    headings = (
        "",
        "",
        "start() returns, s",
        "first sample stored, s",
        "resident, MB",
        "proportional, MB",
        "unique, MB",
    )
    return [text, table(headings, rows)]


SECTIONS: dict[str, Section] = {
    "loops": ("The loop's slow-down", _loops),
    "handover": ("Hand-over", _handover),
    "saturated": ("Saturated throughput", _saturated),
    "encoders": ("Encoders", _encoders),
    "formats": ("Formats", _formats),
    "waits": ("Waits of the main thread", _waits),
    "minilm": ("A real model: MiniLM", _minilm),
    "memory": ("Memory beside a slow target", _memory),
    "scale": ("Cost per file, over long runs", _scale),
    "records": ("Records and durability", _records),
    "helpers": ("Helpers", _helpers),
}
