"""A target that fails, stalls and writes short."""

from __future__ import annotations

import shutil
from pathlib import Path

from samples import index_of, look, same, torn_of, value
from tally import GoOn, Tally, always
from unreliable import Unreliable, plan_of

from lighter_async import BackgroundWriter, WriteError

__all__ = ["failing"]


def failing(seed: int, rounds: int, backend: str, folder: Path, *, samples: int = 60, go_on: GoOn = always) -> Tally:
    """Write to an unreliable target: each sample is stored, or in the `WriteError`; never both, and never neither.

    Args:
        seed: Decides what happens.
        rounds: Writers, each with `samples` samples, of which it takes none any more after the first one failed.
        backend: The writer's.
        folder: Where to store.
        samples: Handed over in batches of ten.
        go_on: Is told after each round.
    """
    tally = Tally("target that fails, stalls, writes short", backend)
    for number in range(rounds):
        directory = folder / f"failing-{backend}-{number}"
        marks = folder / f"marks-{backend}-{number}"
        target = Unreliable(directory, marks, seed + number, helpers=backend == "process")
        writer = BackgroundWriter(
            "tensor",
            target=target,
            backend=backend,  # type: ignore[arg-type]
            max_workers=4,
            queue_size=samples,
            write_timeout=1.0 if backend == "process" else None,
        )
        accepted: set[int] = set()
        errors: list[WriteError] = []
        try:
            for start in range(0, samples, 10):
                batch = range(start, min(start + 10, samples))
                writer.submit_batch([str(index) for index in batch], [value(index, 1 << 17) for index in batch])
                accepted.update(batch)
        except WriteError as error:
            errors.append(error)
        try:
            writer.close(timeout=300)
        except WriteError as error:
            errors.append(error)
        reported = [index_of(failure.name) for error in errors for failure in error.failures]
        files, strange = look(directory)
        stored = [index for _, index in files]
        tally.settle(accepted, stored, reported, torn_of(files, _is_right))
        tally.rounds += 1
        tally.faults += target.count_faults()
        for index in sorted(accepted):
            plan, is_reported = plan_of(seed + number, f"{index}.pt", backend == "process")
            if is_reported != (index in reported):
                told = [str(failure) for error in errors for failure in error.failures if failure.name == str(index)]
                tally.troubles.append(f"sample {index}, whose plan is {plan!r}: reported {told} (seed {seed + number})")
        stats = writer.stats()
        if (stats.accepted, stats.written, stats.failed) != (len(accepted), len(stored), len(reported)):
            tally.troubles.append(f"{stats} of {len(accepted)} samples, {len(stored)} stored, {len(reported)} reported")
        if strange or list(directory.rglob("*.part")):
            tally.troubles.append(f"left behind: {strange}, {list(directory.rglob('*.part'))}")
        if tally.is_clean:
            shutil.rmtree(directory)
            shutil.rmtree(marks)
        if not go_on(tally) or not tally.is_clean:
            break
    return tally


def _is_right(path: Path, index: int) -> bool:
    return same(path, index, 1 << 17)
