"""The plots of the page, drawn from the figures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["draw_all"]

Figures = dict[str, Any]

_OURS, _OURS_TOO, _FLOOR = "#1f6f8b", "#7fb7c9", "#888888"
_OTHERS = ("#c8553d", "#e09f3e", "#9e7bb5", "#6a994e", "#b56576", "#8d6e63")


def draw_all(cases: dict[str, Figures], folder: Path) -> dict[str, list[str]]:
    """Draw what there are figures for; the files' names, by part."""
    drawn: dict[str, list[str]] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for part, name, draw in _PLOTS:
        own = {case.partition("/")[2]: found for case, found in cases.items() if case.partition("/")[0] == part}
        if own and (figure := draw(own)) is not None:
            figure.savefig(folder / name, dpi=110, bbox_inches="tight", metadata={"Software": None})
            plt.close(figure)
            drawn.setdefault(part, []).append(name)
    return drawn


def colour(name: str, known: dict[str, str]) -> str:
    """The same one for the same name: ours in blue, the others in turn."""
    if name.startswith("lighter_async"):
        return _OURS if "process" in name or name == "lighter_async" else _OURS_TOO
    if name.startswith(("floor", "one copy")):
        return _FLOOR
    return known.setdefault(name, _OTHERS[len(known) % len(_OTHERS)])


def loops(cases: dict[str, Figures]) -> Any:
    """Bars by workload and peer, one panel for each kind of step."""
    kinds = list(dict.fromkeys(case.partition("/")[0] for case in cases))
    peers = list(dict.fromkeys(peer for figures in cases.values() for peer in figures["peers"]))
    known: dict[str, str] = {}
    figure, panels = plt.subplots(len(kinds), 1, figsize=(11, 3.6 * len(kinds)), squeeze=False, layout="constrained")
    for axes, kind in zip(panels[:, 0], kinds, strict=True):
        own = {case.partition("/")[2]: found for case, found in cases.items() if case.startswith(f"{kind}/")}
        _bars(axes, own, peers, lambda found: found["loop"], known, "peers")
        axes.set_yscale("log")
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_ylabel("loop's time, as a multiple\nof the loop without writing")
        axes.set_title(f"{kind}-bound steps", loc="left", fontsize=10)
        axes.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
        axes.minorticks_off()
    panels[0, 0].legend(ncols=4, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.1), frameon=False)
    return figure


