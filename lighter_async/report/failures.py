"""What was not stored, as far as records tell: values in quarantine, damaged files, and indices that are missing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from lighter_async.manifest import Manifest
from lighter_async.workers import kept_in

__all__ = ["Cause", "Failure", "Missing", "failures_in", "missing_in"]

_MOST_SHOWN = 5_000
_MOST_TEXT = 2_000  # characters of an error
_MOST_TRACEBACK = 6_000  # of its end
_LAST = re.compile(r"^[A-Za-z_][\w.]*(?::.*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Cause:
    """Failures that have one cause.

    Attributes:
        text: What the exception says, where all say the same; else what kind it is.
        count: How many there are.
        traceback: Of the first of them.
    """

    text: str
    count: int
    traceback: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A value that could not be written and was kept.

    Attributes:
        name: The sample's.
        writer: The writer's name.
        cause: The place of its cause in the list of causes.
        error: What was reported.
        attempts: How often it was tried.
        run: The run's id.
        rank: Which rank.
        index: In the data set, where that is known.
        time: When, in seconds since the epoch.
        stored_later: Whether a sample of this name was recorded after that.
    """

    name: str
    writer: str
    cause: int
    error: str
    attempts: int
    run: str
    rank: int
    index: int | None
    time: float
    stored_later: bool


@dataclass(frozen=True, slots=True)
class Missing:
    """The items of a data set that a series has not stored.

    Attributes:
        writer: The series' writer.
        key: Its key.
        loader: The data loader.
        length: Of the data set.
        done: How many of its items are stored.
    """

    writer: str
    key: str
    loader: int
    length: int
    done: int


def failures_in(manifest: Manifest, *, key: str | None) -> tuple[list[Cause], list[Failure], int]:
    """The values in quarantine: their causes, the most frequent first; the first ones; and how many there are."""
    causes: dict[str, list[Any]] = {}
    found: list[tuple[str, dict[str, Any]]] = []
    total = 0
    for kept in sorted(kept_in(manifest.directory), key=lambda one: float(one.about["time"])):
        about = kept.about
        if key not in (None, about["key"]):
            continue
        total += 1
        traceback = about.get("traceback")
        traceback = traceback[-_MOST_TRACEBACK:] if type(traceback) is str else ""
        lines = _LAST.findall(traceback)
        text = (lines[-1] if lines else about["error"])[:_MOST_TEXT]
        text = text.replace(repr(about["name"]), "NAME").replace(about["name"], "NAME")
        cause = causes.setdefault(text, [0, traceback])
        cause[0] += 1
        if len(found) < _MOST_SHOWN:
            found.append((text, about))
    ordered = sorted(causes, key=lambda text: -causes[text][0])
    places = {text: place for place, text in enumerate(ordered)}
    stored = {one.name: one.time for one in manifest.records.named({about["name"] for _, about in found})}
    return (
        [Cause(text, causes[text][0], causes[text][1]) for text in ordered[:_MOST_SHOWN]],
        [_failure(places[text], about, stored.get(about["name"])) for text, about in found],
        total,
    )


def _failure(cause: int, about: dict[str, Any], stored: float | None) -> Failure:
    attempts, time = about.get("attempts"), float(about["time"])
    return Failure(
        about["name"],
        about["writer"],
        cause,
        about["error"][:_MOST_TEXT],
        attempts if type(attempts) is int else 0,
        about["run"],
        about["rank"],
        about["index"],
        time,
        stored is not None and stored > time,
    )


def missing_in(manifest: Manifest, *, key: str | None) -> list[Missing]:
    """What is stored of each data set whose length is known, for each series that counts."""
    lengths: dict[tuple[str, str, int], int] = {}
    for about in manifest.loaders:  # the latest one of a series counts
        for loader, one in enumerate(about.loaders):
            if one.length is not None and key in (None, about.key):
                lengths[about.writer, about.key, loader] = one.length
    return [
        Missing(writer, key, loader, length, min(length, len(manifest.done(loader=loader, writer=writer, key=key))))
        for (writer, key, loader), length in sorted(lengths.items())
    ]
