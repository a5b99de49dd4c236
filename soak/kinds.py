"""What a job that is killed stores: files, tar shards, or rows of an array or a table; and what lies there."""

from __future__ import annotations

import csv
import io
import json
import random
import subprocess
import tarfile
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from samples import content, look, row, torn_of, value

from lighter_async import ArrayTarget, BackgroundWriter, Results, Run, TableTarget, TarShards, open_results
from lighter_async.targets.shards.walk import samples_in

__all__ = ["KINDS", "Found", "Kind"]

_MANIFEST = ".lighter-async"
_DEADLINE = 60.0


@dataclass
class Found:
    """What lies under final names.

    Attributes:
        stored: The index of each sample; twice if it is there twice.
        torn: Of those of them that are not whole and right.
        unsealed: Files that are to get their final names later.
        strange: What nobody has stored, and files that readers refuse, in words.
        listed: How many samples a list beside the files promises; None without a list.
    """

    stored: list[int] = field(default_factory=list)
    torn: list[int] = field(default_factory=list)
    unsealed: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    listed: int | None = None


class Kind(Protocol):
    """One way to store samples."""

    title: str

    def where(self, directory: Path) -> Path:
        """What `pending` and `open_results` are given."""

    def writer(
        self, directory: Path, samples: int, choose: random.Random, run: Run, **options: Any
    ) -> BackgroundWriter:
        """A writer for one of the ranks."""

    def samples(self, indices: Sequence[int]) -> tuple[Sequence[str], Any]:
        """The names and values of a batch."""

    def look(self, directory: Path) -> Found:
        """What lies there; helpers may be at work meanwhile."""

    def unreadable(self, directory: Path, indices: Collection[int]) -> list[int]:
        """Those of some samples that `open_results` does not give as they were handed over."""

    def is_midway(self, directory: Path) -> bool:
        """Whether a sample is half written."""


class Files:
    """Tensors of very different sizes, a file for each."""

    title = ""

    def where(self, directory: Path) -> Path:
        return directory

    def writer(
        self, directory: Path, samples: int, choose: random.Random, run: Run, **options: Any
    ) -> BackgroundWriter:
        return BackgroundWriter("tensor", directory, durability=_durability(choose), run=run, **options)

    def samples(self, indices: Sequence[int]) -> tuple[Sequence[str], Any]:
        return [str(index) for index in indices], [value(index) for index in indices]

    def look(self, directory: Path) -> Found:
        files, strange = look(directory)
        return Found([index for _, index in files], torn_of(files), [], strange)

    def unreadable(self, directory: Path, indices: Collection[int]) -> list[int]:
        return []  # each file is read by `look`

    def is_midway(self, directory: Path) -> bool:
        return any(directory.rglob(".lighter-async-*.part"))


class Shards:
    """Arrays of very different sizes as members of tar files, of which a worker fills several in a run."""

    title = "tar shards"

    def where(self, directory: Path) -> Path:
        return directory

    def writer(
        self, directory: Path, samples: int, choose: random.Random, run: Run, **options: Any
    ) -> BackgroundWriter:
        target = TarShards(
            directory,
            shard_samples=choose.choice([3, 10, None]),
            shard_bytes=choose.choice([1 << 18, 1 << 30]),
            durability=_durability(choose),
            run=run,
        )
        return BackgroundWriter("npy", target=target, **options)

    def samples(self, indices: Sequence[int]) -> tuple[Sequence[str], Any]:
        return [str(index) for index in indices], [content(index) for index in indices]

    def look(self, directory: Path) -> Found:
        found = Found()
        for path in sorted(directory.iterdir() if directory.exists() else ()):
            if path.suffix == ".tar":
                self._read(path, found)
            elif path.suffix == ".part":
                found.unsealed.append(path.name)
            elif path.suffix != ".idx" and path.name not in ("shards.json", _MANIFEST):
                found.strange.append(str(path))
        with suppress(FileNotFoundError):
            listed = json.loads((directory / "shards.json").read_text())["shardlist"]
            found.listed = sum(one["nsamples"] for one in listed)
        return found

    def _read(self, path: Path, found: Found) -> None:
        """Read a shard with GNU tar and with Python's."""
        names, contents = _gnu_tar("-tf", path), _gnu_tar("-xOf", path)
        if names is None or contents is None:
            found.strange.append(f"GNU tar does not read {path}")
            return
        with tarfile.open(path) as tar:
            members = [(one.name, tar.extractfile(one).read()) for one in tar]  # type: ignore[union-attr]
        if names.decode().splitlines() != [name for name, _ in members] or contents != b"".join(
            data for _, data in members
        ):
            found.strange.append(f"GNU tar and tarfile read {path} differently")
        for name, data in members:
            index = int(name.removesuffix(".npy"))
            found.stored.append(index)
            try:
                is_right = np.array_equal(np.load(io.BytesIO(data)), content(index))
            except (ValueError, EOFError):
                is_right = False
            if not is_right:
                found.torn.append(index)

    def unreadable(self, directory: Path, indices: Collection[int]) -> list[int]:
        return _unreadable(self.where(directory), {str(index): content(index) for index in indices})

    def is_midway(self, directory: Path) -> bool:
        for path in directory.glob("*.tar.part"):
            with suppress(FileNotFoundError), open(path, "rb") as file:  # a helper may seal it meanwhile
                size = path.stat().st_size
                end = max((one.end for one in samples_in(file.fileno(), stop=size)), default=0)
                if end != size:
                    return True
        return False


