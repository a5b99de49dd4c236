"""Plot the figures: throughput above, the loop's slow-down below, over the grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lighter_async.cli.bench.backends import BACKENDS
from lighter_async.cli.bench.figures import Figures, Inline, Spread
from lighter_async.cli.bench.grid import Setting

__all__ = ["save_plot"]

_COLOURS = ("#c0562f", "#2f6fb0")  # by backend, distinct for colour-blind readers too
_MARKERS = "os^Dvp"  # by queue size, and so are the lines
_LINES = ("-", "--", ":", "-.")
_GRID = {"color": "#e3e3e0", "linewidth": 0.8}


def save_plot(
    file: Path, figures: Sequence[Figures], inline: Inline | None, chosen: Setting, *, title: str, caption: str
) -> None:
    """Draw medians over `max_workers`, with a bar from the least to the most of the repeats, into a PNG.

    Args:
        file: The PNG file.
        figures: The figures of each setting.
        inline: Those of the loop that writes each batch itself, if there are any.
        chosen: The setting to mark with a ring.
        title: The workload.
        caption: The machine.

    Raises:
        OSError: It cannot be written.
    """
    # No pyplot, which would keep the figure and look for a display.
    figure = Figure(figsize=(8, 8), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    workers = sorted({one.setting.max_workers for one in figures})
    sizes = sorted({one.setting.queue_size for one in figures})
    series = list(dict.fromkeys((one.setting.backend, one.setting.queue_size) for one in figures))
    for number, (backend, size) in enumerate(series):
        ours = [one for one in figures if (one.setting.backend, one.setting.queue_size) == (backend, size)]
        # Side by side, so that bars do not hide each other.
        aside = 0.3 * ((number + 0.5) / len(series) - 0.5)
        places = [workers.index(one.setting.max_workers) + aside for one in ours]
        style = {
            "color": _COLOURS[BACKENDS.index(backend)],
            "marker": _MARKERS[sizes.index(size) % len(_MARKERS)],
            "linestyle": _LINES[sizes.index(size) % len(_LINES)],
            "label": f"{backend}, queue_size={size}",
        }
        _draw(above, places, [one.samples_per_second for one in ours], style)
        _draw(below, places, [one.slowdown for one in ours], style)
        for place, one in zip(places, ours, strict=True):
            if one.setting == chosen:
                for axes, spread in ((above, one.samples_per_second), (below, one.slowdown)):
                    axes.plot(place, spread.median, "o", ms=17, mfc="none", mec="#222222", label="_")
    below.axhline(1, color="#555555", linewidth=1)
    if inline is not None:
        for axes, spread in ((above, inline.samples_per_second), (below, inline.slowdown)):
            axes.axhline(spread.median, color="#777777", linestyle=":", label="inline")
    above.set(ylabel="samples/s, until all are stored", ylim=(0, None))
    below.set(ylabel="loop slow-down (time with writing / without)", xlabel="max_workers")
    below.set_xticks(range(len(workers)), [str(count) for count in workers])
    for axes in (above, below):
        axes.grid(axis="y", **_GRID)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.15)
    above.legend(frameon=False, fontsize="small")
    figure.suptitle(title, fontsize="medium", wrap=True)
    figure.supxlabel(f"Ring: recommended. {caption}", fontsize="x-small", color="#555555", wrap=True)
    figure.savefig(file, format="png", dpi=120)


def _draw(axes: Axes, places: Sequence[float], spreads: Sequence[Spread], style: dict[str, Any]) -> None:
    medians = [spread.median for spread in spreads]
    below = [spread.median - spread.least for spread in spreads]
    above = [spread.most - spread.median for spread in spreads]
    axes.errorbar(places, medians, (below, above), capsize=3, **style)
