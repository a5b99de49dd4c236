"""The page of tables and plots, from the figures alone.

python benchmarks/report.py [FIGURES.json] [PAGE.md] [--add OTHER.json]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import figures as kept
import sections
import sections_of_gpu
import sections_of_stores
import summary
import targets
from sections import table

__all__ = ["tables", "write_page"]

Figures = dict[str, Any]

_DISTURBED = 0.1  # of a core
_INTRO = """# Benchmarks

`make bench` measures all of this in an environment of its own, and writes this page from `benchmarks/figures.json`.
What each part does stands at the head of its file in `benchmarks/`. Ways that are compared take turns within one run;
a figure is a median, in brackets the least, the most and the number of values. Ratios are to the baseline of the same
round. Cases can be measured one by one, so two of them may be of different runs and commits. What the project has set
itself, and what of it is missed, stands [at the end](#targets).
"""
_IN_SHORT = """## In short

Medians alone; the sections have the spread. *Helpers* are processes beside the loop, *threads* those of its own
process. The machine, and what was measured when, stand below.
"""


def write_page(figures: Figures, page: Path) -> None:
    """Write the page, and the plots into a folder of its name beside it."""
    cases = figures["cases"]
    plots = draw(cases, page.with_suffix(""))
    pictures = {part: [f"{page.stem}/{name}" for name in names] for part, names in plots.items()}
    sections = _sections(cases, pictures, absent=_ABSENT)
    text = [_INTRO, *_in_short(cases), "## The machine\n", *_environments(figures), *sections, *_targets(cases)]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(text).rstrip() + "\n")


def tables(figures: Figures) -> list[str]:
    """The machine and the tables, without targets and plots."""
    return [*_environments(figures), *_sections(figures["cases"], {})]


def draw(cases: dict[str, Figures], folder: Path) -> dict[str, list[str]]:
    """The plots' names by part; none without matplotlib."""
    try:
        import plots
    except ImportError:
        return {}
    return plots.draw_all(cases, folder)


def _environments(figures: Figures) -> list[str]:
    """The machines and versions; where there are several, with what was measured on each."""
    by_key: dict[str, dict[str, Figures]] = {}
    for case, found in figures["cases"].items():
        by_key.setdefault(found["on"], {})[case] = found
    text = []
    for key, cases in by_key.items():
        machine = figures["environments"][key]
        dates = sorted({case["date"] for case in cases.values()})
        levels = sorted({case["level"] for case in cases.values()})
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        what = f": {', '.join(_names(cases, figures['cases']))}" if len(by_key) > 1 else ""
        text.append(
            f"Measured on {' to '.join(dict.fromkeys((dates[0], dates[-1])))} ({', '.join(levels)} runs{what}): "
            f"{machine['processor']}, {machine['cores']} cores, {machine['memory_bytes'] / 1e9:.0f} GB, "
            f"{machine['platform']}; {versions}.\n"
        )
    return text


def _names(some: dict[str, Figures], all_of_them: dict[str, Figures]) -> list[str]:
    """Cases by their names, or by that of their part where all of it is among them."""
    names = {}
    for case in some:
        part = case.partition("/")[0]
        whole = all(one in some for one in all_of_them if one.startswith(f"{part}/"))
        names[part if whole else case] = None
    return [f"`{name}`" for name in names]


def _in_short(cases: dict[str, Figures]) -> list[str]:
    """What people ask, in one table."""
    titles = {part: title for part, (title, _) in _SECTIONS.items()}
    body = list(summary.rows(cases, titles))
    return [_IN_SHORT, table(("", "lighter_async", "what people use", "section"), body)] if body else []


def _targets(cases: dict[str, Figures]) -> list[str]:
    """How many workloads keep each target, and then each target by itself."""
    rows = targets.rows(cases)
    groups: dict[str, list[targets.Row]] = {}
    for row in rows:
        groups.setdefault(row.target, []).append(row)
    if not rows:
        return []
    hits = sum(row.hit for row in rows)
    text = [f"## Targets\n\n{hits} of {len(rows)} rows are hit. A row is judged by its median.\n"]
    text.append(table(("target", "hit"), [(target, _hits(group)) for target, group in groups.items()]))
    for target, group in groups.items():
        body = [(row.workload, row.reached, "hit" if row.hit else "**miss**") for row in group]
        text += [f"### {target[0].upper()}{target[1:]}\n", table(("workload", "reached", ""), body)]
    return text


def _hits(group: Sequence[targets.Row]) -> str:
    return f"{sum(row.hit for row in group)} of {len(group)}"


def _sections(
    cases: dict[str, Figures], pictures: dict[str, list[str]], absent: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """The sections of the parts that were measured, and of those that are told of where they were not."""
    found = []
    for part, (title, body) in _SECTIONS.items():
        own = {case.partition("/")[2]: figures for case, figures in cases.items() if case.partition("/")[0] == part}
        if own:
            shown = [f"![{title}]({picture})\n" for picture in pictures.get(part, [])]
            found += [f"## {title}\n", *shown, *body(own), *_others(own), *_left_out(own)]
        elif part in absent:
            found += [f"## {title}\n", absent[part]]
    return found


def _others(cases: dict[str, Figures]) -> list[str]:
    """What other programs took of the machine meanwhile, without which no spread can be judged.

    Cases beside which they took much are named, each with what they took.
    """
    shares = {case: figures["others"] for case, figures in cases.items() if "others" in figures}
    quiet = [one for one in shares.values() if one["median"] <= _DISTURBED]
    text = [
        f"**Disturbed:** beside `{case}` other programs used {one['median']:.0%} of a core (the median of its runs), "
        f"at most {one['most']:.0%}.\n"
        for case, one in shares.items()
        if one not in quiet
    ]
    if quiet:
        middle, most = max(one["median"] for one in quiet), max(one["most"] for one in quiet)
        beside = "beside the rest" if text else "meanwhile"
        text.append(
            f"Other programs {beside} used {middle:.1%} of a core (the median of the worst case), at most {most:.0%}.\n"
        )
    return text


def _left_out(cases: dict[str, Figures]) -> list[str]:
    missing = sorted({peer for figures in cases.values() for peer in figures.get("left_out", [])})
    return [f"Left out, for they are not installed: {', '.join(missing)}.\n"] if missing else []


_SECTIONS = {**sections.SECTIONS, **sections_of_stores.SECTIONS, **sections_of_gpu.SECTIONS}
_ABSENT = {"gpu": sections_of_gpu.NEVER_RUN}


def main() -> None:
    docs = Path(__file__).parent.parent / "docs"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="?", type=Path, default=docs / "benchmarks" / "figures.json")
    parser.add_argument("page", nargs="?", type=Path, default=docs / "benchmarks.md")
    parser.add_argument("--add", type=Path, help="figures of another machine, which are kept in the file first")
    options = parser.parse_args()
    if options.add:
        kept.keep(options.figures, kept.load(options.add))
    write_page(kept.load(options.figures), options.page)


if __name__ == "__main__":
    main()