class Rows:
    """Rows of one array.

    Args:
        is_growing: Whether it is not told how many there will be.
    """

    def __init__(self, is_growing: bool) -> None:
        self.title = "a growing array" if is_growing else "an array"
        self._is_growing = is_growing

    def where(self, directory: Path) -> Path:
        return directory / "a.npy"

    def writer(
        self, directory: Path, samples: int, choose: random.Random, run: Run, **options: Any
    ) -> BackgroundWriter:
        rows = None if self._is_growing else samples
        target = ArrayTarget(self.where(directory), rows, durability=_durability(choose), run=run)
        return BackgroundWriter(target=target, **options)

    def samples(self, indices: Sequence[int]) -> tuple[Sequence[str], Any]:
        return [f"case.{index}" for index in indices], np.stack([row(index) for index in indices])

    def look(self, directory: Path) -> Found:
        found = Found()
        path = self.where(directory)
        for one in sorted(directory.iterdir() if directory.exists() else ()):
            if one.name == "a.npy.part":
                found.unsealed.append(one.name)
            elif one.name not in ("a.npy", _MANIFEST):
                found.strange.append(str(one))
        with suppress(FileNotFoundError), open(path, "rb") as file:
            rows = np.load(file)
            if not path.exists():
                return found  # a helper goes on with it
            found.stored += range(len(rows))
            found.torn += [index for index in found.stored if not np.array_equal(rows[index], row(index))]
        return found

    def unreadable(self, directory: Path, indices: Collection[int]) -> list[int]:
        return _unreadable(self.where(directory), {f"case.{index}": row(index) for index in indices})

    def is_midway(self, directory: Path) -> bool:
        return False  # it does not show from outside


class Table:
    """Rows of one table, with texts of very different lengths."""

    title = "a table"

    def where(self, directory: Path) -> Path:
        return directory / "t.csv"

    def writer(
        self, directory: Path, samples: int, choose: random.Random, run: Run, **options: Any
    ) -> BackgroundWriter:
        target = TableTarget(self.where(directory), durability=_durability(choose), run=run)
        return BackgroundWriter(target=target, **options)

    def samples(self, indices: Sequence[int]) -> tuple[Sequence[str], Any]:
        # Some are stored one by one, and some by columns.
        rows = [_table_row(index) for index in indices]
        values = rows if indices[0] % 2 else {key: [one[key] for one in rows] for key in ("number", "text", "row")}
        return [f"case.{index}" for index in indices], values

    def look(self, directory: Path) -> Found:
        found = Found()
        for one in sorted(directory.iterdir() if directory.exists() else ()):
            if one.name not in ("t.csv", _MANIFEST) and not one.name.startswith(f"{_MANIFEST}-"):
                found.strange.append(str(one))
        with suppress(FileNotFoundError), open(self.where(directory), newline="") as file:
            for line in csv.DictReader(file):
                index = int(line["index"])
                found.stored.append(index)
                expected = _table_row(index)
                cells = {"number": str(index), "text": expected["text"], "row": json.dumps(expected["row"].tolist())}
                cells["row"] = cells["row"].replace(" ", "")
                if line != {"index": str(index), "name": f"case.{index}", **cells}:
                    found.torn.append(index)
        if found.stored != sorted(found.stored):
            found.strange.append("a table whose rows are not in order")
        return found

    def unreadable(self, directory: Path, indices: Collection[int]) -> list[int]:
        if not indices:
            return []
        results = open_results(self.where(directory))
        return [index for index in indices if not self._is_read(results, index)]

    def _is_read(self, results: Results, index: int) -> bool:
        found, expected = results.get(f"case.{index}"), _table_row(index)
        return (
            found is not None
            and (found["number"], found["text"]) == (index, expected["text"])
            and np.array_equal(found["row"], expected["row"])
        )

    def is_midway(self, directory: Path) -> bool:
        return any(directory.rglob(f"{_MANIFEST}-*.part"))


KINDS: dict[str, Kind] = {
    "files": Files(),
    "shards": Shards(),
    "rows": Rows(False),
    "growing rows": Rows(True),
    "table": Table(),
}
"""By the names that the job is told."""


def _table_row(index: int) -> dict[str, Any]:
    numbers = (row(index)[:16] * 1000).astype(np.int32)
    return {"number": index, "text": f'"{index}",\n' * (index * 7919 % 300), "row": numbers}


def _durability(choose: random.Random) -> Any:
    return choose.choice(["rename", "rename", "fsync"])


def _gnu_tar(*arguments: str | Path) -> bytes | None:
    """What GNU tar prints; None if it fails, or has anything to say beside."""
    done = subprocess.run(["tar", *arguments], capture_output=True, timeout=_DEADLINE)
    return None if done.returncode or done.stderr else done.stdout


def _unreadable(where: Path, expected: dict[str, Any]) -> list[int]:
    if not expected:
        return []
    results = open_results(where)
    return [
        int(name.removeprefix("case."))
        for name, value in expected.items()
        if name not in results or not np.array_equal(results[name], value)
    ]
