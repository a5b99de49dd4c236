"""Compacting and unpacking that are killed at each of their changes to the disk in turn, and what they leave.

Run as a program: ``compact_script.py FOLDER JOB TORN``.
"""

import sys
from pathlib import Path

import shards_script
from killing import at_each_change
from shards_script import NAMES, check_readable, check_whole, encode_text, encode_upper, value_of

from lighter_async import BackgroundWriter, Origin, open_results, pending, read_manifest
from lighter_async.manifest.verify import verify
from lighter_async.targets.shards.compact import compact
from lighter_async.targets.shards.unpack import unpack


def store_again(folder, names, *, resume=True):
    """Store some samples once more, as a run that goes on, or one that begins anew."""
    with BackgroundWriter(
        {"low": encode_text, "up": encode_upper},
        target=shards_script.target(folder),
        backend="thread",
        max_workers=1,
        resume=resume,
    ) as writer:
        values = [{"low": value_of(name), "up": value_of(name)} for name in names]
        writer.submit_batch(names, values, origin=Origin([NAMES.index(name) for name in names]))


def compact_one(folder, tell):
    """Compact it."""
    compact(folder)


def kill_while_compacting(root, torn):
    """Kill it at each change; a writer, and then another compaction, do what is left to do."""
    left = root / "left"
    shards_script.store(left)
    store_again(left, NAMES[2:6])
    store_again(left, NAMES[5:7])

    def check(at, folder, _told):
        if at % 2:
            shards_script.recover(folder)
        check_readable(folder, set(NAMES))
        compact(folder)
        check_whole(folder)

    return at_each_change(compact_one, root, torn, check, left=left)


def kill_while_removing(root, torn):
    """The same where a later run has begun anew: nothing that it has not stored counts."""
    left, names = root / "left", NAMES[3:6]
    shards_script.store(left)
    store_again(left, names, resume=False)

    def check(at, folder, _told):
        assert verify(folder).is_sound
        assert list(open_results(folder, writer="encode_text")) == names
        if at % 2:
            shards_script.recover(folder)
            assert verify(folder).is_sound
        compact(folder)
        check_whole(folder, names)

    return at_each_change(compact_one, root, torn, check, left=left)


def kill_while_unpacking(root, torn):
    """Kill it at each change; there are only whole files, and the next one stores what is missing."""
    left = root / "left"
    shards_script.store(left)
    expected = {f"{name}.low.txt": value_of(name) for name in NAMES}
    expected.update({f"{name}.up.up": value_of(name).upper() for name in NAMES})

    def check(_at, out, _told):
        found = {file.name: file.read_text() for file in out.glob("case*")}
        assert found.items() <= expected.items()
        recorded = [record.file for record in read_manifest(out).records]
        done = unpack(left, out)
        assert done.kept == len(recorded)
        assert done.stored == len(expected) - len(recorded)
        found = {file.name: file.read_text() for file in out.iterdir() if file.is_file()}
        assert found == expected
        assert verify(out).findings == []
        assert list(pending(range(len(NAMES)), out, names=NAMES)) == []
        for writer in ("encode_text", "encode_upper"):
            assert list(open_results(out, writer=writer)) == NAMES

    return at_each_change(lambda out, tell: unpack(left, out), root, torn, check)


if __name__ == "__main__":
    jobs = {"compacting": kill_while_compacting, "removing": kill_while_removing, "unpacking": kill_while_unpacking}
    print(jobs[sys.argv[2]](Path(sys.argv[1]), sys.argv[3] == "torn"))
