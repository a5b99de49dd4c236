"""The table and the lines that the bench prints at its end."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lighter_async.cli.bench.figures import Baseline, Figures, Inline, Spread
from lighter_async.cli.bench.grid import Setting

__all__ = ["baseline_line", "figures_table", "inline_line"]

_MUCH_NOISE = 0.1


def figures_table(figures: Sequence[Figures], inline: Inline | None, chosen: Setting, repeats: int) -> Table:
    """A row for each setting and one for inline writing, narrow enough for a terminal of 80 columns.

    Args:
        figures: The figures of each setting.
        inline: Those of the loop that writes each batch itself, if there are any.
        chosen: The setting to mark.
        repeats: How often each setting was run.
    """
    title = f"Medians of {repeats} repeats, ± half of what lies between the least and the most"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("\nbackend")
    for heading in (
        "max_\nworkers",
        "queue_\nsize",
        "loop\nslow-down",
        "long\njob",
        "\nsamples/s",
        "\nMB/s",
        "waited\ns",
        "peak\nMB",
    ):
        table.add_column(heading, justify="right")
    for number, one in enumerate(figures):
        setting = one.setting
        if number and setting.backend != figures[number - 1].setting.backend:
            table.add_section()
        table.add_row(
            f"{setting.backend}{' *' if setting == chosen else ''}",
            str(setting.max_workers),
            str(setting.queue_size),
            _with_spread(one.slowdown, ".2f"),
            f"{one.long_slowdown.median:.2f}",
            _with_spread(one.samples_per_second, ",.0f"),
            f"{one.megabytes_per_second.median:,.1f}",
            f"{one.waited_seconds.median:.2f}",
            f"{one.peak_bytes / 1e6:,.1f}",
        )
    if inline is not None:
        table.add_section()
        table.add_row(
            "inline",
            "",
            "",
            _with_spread(inline.slowdown, ".2f"),
            f"{inline.slowdown.median:.2f}",
            _with_spread(inline.samples_per_second, ",.0f"),
            f"{inline.megabytes_per_second.median:,.1f}",
        )
    return table


def inline_line(inline: Inline, chosen: Figures) -> str:
    """How the loop that writes each batch itself compares with the chosen setting."""
    times = inline.slowdown.median / chosen.long_slowdown.median
    return f"Written inline, a long job would take {times:.2f} times as long."


def baseline_line(baseline: Baseline) -> str:
    """How long the loop without writing took, and what to do if that varied."""
    seconds = baseline.loop_seconds
    line = (
        f"Without writing the loop took {seconds.median:.2f} s ({seconds.least:.2f} to {seconds.most:.2f}); such runs "
        f"of one round differed by {baseline.noise:.1%} at most"
    )
    if baseline.noise > _MUCH_NOISE:
        return f"{line}, which is much: leave the machine alone meanwhile, or raise --seconds or --repeats."
    return f"{line}."


def _with_spread(spread: Spread, form: str) -> str:
    return f"{spread.median:{form}} ±{(spread.most - spread.least) / 2:{form}}"
