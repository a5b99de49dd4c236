"""Jobs that store to an array and are killed at each of their changes to the disk in turn, and what they leave.

Run as a program: ``arrays_script.py FOLDER JOB TORN [NAME]``, or ``arrays_script.py FOLDER rank RANK [NAME]`` for one
of two ranks. The array is called a.npy unless a name is given.
"""

import sys
from pathlib import Path

import numpy as np
from killing import at_each_change

from lighter_async import ArrayTarget, BackgroundWriter, Origin, Run, open_results, pending, read_manifest
from lighter_async.manifest.verify import verify

NAME = sys.argv[4] if __name__ == "__main__" and len(sys.argv) > 4 else "a.npy"
ROWS = 14
UNITS = [range(4), range(4, 5), range(10, 14), range(5, 10, 2), range(6, 10, 2)]


def values_of(rows, version=0):
    """What is stored in some rows: shape (rows, 3, 5), float32."""
    return (np.array(rows, np.float32)[:, None, None] + np.arange(15, dtype=np.float32).reshape(3, 5) / 16) * (
        1 + version
    )


WHOLE = values_of(range(ROWS))


def array_at(path):
    """The array there, as its own package reads it."""
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r")
    import zarr

    array = zarr.open_array(path, mode="r")
    assert array.nchunks_initialized == array.nchunks
    return array[:]


def store(folder, tell=lambda rows: None, *, rows=ROWS, version=0, durability="rename", **options):
    """Store all rows, unit by unit."""
    target = ArrayTarget(folder / NAME, rows, durability=durability, chunk_rows=5 if NAME.endswith("zarr") else None)
    left = None
    if options.get("resume"):
        left = set(pending(range(ROWS), folder / NAME))
    with BackgroundWriter(target=target, backend="thread", max_workers=1, **options) as writer:
        for unit in UNITS:
            some = unit if left is None else [row for row in unit if row in left]
            if some:
                writer.submit_batch(None, values_of(some, version), origin=Origin(some))
                writer.flush()
                tell([*some])


def store_growing(folder, tell=lambda rows: None, **options):
    """The same, where it is not known how many rows there will be, and the disk is synced."""
    store(folder, tell, rows=None, durability="fsync", **options)


def store_over(folder, tell=lambda rows: None, **options):
    """The same over what there is, with other values."""
    store(folder, tell, version=1, **options)


def check_readable(folder, told):
    """What was said to be stored is recorded, and all that is recorded can be read."""
    records = read_manifest(folder).records
    assert told <= {record.index for record in records}
    if (folder / NAME).exists():
        assert np.array_equal(array_at(folder / NAME), WHOLE)
    if records:
        results = open_results(folder / NAME)
        for record in records:
            assert np.array_equal(results.at(record.index), values_of([record.index])[0])
        assert np.array_equal(results.to_array(), WHOLE[np.flatnonzero(results.mask)])
        assert verify(folder).is_sound


def check_whole(folder, whole=WHOLE):
    """Every row is there, and nothing beside the array."""
    assert {path.name for path in folder.iterdir()} == {NAME, ".lighter-async"}
    assert np.array_equal(array_at(folder / NAME), whole)
    results = open_results(folder / NAME)
    assert results.mask.all()
    assert len(results.mask) == len(results) == ROWS
    assert verify(folder).findings == []


def kill(job, root, torn):
    """Kill it at each change; then the same job goes on with what is missing."""

    def check(_at, folder, told):
        check_readable(folder, told)
        job(folder, resume=True)
        check_whole(folder)

    return at_each_change(job, root, torn, check)


def kill_over(job, root, torn):
    """Kill a run at each change that begins anew over a whole array; the next one leaves one that is whole."""
    before = root / "before"
    before.mkdir()
    store(before)

    def check(_at, folder, told):
        if (folder / NAME).exists():
            found = array_at(folder / NAME)
            assert np.array_equal(found, WHOLE) or np.array_equal(found, values_of(range(ROWS), 1))
        has_begun = len({run.run for run in read_manifest(folder).runs}) == 2
        job(folder, resume=True)
        check_whole(folder, values_of(range(ROWS), int(has_begun)))
        assert has_begun or not told

    return at_each_change(job, root, torn, check, left=before)


def store_share(folder, rank):
    """Store one rank's share of the rows, as a distributed sampler gives them out."""
    run = Run(id="one", rank=rank, world_size=2)
    with BackgroundWriter(target=ArrayTarget(folder / NAME, run=run), max_workers=2) as writer:
        print("ready", flush=True)
        sys.stdin.readline()
        mine = range(rank, ROWS, 2)
        for some in (mine[:3], mine[3:]):
            writer.submit_batch(None, values_of(some), origin=Origin(some))


if __name__ == "__main__":
    folder, job, how = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    if job == "rank":
        store_share(folder, int(how))
    else:
        kills = kill_over if job == "store_over" else kill
        print(kills(globals()[job], folder, how == "torn"))
