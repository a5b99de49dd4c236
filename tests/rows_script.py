"""Jobs that store samples of several outputs by rows and are killed at each of their changes, and what they leave.

Run as a program: ``rows_script.py FOLDER KIND TORN``.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from killing import at_each_change

from lighter_async import BackgroundWriter, LocalTarget, Origin, TarShards, open_results, pending, read_manifest
from lighter_async.manifest.verify import verify

NAMES = [f"d/case.{number}" for number in range(7)]
UNITS = [range(3), range(3, 4), range(4, 7)]
WRITERS = {"low": "npy", "up": "npy"}
ENDINGS = [".low.npy", ".up.npy"]
TARGETS = {
    "shards": lambda folder: TarShards(folder, shard_samples=4),
    "synced shards": lambda folder: TarShards(folder, shard_samples=4, durability="fsync"),
    "files": LocalTarget,
    "replaced files": LocalTarget,
    "synced files": lambda folder: LocalTarget(folder, durability="fsync"),
}


def batch_of(indices, *, added=0):
    """The samples of some indices: two arrays of each, of different sizes."""
    low = np.arange(len(NAMES) * 5, dtype=np.int32).reshape(len(NAMES), 5)[list(indices)] + added
    return {"low": low, "up": 2.5 * low[:, :2]}


def store(make, folder, tell=lambda names: None, *, added=0, **options):
    """Store all samples, unit by unit."""
    with BackgroundWriter(WRITERS, target=make(folder), backend="thread", max_workers=1, **options) as writer:
        for unit in UNITS:
            left = list(unit)
            if options.get("resume"):
                left = [index for index in left if index in set(pending(range(len(NAMES)), folder, names=NAMES))]
            if left:
                names = [NAMES[index] for index in left]
                writer.submit_batch(names, batch_of(left, added=added), origin=Origin(left))
                writer.flush()
                tell(names)


def check_readable(folder, told):
    """What was said to be stored is recorded, with all of its outputs, and can be read."""
    records = read_manifest(folder).records
    names = [record.name for record in records if record.key == "low"]
    assert sorted(names) == sorted(record.name for record in records if record.key == "up")
    assert told <= set(names), told - set(names)
    for key in WRITERS if names else ():
        results = open_results(folder, key=key)
        for name in told:
            assert np.array_equal(results[name], batch_of([NAMES.index(name)])[key][0]), name
    assert verify(folder).is_sound if records else True


def check_whole(folder):
    """Every sample is there once, as it was stored last, and nothing else is."""
    check_readable(folder, set(NAMES))
    assert verify(folder).findings == []
    found = []
    for path in folder.rglob("*"):
        if path.is_dir() or ".lighter-async" in path.parts or path.suffix in (".idx", ".json"):
            continue
        if path.suffix != ".tar":
            found.append(path.relative_to(folder).as_posix())
            continue
        done = subprocess.run(["tar", "-tf", path], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        found += done.stdout.replace("%2E", ".").split()
    assert sorted(found) == sorted(f"{name}{end}" for name in NAMES for end in ENDINGS)


def kill(root, kind, torn):
    """Kill it at each change; then the same job goes on with what is missing."""
    make, left = TARGETS[kind], None
    if kind == "replaced files":
        left = root / "left"
        left.mkdir()
        store(make, left, added=100)

    def job(folder, tell):
        store(make, folder, tell)

    def check(_at, folder, told):
        if left is None:
            check_readable(folder, told)
        else:
            check_no_mixture(folder, told)
        # What an earlier run has stored counts as well where a run goes on.
        store(make, folder, resume=left is None)
        check_whole(folder)

    return at_each_change(job, root, torn, check, left=left)


def check_no_mixture(folder, told):
    """Of no sample there is one output of the earlier run beside one of the later."""
    for index, name in enumerate(NAMES):
        paths = [folder / f"{name}{end}" for end in ENDINGS]
        there = [np.load(path) for path in paths if path.exists()]
        if len(there) == 2:
            new = [np.array_equal(one, batch_of([index])[key][0]) for one, key in zip(there, WRITERS, strict=True)]
            assert new[0] == new[1], name
        if name in told:
            assert len(there) == 2, name
            assert all(new), name


if __name__ == "__main__":
    os.environ.pop("COLUMNS", None)
    print(kill(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "torn"))
