"""The stored samples as columns, each name once, for a page that lists a hundred thousand of them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from lighter_async.errors import ReadError
from lighter_async.manifest import Record, checksum
from lighter_async.manifest.entry import place_of
from lighter_async.manifest.records import Records
from lighter_async.names import TABLES_FOLDER, with_suffix
from lighter_async.store import Place, Store

__all__ = ["Alike", "Listing", "listing_of"]

MOST = 200_000
"""Outputs of samples that a page lists."""

_MOST_EMBEDDED = 48
_LARGEST_EMBEDDED = 32 << 10  # bytes
_LARGEST_DATE = 8.64e12  # seconds that a browser takes for a date

_SHOWN = (".png", ".jpg", ".jpeg", ".webp")  # by all browsers


@dataclass(frozen=True, slots=True)
class Alike:
    """What some of the listed outputs have in common.

    Attributes:
        writer: The writer's name.
        key: What tells its series from others of the same writer.
        suffix: Their files are named as the samples are, with this suffix; None where they are not.
        object: The file that they lie in with others; None where each has its own, or nothing is known.
        ends: What the names of their members end in, where they lie in a file with others.
        dtype: Of their elements.
        shape: Of the values.
        rank: Which rank has stored them.
        loader: From which data loader.
        run: The run's id.
        image: Whether a browser shows them: ``"file"`` from their files, ``"data"`` what is embedded; else empty.
    """

    writer: str
    key: str
    suffix: str | None
    object: str | None
    ends: str
    dtype: str | None
    shape: tuple[int, ...] | None
    rank: int
    loader: int
    run: str
    image: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Outputs of samples in the data set's order; columns of one length, but for `names`.

    Attributes:
        total: How many there are, of which the first ones are listed.
        names: The samples' names, each once.
        alike: What outputs have in common.
        start: What `time` counts from, in seconds since the epoch.
        sample: The place of each output's name in `names`.
        of: The place in `alike`.
        bytes: The size; -1 where it is not known.
        time: When it was recorded, in milliseconds since `start`.
        index: In the data set; None where it is not known.
        embedded: Images, as data URLs, by their place in the columns.
    """

    total: int
    names: list[str]
    alike: list[Alike]
    start: float
    sample: list[int]
    of: list[int]
    bytes: list[int]
    time: list[int]
    index: list[int | None]
    embedded: dict[int, str]


def listing_of(records: Records, store: Store, suffixes: dict[tuple[str, tuple[str, str]], str]) -> Listing:
    """List samples.

    Args:
        records: The samples.
        store: What reads those that are to be embedded.
        suffixes: Those that each series of each run has announced.
    """
    names: dict[str, int] = {}
    alike: dict[Alike, int] = {}
    listed = list(islice(records, MOST))
    times = [min(max(one.time, 0.0), _LARGEST_DATE) for one in listed]
    start = min(times, default=0.0)
    sample = [names.setdefault(one.name, len(names)) for one in listed]
    of = [alike.setdefault(_alike(one, suffixes), len(alike)) for one in listed]
    common = list(alike)
    return Listing(
        total=len(records),
        names=list(names),
        alike=common,
        start=start,
        sample=sample,
        of=of,
        bytes=[-1 if one.bytes is None else one.bytes for one in listed],
        time=[round(1000 * (time - start)) for time in times],
        index=[one.index for one in listed],
        embedded=_embedded(store, listed, [row for row, about in enumerate(of) if common[about].image == "data"]),
    )


def _alike(record: Record, suffixes: dict[tuple[str, tuple[str, str]], str]) -> Alike:
    suffix = None if record.file is None else record.file.removeprefix(record.name)
    is_own = suffix is not None and not record.offset and with_suffix(record.name, suffix) == record.file
    if is_own and not suffix:  # the name ends in the suffix
        suffix = suffixes.get((record.run, record.series), "")
        is_own = record.name.endswith(suffix)
    object = None if is_own else record.file
    ends = "" if is_own or record.is_row else suffixes.get((record.run, record.series), "")
    is_shown = (record.file or "" if is_own else ends).lower().endswith(_SHOWN)
    return Alike(
        record.writer,
        record.key,
        suffix if is_own else None,
        record.key if object is not None and object.startswith(TABLES_FOLDER) else object,
        ends,
        record.dtype,
        record.shape,
        record.rank,
        record.loader,
        record.run,
        "" if not is_shown else "file" if is_own else "data",
    )


def _embedded(store: Store, listed: Sequence[Record], rows: Sequence[int]) -> dict[int, str]:
    """A few small images out of files that hold several samples, from everywhere."""
    found = {}
    step = max(1, len(rows) // _MOST_EMBEDDED)
    for row in rows[::step][:_MOST_EMBEDDED]:
        place = place_of(listed[row])
        data = None if place is None or place.bytes > _LARGEST_EMBEDDED else _read(store, place)
        kind = "" if data is None else _kind(data)
        if data is not None and kind:
            found[row] = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return found


def _read(store: Store, place: Place) -> bytes | None:
    """The bytes of a sample; None if they are not those that were recorded."""
    try:
        data = bytes(store.read(place))
    except ReadError:
        return None
    return data if checksum([memoryview(data)]) == place.checksum else None


def _kind(data: bytes) -> str:
    """What browsers are told that an image is, by its first bytes; empty if it is none that they show."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else ""
