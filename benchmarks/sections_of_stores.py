"""The tables of each part, from its figures alone: where samples are stored, and what is found there later."""

from __future__ import annotations

from typing import Any

from sections import Section, table
from targets import show

__all__ = ["SECTIONS"]

Figures = dict[str, Any]


def _shards(cases: dict[str, Figures]) -> list[str]:
    text = (
        "From the first hand-over until everything is stored and all shards are sealed, with records, checksums and "
        "the sync of each shard. The others write in the loop itself, without checksums and records. `fsync` and "
        "`rename` are kinds of durability. Beside files: those of the same backend and durability; for the others, of "
        "threads.\n"
    )
    rows = []
    for figures in cases.values():
        rows.append((f"**{figures['title']}**", "", "", ""))
        for way, found in figures["ways"].items():
            webdataset = show(found["to_webdataset"], ".2f") if "to_webdataset" in found else ""
            rows.append((way, show(found["samples_per_s"], ",.0f"), show(found["to_files"], ".2f"), webdataset))
    return [text, table(("", "samples/s", "beside files", "beside webdataset's ShardWriter"), rows)]


def _arrays(cases: dict[str, Figures]) -> list[str]:
    text = (
        "From the second batch until everything is stored; the number is that of workers. All but ours write in the "
        "loop itself, without checksums and records. Processor time is that of the loop's process, without helpers.\n"
    )
    rows = []
    for figures in cases.values():
        rows.append((f"**{figures['title']}**", "", "", ""))
        for way, found in figures["ways"].items():
            speed = show(found["thousand_rows_per_s"], ",.0f")
            rows.append((way, speed, show(found["to_bare"], ".2f"), show(found["cpu_us_per_row"], ".2f")))
    headings = ("", "thousand rows/s", "beside one bare `pwrite` a batch", "us of the processor, a row")
    return [text, table(headings, rows)]


def _tables(cases: dict[str, Figures]) -> list[str]:
    text = (
        "From the first hand-over until the table is there, in the order of the indices, with one worker. The others "
        "write in the loop itself, without indices and records. Processor time is that of the loop's process, without "
        "helpers.\n"
    )
    rows = []
    for figures in cases.values():
        rows.append((f"**{figures['title']}**", "", "", ""))
        for way, found in figures["ways"].items():
            columns = show(found["loop_us_per_row"], ".2f"), show(found["thousand_rows_per_s"], ",.0f")
            rows.append((way, *columns, show(found["cpu_us_per_row"], ".2f")))
    headings = ("", "us of the loop, a row", "thousand rows/s", "us of the processor, a row")
    return [text, table(headings, rows)]


def _slowdown(cases: dict[str, Figures]) -> list[str]:
    text = (
        "Time of Lightning's predict loop with writing to each kind of target, as a multiple of its time without; and "
        "the processor time that the loop's own thread takes more in a step.\n"
    )
    rows = []
    for figures in cases.values():
        without = f"nothing: {show(figures['without_ms'], '.2f')} ms a step, noise {figures['noise']['median']:.1%}"
        rows.append((f"**{figures['title']}**", without, ""))
        for way, found in figures["ways"].items():
            rows.append((way, show(found["loop"]), show(found["added_cpu_us"], ",.0f")))
    return [text, table(("", "loop, times", "us of the processor more, a step"), rows)]


def _first_second(cases: dict[str, Figures]) -> list[str]:
    text = (
        "Runs of 60 steps in a process of their own, start included: the time of the loop as a multiple of that "
        "without writing, and the hand-overs, in milliseconds.\n"
    )
    rows = []
    for figures in cases.values():
        rows.append((f"**{figures['title']}**", f"nothing: {show(figures['without_ms'], '.2f')} ms a step", "", "", ""))
        for way, found in figures["ways"].items():
            columns = (show(found[one], ".2f") for one in ("first_ms", "next_ms", "later_ms"))
            rows.append((way, show(found["loop"]), *columns))
    return [text, table(("", "loop, times", "first", "next ten", "later"), rows)]


def _by_name(cases: dict[str, Figures]) -> list[str]:
    found = []
    for figures in cases.values():
        built, opened, first = figures["built"], figures["opened"], figures["first_look"]
        found.append(
            f"{figures['title']}: stored in {built['seconds']:.1f} s, with {built['loop_cpu_seconds']:.1f} s of the "
            f"processor in the loop and {built['helper_cpu_seconds']:.1f} s in the helper. Opened in "
            f"{opened['seconds']:.2f} s, {opened['cpu_seconds']:.2f} s of the processor; the process has grown by "
            f"{opened['grown_mb']:.0f} MB then. The first look makes the index of names, in {first['seconds']:.2f} s, "
            f"and the process has grown by {first['grown_mb']:.0f} MB then. Each look at a name chosen at random "
            "takes:\n"
        )
        rows = [
            (way, show(one["us"], ".1f"), f"{one['p99_us']:.1f}", show(one["cpu_us"], ".1f"))
            for way, one in figures["ways"].items()
        ]
        found.append(table(("", "us", "99 %, us", "us of the processor"), rows))
    return found


def _after_kill(cases: dict[str, Figures]) -> list[str]:
    text = (
        "Of the rows handed over when SIGKILL came, those that the format's own reader then gives whole. The loop's "
        "process is killed; helper processes store what they were handed. `inline`: written in the loop itself.\n"
    )
    rows = []
    for figures in cases.values():
        rows.append((f"**{figures['title']}**", "", ""))
        for way, found in figures["ways"].items():
            said = found["reader"].replace("|", "\\|")
            rows.append((way, show(found["kept"], ".1%"), said))
    return [text, table(("", "kept", "what the reader says otherwise"), rows)]


SECTIONS: dict[str, Section] = {
    "shards": ("Files and shards", _shards),
    "arrays": ("Rows of one array", _arrays),
    "tables": ("Rows of one table", _tables),
    "slowdown": ("The loop's slow-down, by target", _slowdown),
    "first_second": ("The first second, and short steps", _first_second),
    "by_name": ("Looking samples up by name", _by_name),
    "after_kill": ("What is left after SIGKILL", _after_kill),
}