def saturated(cases: dict[str, Figures]) -> Any:
    """Bars of the ratio to the floor."""
    ways = list(dict.fromkeys(way for figures in cases.values() for way in figures["ways"] if "floor" not in way))
    known: dict[str, str] = {}
    figure, axes = plt.subplots(figsize=(11, 4.5), layout="constrained")
    _bars(axes, cases, ways, lambda found: found["to_floor"], known, "ways")
    axes.set_yscale("log")
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_yticks([0.003, 0.01, 0.03, 0.1, 0.3, 1, 3], ["0.003", "0.01", "0.03", "0.1", "0.3", "1", "3"])
    axes.minorticks_off()
    axes.set_ylabel("files a second, as a share of the floor's\nwith as many workers (log)")
    axes.legend(ncols=4, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return figure


def _bars(
    axes: Any,
    cases: dict[str, Figures],
    ways: list[str],
    value: Callable[[Figures], Figures],
    known: dict[str, str],
    entry: str,
) -> None:
    width = 0.86 / len(ways)
    for index, way in enumerate(ways):
        places, heights, below, above = [], [], [], []
        for place, figures in enumerate(cases.values()):
            if found := figures[entry].get(way):
                one = value(found)
                places.append(place + width * (index - (len(ways) - 1) / 2))
                heights.append(one["median"])
                below.append(one["median"] - one["least"])
                above.append(one["most"] - one["median"])
        light = {"alpha": 0.6} if way.endswith(", 1") else {}
        axes.bar(places, heights, width * 0.92, label=way, color=colour(way.rstrip(", 12"), known), **light)
        axes.errorbar(places, heights, (below, above), fmt="none", ecolor="black", elinewidth=0.8, capsize=1.5)
    axes.set_xticks(range(len(cases)), [_wrapped(case) for case in cases], fontsize=9)
    axes.grid(axis="y", linewidth=0.3)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _wrapped(case: str) -> str:
    place, _, name = case.rpartition("/")
    where = f"\nin {place}" if place == "memory" else f"\non {place}" if place else ""
    named = {
        "tensors": "8 tensors\nof 600 kB",
        "embeddings": "64 embeddings\nof 1.5 kB",
        "png224": "16 PNGs\nof 224 x 224",
        "png512": "8 PNGs\nof 512 x 512",
        "volume": "one volume\nof 33 MB",
    }
    return named.get(name, name) + where


def encoders(cases: dict[str, Figures]) -> Any:
    """Speed against size, a point for each PNG encoder; lines show the spread over photographs."""
    if "png512" not in cases:
        return None
    figure, axes = plt.subplots(figsize=(8.5, 5), layout="constrained")
    known: dict[str, str] = {}
    ways = sorted(cases["png512"]["ways"].items(), key=lambda item: item[1]["mb_per_s"]["median"])
    for index, (way, found) in enumerate(ways):
        speed, size = found["mb_per_s"], found["size"]
        x, y = speed["median"], size["median"]
        spread_x = [[x - speed["least"]], [speed["most"] - x]]
        spread_y = [[y - size["least"]], [size["most"] - y]]
        tint = colour(way, known)
        axes.errorbar(
            x, y, spread_y, spread_x, fmt="o", color=tint, elinewidth=0.7, capsize=2, label=f"{index + 1}  {way}"
        )
        place = (5, -15) if index % 2 else (-14, 5)  # on two sides, for neighbours lie close to each other
        axes.annotate(str(index + 1), (x, y), place, textcoords="offset points", fontsize=10, fontweight="bold")
    axes.set_xscale("log")
    axes.axhline(1.05, color="black", linewidth=0.6, linestyle=":")
    axes.set_xlabel("MB of pixels a second (log)")
    axes.set_ylabel("size, as a multiple of Pillow's at level 6")
    axes.set_title(cases["png512"]["title"], loc="left", fontsize=10)
    axes.grid(linewidth=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def memory(cases: dict[str, Figures]) -> Any:
    """Resident memory over time."""
    figure, axes = plt.subplots(figsize=(8.5, 3.8), layout="constrained")
    known: dict[str, str] = {}
    names = {"lighter_async": "lighter_async", "executor": "thread pool without a bound"}
    for figures in cases.values():
        for way, found in figures["ways"].items():
            times, megabytes = zip(*found["series"], strict=True)
            axes.plot(times, megabytes, color=colour(way, known), label=names[way])
        axes.set_title(figures["title"], loc="left", fontsize=10)
    axes.set_xlabel("seconds")
    axes.set_ylabel("resident memory beyond the start, MB")
    axes.set_ylim(bottom=0)
    axes.grid(linewidth=0.3)
    axes.legend(frameon=False)
    return figure


def scale(cases: dict[str, Figures]) -> Any:
    """Cost of a file, and memory, over the number of files."""
    figure, (cost, rss) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
    for figures in cases.values():
        for (size, points), tint in zip(figures["sizes"].items(), (_OURS, _OTHERS[0]), strict=True):
            files = [point["files"] for point in points]
            for axes, name in ((cost, "us_per_file"), (rss, "grown_mb")):
                middle = [point[name]["median"] for point in points]
                axes.plot(files, middle, "o-", color=tint, label=size)
                edges = [[point[name][edge] for point in points] for edge in ("least", "most")]
                axes.fill_between(files, *edges, color=tint, alpha=0.2, linewidth=0)
    for axes, label in ((cost, "us a file"), (rss, "MB that all processes have grown by")):
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("files stored")
        axes.set_ylabel(label)
        axes.grid(linewidth=0.3)
    rss.set_ylim(top=max(10, rss.get_ylim()[1]))
    cost.legend(frameon=False)
    return figure


def rates(cases: dict[str, Figures], name: str, label: str) -> Any:
    """A bar for each way, slowest at the bottom, and a panel for each case."""
    most = max(len(figures["ways"]) for figures in cases.values())
    size = 11, len(cases) * (0.8 + 0.24 * most)
    figure, panels = plt.subplots(len(cases), 1, figsize=size, squeeze=False, layout="constrained")
    for axes, figures in zip(panels[:, 0], cases.values(), strict=True):
        ways = sorted(figures["ways"].items(), key=lambda item: item[1][name]["median"])
        for place, (way, found) in enumerate(ways):
            one = found[name]
            edges = [[one["median"] - one["least"]], [one["most"] - one["median"]]]
            axes.barh(place, one["median"], 0.8, color=_tint(way))
            axes.errorbar(one["median"], place, xerr=edges, fmt="none", ecolor="black", elinewidth=0.8, capsize=1.5)
        axes.set_yticks(range(len(ways)), [way for way, _ in ways], fontsize=9)
        axes.set_title(figures["title"], loc="left", fontsize=10)
        axes.set_xlabel(label)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(axis="x", linewidth=0.3)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return figure


def _tint(way: str) -> str:
    """By whose it is: a target of ours, files of ours, the floor, or others."""
    if way.startswith(("TarShards", "ArrayTarget")):
        return _OURS
    if way.startswith("files"):
        return _OURS_TOO
    return _FLOOR if way.startswith("bare") else _OTHERS[0]


_PLOTS: tuple[tuple[str, str, Callable[[dict[str, Figures]], Any]], ...] = (
    ("loops", "loops.png", loops),
    ("saturated", "saturated.png", saturated),
    ("encoders", "encoders.png", encoders),
    ("memory", "memory.png", memory),
    ("scale", "scale.png", scale),
    ("shards", "shards.png", partial(rates, name="samples_per_s", label="samples/s")),
    ("arrays", "arrays.png", partial(rates, name="thousand_rows_per_s", label="thousand rows/s")),
)
