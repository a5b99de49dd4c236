"""The lines that tell of no samples: of runs, of their data sets, and of what was taken back or sealed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lighter_async.manifest.entry import Loaders, Record, RunRecord
from lighter_async.manifest.line import FORMAT, Config, Loader, OutputName
from lighter_async.runs import Begun
from lighter_async.types import Durability, Run

__all__ = ["dropped_lines", "header_line", "loaders_line", "mirrored_lines", "sealed_line"]


def header_line(
    run: Run,
    begun: Begun,
    series: OutputName,
    *,
    resume: bool,
    durability: Durability,
    config: Config,
    boot: str,
    time: float,
) -> str:
    """The line that a writer begins with, for each of its series."""
    about = {
        "format": FORMAT,
        "run": run.id,
        "writer": series.writer,
        "key": series.key,
        "suffix": series.suffix,
        "rank": run.rank,
        "world_size": run.world_size,
        "resume": resume,
        "numbered": run.numbered,
        "since": begun.since,
        "boot": boot,
        "time": round(time, 6),
        "sequence": begun.sequence,
        "beside": begun.beside,
        "durability": durability,
        "config": config,
    }
    if series.options:
        about["options"] = json.loads(series.options)
    if series.lost:
        about["lost_options"] = series.lost
    return json.dumps(about, separators=(",", ":")) + "\n"


def loaders_line(run: Run, series: OutputName, loaders: Sequence[Loader], *, named: bool) -> str:
    """The line that says over which data sets a series' samples go, and whether they have names of the user's."""
    about = {
        "run": run.id,
        "writer": series.writer,
        "key": series.key,
        "named": named,
        "loaders": [asdict(one) for one in loaders],
    }
    return json.dumps(about, separators=(",", ":")) + "\n"


def mirrored_lines(runs: Sequence[RunRecord], loaders: Sequence[Loaders], *, durability: Durability) -> str:
    """The lines with which runs of another directory, and what they said of their data sets, are told here.

    Args:
        runs: This rank's.
        loaders: Over which data sets they went.
        durability: Of what is recorded here.
    """
    lines = []
    for one in runs:
        run = Run(id=one.run, rank=one.rank, world_size=one.world_size, key=one.key, numbered=one.numbered)
        lines.append(
            header_line(
                run,
                Begun(one.sequence, one.since, one.beside),
                OutputName(
                    one.writer,
                    one.key,
                    one.suffix,
                    json.dumps(one.options) if one.options else "",
                    one.lost_options,
                ),
                resume=one.resume,
                durability=durability,
                config=one.config,
                boot=one.boot,
                time=one.time,
            )
        )
    for about in loaders:
        series = OutputName(about.writer, about.key)
        lines.append(loaders_line(Run(id=about.run), series, about.loaders, named=about.named))
    return "".join(lines)


def dropped_lines(records: Sequence[tuple[Record, Sequence[int] | None]], time: float) -> str:
    """The lines that take back samples which were recorded, each with what `_dropped_line` is to say of its file."""
    lines = []
    for one, seen in records:
        series = one.series if one.offset else None
        offset = one.offset if one.is_in_array else 0
        lines.append(_dropped_line(one.name, one.file, one.run, time, seen, series=series, offset=offset))
    return "".join(lines)


def _dropped_line(
    name: str,
    file: str | None,
    run: str,
    time: float,
    seen: Sequence[int] | None,
    *,
    series: tuple[str, str] | None = None,
    offset: int = 0,
) -> str:
    """The line that takes back what an earlier line says of a sample.

    Args:
        name: The sample's.
        file: Its file, which `seen` tells from a later one: its size, time and number, as it was found damaged.
        run: The run that stored it.
        time: Seconds since the epoch.
        seen: None if there was no file.
        series: The writer and the key of a sample that lies in a file with others, which stay.
        offset: Where it lies in the file, if it is known by its place.
    """
    about: dict[str, Any] = {"dropped": name, "file": file, "run": run, "time": round(time, 3), "seen": seen}
    if series is not None:
        about["series"] = series
    if offset:
        about["offset"] = offset
    return json.dumps(about, separators=(",", ":")) + "\n"


def sealed_line(object: str, run: str, time: float) -> str:
    """The line that says that an object has its final name, and holds all that it ever will.

    Args:
        object: The object.
        run: The run that has written it.
        time: Seconds since the epoch.
    """
    return json.dumps({"sealed": object, "run": run, "time": round(time, 3)}, separators=(",", ":")) + "\n"
