"""Jobs that store to a table and are killed at each of their changes to the disk in turn, and what they leave.

Run as a program: ``tables_script.py FOLDER JOB TORN [NAME]``, or ``tables_script.py FOLDER rank RANK [NAME]`` for one
of two ranks. The table is called t.csv unless a name is given.
"""

import json
import sys
from pathlib import Path

import numpy as np
from killing import at_each_change

from lighter_async import BackgroundWriter, Origin, Run, TableTarget, open_results, pending, read_manifest
from lighter_async.manifest.verify import verify

NAME = sys.argv[4] if __name__ == "__main__" and len(sys.argv) > 4 else "t.csv"
ROWS = 12
UNITS = [range(4), range(4, 5), range(9, 12), range(5, 9)]


def name_of(index):
    return f"case.{index}"


def row_of(index, version=0):
    """What is stored of a sample."""
    return {"label": index * 3 + version, "score": np.float32(index) / 8, "text": f"a,{index}"}


def columns_of(indices, version=0):
    """A batch of them."""
    rows = [row_of(index, version) for index in indices]
    return {
        "label": np.array([row["label"] for row in rows]),
        "score": np.array([row["score"] for row in rows]),
        "text": [row["text"] for row in rows],
    }


def table_at(path):
    """The rows of a table, as a list of dicts of texts and numbers."""
    import pandas

    if path.suffix == ".csv":
        frame = pandas.read_csv(path, dtype={"text": str, "score": np.float32}, keep_default_na=False)
    elif path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    else:
        frame = pandas.read_parquet(path)
    return frame.to_dict("records")


def whole(version=0, indices=range(ROWS)):
    """The rows of the whole table."""
    return [{"index": index, "name": name_of(index), **row_of(index, version)} for index in indices]


def store(folder, tell=lambda names: None, *, version=0, durability="rename", **options):
    """Store all rows, unit by unit."""
    target = TableTarget(folder / NAME, durability=durability)
    left = None
    if options.get("resume"):
        names = [name_of(index) for index in range(ROWS)]
        left = set(pending(range(ROWS), folder / NAME, names=names))
    with BackgroundWriter(target=target, backend="thread", max_workers=1, **options) as writer:
        writer.start()
        for unit in UNITS:
            some = unit if left is None else [index for index in unit if index in left]
            if some:
                names = [name_of(index) for index in some]
                writer.submit_batch(names, columns_of(some, version), origin=Origin(some))
                writer.flush()
                tell(names)


def store_synced(folder, tell=lambda names: None, **options):
    """The same, where the disk is synced."""
    store(folder, tell, durability="fsync", **options)


def store_over(folder, tell=lambda names: None, **options):
    """The same over what there is, with other values."""
    store(folder, tell, version=1, **options)


def same(row, version=0):
    """Whether a row that was read back is what was stored of its sample."""
    index = (int(row["label"]) - version) // 3
    expected = row_of(index, version)
    return row == expected and all(type(row[key]) is type(np.asarray(expected[key])[()]) for key in ("label", "score"))


def check_readable(folder, told):
    """What was said to be stored is recorded, and all that is recorded can be read."""
    records = read_manifest(folder).records
    assert told <= {record.name for record in records}
    if (folder / NAME).exists():
        found = table_at(folder / NAME)
        assert found == whole(indices=[row["index"] for row in found])
    if records:
        results = open_results(folder / NAME)
        for record in records:
            assert results[record.name] == row_of(record.index)
        assert {one.trouble for one in verify(folder).findings} <= {"table"}


def check_whole(folder, version=0):
    """Every row is there once, in order, and nothing beside the table."""
    assert {path.name for path in folder.iterdir()} == {NAME, ".lighter-async"}
    assert list(folder.rglob(".lighter-async-*")) == []
    assert table_at(folder / NAME) == whole(version)
    assert len(open_results(folder / NAME)) == ROWS
    assert verify(folder).findings == []


def kill(job, root, torn):
    """Kill it at each change; then the same job goes on with what is missing."""

    def check(_at, folder, told):
        check_readable(folder, told)
        job(folder, resume=True)
        check_whole(folder)

    return at_each_change(job, root, torn, check)


def kill_over(job, root, torn):
    """Kill a run at each change that begins anew over a whole table; the next one leaves one that is whole."""
    before = root / "before"
    before.mkdir()
    store(before)

    def check(_at, folder, told):
        found = table_at(folder / NAME)
        assert found in (whole(), whole(1))
        has_begun = len({run.run for run in read_manifest(folder).runs}) == 2
        job(folder, resume=True)
        check_whole(folder, int(has_begun))
        assert has_begun or not told

    return at_each_change(job, root, torn, check, left=before)


def store_share(folder, rank):
    """Store one rank's share of the rows, as a distributed sampler gives them out."""
    run = Run(id="one", rank=rank, world_size=2)
    with BackgroundWriter(target=TableTarget(folder / NAME, run=run), max_workers=2) as writer:
        writer.start()
        print("ready", flush=True)
        sys.stdin.readline()
        mine = range(rank, ROWS, 2)
        for some in (mine[:3], mine[3:]):
            writer.submit_batch([name_of(index) for index in some], columns_of(some), origin=Origin(some))


if __name__ == "__main__":
    folder, job, how = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    if job == "rank":
        store_share(folder, int(how))
    else:
        kills = kill_over if job == "store_over" else kill
        print(kills(globals()[job], folder, how == "torn"))
