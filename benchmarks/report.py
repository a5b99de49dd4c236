"""The page of tables and plots, from the figures alone.

python benchmarks/report.py [FIGURES.json] [PAGE.md]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import targets
from targets import show

__all__ = ["write_page"]

Figures = dict[str, Any]

_INTRO = """# Benchmarks

`make bench` measures all of this in an environment of its own, and writes this page from `benchmarks/figures.json`.
What each part does stands at the head of its file in `benchmarks/`. Ways that are compared take turns within one run;
a figure is a median, in brackets the least, the most and the number of values. Ratios are to the baseline of the same
round. Cases can be measured one by one, so two of them may be of different runs and commits.
"""


def write_page(figures: Figures, page: Path) -> None:
    """Write the page, and the plots into a folder of its name beside it."""
    cases = figures["cases"]
    sections = [_INTRO, *_environments(figures), *_targets(cases)]
    plots = draw(cases, page.with_suffix(""))
    for part, (title, body) in _PARTS.items():
        own = {case.partition("/")[2]: found for case, found in cases.items() if case.partition("/")[0] == part}
        if own:
            sections += [f"## {title}\n", *(f"![{title}]({page.stem}/{name})\n" for name in plots.get(part, []))]
            sections += [*body(own), *_others(own), *_left_out(own)]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(sections).rstrip() + "\n")


def draw(cases: dict[str, Figures], folder: Path) -> dict[str, list[str]]:
    """The plots' names by part; none without matplotlib."""
    try:
        import plots
    except ImportError:
        return {}
    return plots.draw_all(cases, folder)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def _environments(figures: Figures) -> list[str]:
    found = []
    cases = figures["cases"].values()
    for key, machine in figures["environments"].items():
        dates = sorted({case["date"] for case in cases if case["on"] == key})
        levels = sorted({case["level"] for case in cases if case["on"] == key})
        if not dates:
            continue
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        found.append(
            f"Measured on {' to '.join(dict.fromkeys((dates[0], dates[-1])))} ({', '.join(levels)} runs): "
            f"{machine['processor']}, {machine['cores']} cores, {machine['memory_bytes'] / 1e9:.0f} GB, "
            f"{machine['platform']}; {versions}.\n"
        )
    return found


def _targets(cases: dict[str, Figures]) -> list[str]:
    rows = targets.rows(cases)
    if not rows:
        return []
    hits = sum(row.hit for row in rows)
    body = [(row.target, row.workload, row.reached, "hit" if row.hit else "**miss**") for row in rows]
    head = f"## Targets\n\n{hits} of {len(rows)} rows are hit. A row is judged by its median.\n"
    return [head, table(("target", "workload", "reached", ""), body)]


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


def _others(cases: dict[str, Figures]) -> list[str]:
    """What other programs took of the machine meanwhile, without which no spread can be judged."""
    shares = [figures["others"] for figures in cases.values() if "others" in figures]
    if not shares:
        return []
    middle, most = max(one["median"] for one in shares), max(one["most"] for one in shares)
    return [
        f"Other programs meanwhile used {middle:.1%} of a core (the median of the worst case), at most {most:.0%}.\n"
    ]


def _left_out(cases: dict[str, Figures]) -> list[str]:
    missing = sorted({peer for figures in cases.values() for peer in figures.get("left_out", [])})
    return [f"Left out, for they are not installed: {', '.join(missing)}.\n"] if missing else []


_PARTS: dict[str, tuple[str, Callable[[dict[str, Figures]], list[str]]]] = {
    "loops": ("The loop's slow-down", _loops),
    "handover": ("Hand-over", _handover),
    "saturated": ("Saturated throughput", _saturated),
    "encoders": ("Encoders", _encoders),
    "waits": ("Waits of the main thread", _waits),
    "minilm": ("A real model: MiniLM", _minilm),
    "memory": ("Memory beside a slow target", _memory),
    "scale": ("Cost per file, over long runs", _scale),
    "records": ("Records and durability", _records),
    "helpers": ("Helpers", _helpers),
}


def main() -> None:
    docs = Path(__file__).parent.parent / "docs"
    file, page = [*map(Path, sys.argv[1:]), docs / "benchmarks" / "figures.json", docs / "benchmarks.md"][:2]
    if len(sys.argv) == 2:
        page = docs / "benchmarks.md"
    write_page(json.loads(file.read_text()), page)


if __name__ == "__main__":
    main()
