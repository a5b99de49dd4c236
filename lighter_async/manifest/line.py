"""What a manifest's lines say, and how they are made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from json.encoder import encode_basestring_ascii as _text
from typing import Any, TypeAlias

import xxhash

from lighter_async.runs import Begun
from lighter_async.types import Durability, Origin, Run

__all__ = [
    "FORMAT",
    "Config",
    "Kind",
    "Loader",
    "Stored",
    "checksum",
    "dropped_line",
    "header_line",
    "loaders_line",
    "sample_lines",
]

FORMAT = 1
"""Version of the lines; readers refuse later ones."""

Kind: TypeAlias = "tuple[str, tuple[int, ...]] | None"
"""A sample's dtype and shape, where it is a tensor or an array."""


Config: TypeAlias = Any
"""What a run was made with, in a user's words: anything that JSON has; None if nothing was said."""


@dataclass(frozen=True, slots=True)
class Loader:
    """The data set of one data loader.

    Attributes:
        length: Its length; None where it has none.
        fingerprint: A word that another data set hardly has, where one is known.
    """

    length: int | None
    fingerprint: str | None


@dataclass(slots=True)
class Stored:
    """A sample that is stored: its index in its batch, its file, and the file's bytes and checksum.

    The last three are None of a function ``(path, value)``, of whose files nothing is known.
    """

    index: int
    file: str | None
    nbytes: int | None
    xxh3: str | None


def checksum(parts: Sequence[memoryview]) -> str:
    """XXH3, of 64 bits, of the concatenated parts, in hexadecimal: https://xxhash.com."""
    if len(parts) == 1:
        return xxhash.xxh3_64_hexdigest(parts[0])
    state = xxhash.xxh3_64()
    for part in parts:
        state.update(part)
    return state.hexdigest()


def header_line(
    run: Run,
    begun: Begun,
    *,
    writer: str,
    suffix: str,
    resume: bool,
    durability: Durability,
    config: Config,
    boot: str,
    time: float,
) -> str:
    """The line that a writer begins with."""
    return (
        json.dumps(
            {
                "format": FORMAT,
                "run": run.id,
                "writer": writer,
                "key": run.key,
                "suffix": suffix,
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
            },
            separators=(",", ":"),
        )
        + "\n"
    )


def loaders_line(run: Run, writer: str, loaders: Sequence[Loader], *, named: bool) -> str:
    """The line that says over which data sets a writer's samples go, and whether they have names of the user's."""
    about = {
        "run": run.id,
        "writer": writer,
        "key": run.key,
        "named": named,
        "loaders": [asdict(one) for one in loaders],
    }
    return json.dumps(about, separators=(",", ":")) + "\n"


def dropped_line(name: str, file: str | None, run: str, time: float, seen: Sequence[int] | None) -> str:
    """The line that takes back what an earlier line says of a sample.

    Args:
        name: The sample's.
        file: Its file, which `seen` tells from a later one: its size, time and number, as it was found damaged.
        run: The run that stored it.
        time: Seconds since the epoch.
        seen: None if there was no file.
    """
    about = {"dropped": name, "file": file, "run": run, "time": round(time, 3), "seen": seen}
    return json.dumps(about, separators=(",", ":")) + "\n"


def sample_lines(
    stored: Sequence[Stored],
    names: Sequence[str],
    kinds: Sequence[Kind],
    origin: Origin,
    *,
    run: Run,
    writer: str,
    time: float,
) -> str:
    """The lines of samples of one batch.

    Args:
        stored: The samples.
        names: Of the whole batch.
        kinds: One for each of `stored`.
        origin: Of the batch.
        run: Which run, and which of its ranks.
        writer: Name of the writer.
        time: Seconds since the epoch.
    """
    batch = "null" if origin.batch is None else origin.batch
    rest = (
        f',"rank":{run.rank},"loader":{origin.loader},"batch":{batch},"time":{time:.3f},"run":{_text(run.id)}'
        f',"writer":{_text(writer)},"key":{_text(run.key)}}}\n'
    )
    lines: list[str] = []
    last: object = lines  # no kind
    tail = ""
    for one, kind in zip(stored, kinds, strict=True):
        # Samples of a batch are mostly of one kind, so its text is made once: this runs for every sample.
        if kind is not last:
            last = kind
            tail = _kind_text(kind) + rest
        index = "null" if origin.indices is None else origin.indices[one.index]
        if one.file is None:
            what = '"file":null,"bytes":null,"xxh3":null'
        else:
            what = f'"file":{_text(one.file)},"bytes":{one.nbytes},"xxh3":"{one.xxh3}"'
        lines.append(f'{{"name":{_text(names[one.index])},{what},"index":{index}{tail}')
    return "".join(lines)


def _kind_text(kind: Kind) -> str:
    if kind is None:
        return ',"shape":null,"dtype":null'
    dtype, shape = kind
    return f',"shape":{json.dumps(shape, separators=(",", ":"))},"dtype":{_text(dtype)}'
