"""The page's first table: what people ask, answered in a line beside what they would use instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

__all__ = ["rows"]

Figures = dict[str, Any]

_HELPERS, _THREADS = "helpers", "threads"


@dataclass(frozen=True)
class Question:
    """A line of the table.

    Attributes:
        text: What is asked.
        case: Whose figures answer it; without them there is no line.
        value: The figure of each way.
        form: How it is shown.
        ours: Our ways, and how the line calls them.
        others: What people use, likewise. Ways that were not measured are left out.
        also: Another figure, shown in brackets behind the first, and its form.
    """

    text: str
    case: str
    value: str
    form: str
    ours: Mapping[str, str]
    others: Mapping[str, str]
    also: tuple[str, str] | None = None

    @property
    def part(self) -> str:
        """Whose section has all of the figures."""
        return self.case.partition("/")[0]

    def answer(self, ways: Mapping[str, Figures], names: Mapping[str, str]) -> str:
        """The medians of some ways, in their order."""
        return "; ".join(
            ": ".join(filter(None, (name, self._shown(ways[way])))) for way, name in names.items() if way in ways
        )

    def _shown(self, found: Figures) -> str:
        text = format(found[self.value]["median"], self.form)
        if self.also is None:
            return text
        name, form = self.also
        return f"{text} ({format(found[name]['median'], form)})"


def _backends(text: str) -> dict[str, str]:
    return {text.format("process"): _HELPERS, text.format("thread"): _THREADS}


_LOOPS = {
    "inline": "in the loop",
    "thread pool": "a thread pool",
    "process pool": "a process pool",
    "lighter 0.1.0": "lighter 0.1.0",
}


def _loop(text: str, workload: str, others: Mapping[str, str] = MappingProxyType({})) -> Question:
    ours = _backends("lighter_async, {}")
    return Question(text, f"loops/device/{workload}", "loop", ".2f", ours, {**_LOOPS, **others}, ("whole", ".2f"))


_QUESTIONS = (
    _loop(
        "A loop that waits for a device, 8 photographs of 512 x 512 as PNG a step: times as long as without writing "
        "(in brackets: until all is stored)",
        "png512",
        {"MONAI SaveImage": "MONAI"},
    ),
    _loop("The same with 64 embeddings as .pt a step", "embeddings"),
    _loop("The same with 8 tensors of 600 kB as .pt a step", "tensors"),
    Question(
        "Embeddings a second, a file each, in memory, one worker",
        "saturated/memory/embeddings",
        "files_per_s",
        ",.0f",
        _backends("lighter_async, {}, 1"),
        {"inline, 1": "in the loop", "thread pool, 2": "a thread pool of 2"},
    ),
    Question(
        "Embeddings a second in shards, in memory, one worker",
        "shards/journaled",
        "samples_per_s",
        ",.0f",
        _backends("TarShards, {}, rename"),
        {"webdataset.ShardWriter": "webdataset", "ArrayRecord": "ArrayRecord", "LitData": "LitData"},
    ),
    Question(
        "Thousand rows a second of one array, in memory, one worker",
        "arrays/memory",
        "thousand_rows_per_s",
        ",.0f",
        _backends("ArrayTarget, {}, 1"),
        {name: name for name in ("numpy memmap", "zarr", "HDF5", "Arrow IPC", "Parquet", "Lance")},
    ),
    Question(
        "A photograph of 512 x 512 as PNG: times as fast as Pillow's level 6 (in brackets: the size to Pillow's)",
        "encoders/png512",
        "faster",
        ".1f",
        {"lighter_async": ""},
        {"Pillow, level 1": "Pillow, level 1", "OpenCV": "OpenCV", "fpng": "fpng"},
        also=("size", ".2f"),
    ),
    Question(
        "MB held beside a target that is slower than the loop",
        "memory/slow-target",
        "peak_mb",
        ",.0f",
        {"lighter_async": ""},
        {"executor": "a thread pool without a bound"},
    ),
    Question(
        "SIGKILL in the middle: what can be read of the rows that had been handed over",
        "after_kill/memory",
        "kept",
        ".1%",
        {"files, helper processes": _HELPERS, "files, threads": _THREADS},
        {
            "torch.save inline": "torch.save",
            **{f"{name} inline": name for name in ("HDF5", "Parquet", "LitData", "ArrayRecord")},
        },
    ),
    Question(
        "Files a second with the record that resuming goes by, to those without",
        "records/memory",
        "to_plain",
        ".2f",
        _backends("{}, manifest"),
        {},
    ),
)


def rows(cases: Mapping[str, Figures], titles: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """A row for each question that was measured.

    Args:
        cases: The figures.
        titles: Of the sections, by part.
    """
    for question in _QUESTIONS:
        found = cases.get(question.case, {})
        ways = found.get("ways") or found.get("peers") or {}
        if ours := question.answer(ways, question.ours):
            title = titles[question.part]
            link = f"[{title}](#{_anchor(title)})"
            yield question.text, ours, question.answer(ways, question.others), link


def _anchor(title: str) -> str:
    """What a link to a heading is called."""
    return "".join(one for one in title.lower().replace(" ", "-") if one.isalnum() or one in "-_")
