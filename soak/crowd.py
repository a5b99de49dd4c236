"""Many tiny samples, submitted by several threads at once."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from samples import look, torn_of
from tally import GoOn, Tally, always

from lighter_async import BackgroundWriter, Origin, Run, pending, read_manifest

__all__ = ["crowd"]

_THREADS = 4
_BATCH = 16
_FOLDERS = 100


def crowd(seed: int, rounds: int, backend: str, folder: Path, *, samples: int = 10_000, go_on: GoOn = always) -> Tally:
    """Four threads submit tiny samples in turn, one by one and in batches.

    Args:
        seed: Decides which samples come one by one.
        rounds: Writers, each with `samples` samples.
        backend: The writer's.
        folder: Where to store.
        samples: In all.
        go_on: Is told after each round.
    """
    tally = Tally(f"{_THREADS} threads submit tiny samples", backend)
    for number in range(rounds):
        directory = folder / f"crowd-{backend}-{number}"
        with BackgroundWriter("text", directory, backend=backend, run=Run(numbered=True)) as writer:  # type: ignore[arg-type]
            with ThreadPoolExecutor(_THREADS) as threads:
                for done in [threads.submit(_submit, writer, first, samples, seed) for first in range(_THREADS)]:
                    done.result()
        files, strange = look(directory)
        tally.settle(set(range(samples)), [index for _, index in files], [], torn_of(files, _is_right))
        tally.rounds += 1
        tally.faults += _THREADS
        recorded = [record.index for record in read_manifest(directory).records]
        if sorted(index for index in recorded if index is not None) != list(range(samples)):
            tally.troubles.append(f"the manifest has {len(recorded)} records, of {len(set(recorded))} samples")
        left = list(pending(range(samples), directory, names=_name))
        if strange or left:
            tally.troubles.append(f"strange files {strange[:5]}, pending {left[:5]}")
        if writer.stats().written != samples:
            tally.troubles.append(f"{writer.stats()}")
        if tally.is_clean:
            shutil.rmtree(directory)
        if not go_on(tally) or not tally.is_clean:
            break
    return tally


def _submit(writer: BackgroundWriter, first: int, samples: int, seed: int) -> None:
    for start in range(first * _BATCH, samples, _THREADS * _BATCH):
        batch = range(start, min(start + _BATCH, samples))
        if (start // (_THREADS * _BATCH) + seed) % 4:
            names = [_name(index) for index in batch]
            writer.submit_batch(names, [_text(index) for index in batch], origin=Origin(indices=batch))
        else:
            for index in batch:
                writer.submit(_name(index), _text(index), origin=Origin(indices=[index]))


def _name(index: int) -> str:
    return f"{index % _FOLDERS}/{index}"


def _text(index: int) -> str:
    return f"{index} " * (1 + index % 7)


def _is_right(path: Path, index: int) -> bool:
    return path.read_text() == _text(index)
