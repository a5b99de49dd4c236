"""Jobs that store to shards and are killed at each of their changes to the disk in turn, and what they leave.

Run as a program: ``shards_script.py FOLDER JOB TORN``.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

from killing import at_each_change

from lighter_async import BackgroundWriter, Origin, TarShards, encoder, open_results, pending, read_manifest
from lighter_async.manifest.verify import verify
from lighter_async.targets.shards.keys import name_of_key, split_member

NAMES = [f"case.{number}" for number in range(14)]
UNITS = [NAMES[:4], NAMES[4:5], NAMES[5:10], NAMES[10:]]


@encoder(suffix=".txt", decode=bytes.decode)
def encode_text(value):
    """The text itself."""
    return value.encode()


@encoder(suffix=".up", decode=bytes.decode)
def encode_upper(value):
    """The text in capitals."""
    return value.upper().encode()


def value_of(name):
    return f"value of {name} " * (1 + int(name.split(".")[1]) * 7 % 50)


def target(folder):
    return TarShards(folder, shard_samples=5)


def store(folder, tell=lambda names: None, **options):
    """Store all samples, unit by unit."""
    writers = {"low": encode_text, "up": encode_upper}
    with BackgroundWriter(writers, target=target(folder), backend="thread", max_workers=1, **options) as writer:
        for unit in UNITS:
            left = [NAMES.index(name) for name in unit]
            if options.get("resume"):
                done = set(range(len(NAMES))) - set(pending(range(len(NAMES)), folder, names=NAMES))
                left = [index for index in left if index not in done]
            if left:
                names = [NAMES[index] for index in left]
                values = [{"low": value_of(name), "up": value_of(name)} for name in names]
                writer.submit_batch(names, values, origin=Origin(left))
                writer.flush()
                tell(names)


def recover(folder, tell=lambda names: None):
    """Open and close the target."""
    one = target(folder)
    one.open()
    one.close()


def check_readable(folder, told):
    """What was said to be stored is recorded, and all that is recorded can be read, sealed or not."""
    records = [record.name for record in read_manifest(folder).records if record.writer == "encode_text"]
    assert len(set(records)) == len(records)
    assert told <= set(records), told - set(records)
    for writer, values in (("encode_text", value_of), ("encode_upper", lambda name: value_of(name).upper())):
        if records:
            results = open_results(folder, writer=writer)
            assert {name: results.read_bytes(name).decode() for name in results} == {
                name: values(name) for name in records
            }
    assert verify(folder).is_sound if records else True


def check_whole(folder, names=NAMES):
    """Every sample is there once, in shards that every reader reads, and nothing else is."""
    check_readable(folder, set(names))
    report = verify(folder)
    assert report.findings == [], report.findings
    found, listed = [], 0
    files = {path.name for path in folder.iterdir()}
    shards = sorted(name for name in files if name.endswith(".tar"))
    for shard in shards:
        done = subprocess.run(["tar", "-tf", folder / shard], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), (shard, done.stderr)
        with tarfile.open(folder / shard) as tar:
            members = [(one.name, one.offset_data, one.size, tar.extractfile(one).read().decode()) for one in tar]
        assert done.stdout.splitlines() == [name for name, *_ in members]
        first, *lines = (folder / shard.replace(".tar", ".idx")).read_text().splitlines()
        words = " ".join(lines).split()
        places = zip(words[3::4], map(int, words[1::4]), map(int, words[2::4]), strict=True)
        assert list(places) == [member[:3] for member in members], shard
        assert first == f"v1.2 {len(members) // 2}"
        assert len(lines) == len(members) // 2
        found += members
        listed += len(lines)
    for field, values in (("low.txt", value_of), ("up.up", lambda name: value_of(name).upper())):
        contents = [(split_member(name)[0], text) for name, _, _, text in found if split_member(name)[1] == field]
        assert sorted((name_of_key(key), text) for key, text in contents) == sorted(
            (name, values(name)) for name in names
        )
    listing = json.loads((folder / "shards.json").read_text())["shardlist"]
    assert [one["url"] for one in listing] == shards
    assert sum(one["nsamples"] for one in listing) == listed == len(names)
    indices = {shard.replace(".tar", ".idx") for shard in shards}
    assert files == {*shards, *indices, "shards.json", ".lighter-async"}, files


def kill_while_storing(root, torn):
    """Kill it at each change; then the same job goes on with what is missing."""

    def check(_at, folder, told):
        check_readable(folder, told)
        store(folder, resume=True)
        check_whole(folder)

    return at_each_change(store, root, torn, check)


def kill_while_taking_over(root, torn):
    """Kill the process that seals what another one has left, at each change; the next one does it."""
    left = root / "left"
    left.mkdir()
    _leave_parts(left)
    told = {record.name for record in read_manifest(left).records}

    def check(_at, folder, _told):
        check_readable(folder, told)
        recover(folder)
        check_whole(folder, sorted(told))
        store(folder, resume=True)
        check_whole(folder)

    changes = at_each_change(recover, root, torn, check, left=left)
    shutil.rmtree(left)  # with the dead process's lock
    return changes


def _leave_parts(folder):
    """A part with two units of which one is recorded, and half of a third."""
    child = os.fork()
    if not child:
        try:
            one = BackgroundWriter(
                {"low": encode_text, "up": encode_upper}, target=target(folder), backend="thread", max_workers=1
            )
            values = [{"low": value_of(name), "up": value_of(name)} for name in NAMES[:4]]
            one.submit_batch(NAMES[:4], values, origin=Origin(range(4)))
            one.flush()
            (part,) = folder.glob("*.part")
            with open(part, "r+b") as file:
                data = file.read()
                file.write(data + data[:700])
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


if __name__ == "__main__":
    job = {"storing": kill_while_storing, "taking over": kill_while_taking_over}[sys.argv[2]]
    print(job(Path(sys.argv[1]), sys.argv[3] == "torn"))
