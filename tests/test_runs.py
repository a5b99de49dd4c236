"""Runs of one directory: their order, those that are open at once, and ranks that know nothing of each other."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from lighter_async import (
    BackgroundWriter,
    LocalTarget,
    NameTakenError,
    Origin,
    Run,
    WriteError,
    pending,
    read_manifest,
)
from lighter_async.cli import main
from lighter_async.manifest import log as log_module
from lighter_async.manifest.verify import drop, verify
from lighter_async.names import Claims
from lighter_async.types import launched_run
from lighter_async.workers import kept_in


def store(folder, indices, *, text="text", resume=False, writer="text", **run):
    with BackgroundWriter(writer, folder, backend="thread", resume=resume, run=Run(**run)) as background:
        background.submit_batch([str(i) for i in indices], [text] * len(indices), origin=Origin(indices))


def left(folder, count=10, **options):
    return list(pending(range(count), folder, **options))


@pytest.fixture
def clock(monkeypatch):
    """What the time is."""
    now = [1e9]
    monkeypatch.setattr(log_module, "time", lambda: now[0])
    return now


# The order of runs


@pytest.mark.parametrize("step", [-3600.0, 0.0, 3600.0], ids=["back", "the same", "on"])
def test_no_clock_decides_what_counts(tmp_path, clock, step):
    """Whether it jumps, stands still or goes on between the runs."""
    store(tmp_path, range(5))
    clock[0] += step
    store(tmp_path, range(5, 8), resume=True)
    assert left(tmp_path) == [8, 9]
    clock[0] += step
    store(tmp_path, range(3))
    assert left(tmp_path) == list(range(3, 10))
    clock[0] += step
    store(tmp_path, [9], resume=True, rank=1)
    assert left(tmp_path) == list(range(3, 9))


@pytest.mark.parametrize("step", [-3600.0, 3600.0], ids=["behind", "before"])
def test_ranks_whose_clocks_differ_agree_on_the_latest_record(tmp_path, clock, step):
    """That of the later run, and what was dropped stays dropped until it is stored again."""
    store(tmp_path, [0], text="first", rank=1)
    clock[0] += step
    store(tmp_path, [0], text="second one", resume=True, rank=0)
    (record,) = read_manifest(tmp_path).records
    assert (record.rank, record.bytes) == (0, len("second one"))
    assert verify(tmp_path).is_sound
    (tmp_path / "0.txt").unlink()
    assert drop(verify(tmp_path)) == []
    assert left(tmp_path, 1) == [0]
    store(tmp_path, [0], text="third", resume=True, rank=1)
    assert left(tmp_path, 1) == []
    assert verify(tmp_path).is_sound


def test_runs_of_an_earlier_version_come_before_all_others(tmp_path, clock):
    """They have no numbers, and are ordered by time."""
    store(tmp_path, range(4))
    manifest = tmp_path / ".lighter-async" / "manifest-0.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for name in ("sequence", "beside", "durability", "config"):
        del lines[0][name]
    lines[0]["time"] = 9e9  # by a clock that was ahead
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / ".lighter-async" / "runs.jsonl").unlink()
    assert left(tmp_path, 5) == [4]
    store(tmp_path, [0, 4], resume=True)
    assert left(tmp_path, 5) == []
    store(tmp_path, [1])
    assert left(tmp_path, 5) == [0, 2, 3, 4]


def test_the_order_goes_on_where_the_list_of_runs_was_removed(tmp_path):
    """The manifests know it, too."""
    store(tmp_path, range(5))
    store(tmp_path, range(2))
    (tmp_path / ".lighter-async" / "runs.jsonl").unlink()
    store(tmp_path, [9], resume=True)
    assert left(tmp_path) == [2, 3, 4, 5, 6, 7, 8]
    assert [run.sequence for run in read_manifest(tmp_path).runs] == [1, 2, 3]


# Open at once


def test_writers_that_are_open_at_once_add_up(tmp_path):
    """Whichever began, or ends, first; and whoever begins after all have ended begins anew."""
    first = BackgroundWriter("text", tmp_path, backend="thread")
    first.submit("0", "x", origin=Origin([0]))
    with BackgroundWriter("text", tmp_path, backend="thread") as second:
        second.submit("1", "x", origin=Origin([1]))
        first.close()
        with BackgroundWriter("text", tmp_path, backend="thread") as third:
            third.submit("2", "x", origin=Origin([2]))
    assert left(tmp_path, 4) == [3]
    store(tmp_path, [3])
    assert left(tmp_path, 4) == [0, 1, 2]


def test_a_writer_of_another_series_does_not_tie_runs_together(tmp_path):
    """One that is open all along: what an ended run of the first series has stored counts no more after the next."""
    with BackgroundWriter("tensor", tmp_path, backend="thread", run=Run(key="other")):
        store(tmp_path, range(5))
        store(tmp_path, [5])
        assert left(tmp_path, 6, writer="text") == [0, 1, 2, 3, 4]


TASK = """
import sys
from lighter_async import BackgroundWriter, Origin

with BackgroundWriter("text", sys.argv[1], backend="thread") as writer:
    print("open", flush=True)
    sys.stdin.readline()
    for index in map(int, sys.argv[2:]):
        writer.submit(str(index), "x", origin=Origin([index]))
"""


def test_processes_that_are_open_at_once_add_up(tmp_path):
    """As tasks of an array that know nothing of each other."""
    tasks = []
    for indices in ([0, 1], [2, 3], [4]):
        command = [sys.executable, "-c", TASK, tmp_path, *map(str, indices)]
        tasks.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert tasks[-1].stdout.readline() == "open\n"
    for task in tasks:
        task.communicate("go\n", timeout=60)
        assert task.returncode == 0
    assert left(tmp_path, 6) == [5]


# Ranks of a plain loop

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "job",
    "TORCHELASTIC_RESTART_COUNT": "0",
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_PORT": "29500",
}
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "1",
    "SLURM_NTASKS": "4",
}


@pytest.fixture
def around(monkeypatch):
    """Sets variables, and no others of the launchers'."""

    def set_all(*variables):
        for name in list(os.environ):
            if name.startswith(("TORCHELASTIC", "SLURM", "OMPI")) or name in TORCHRUN:
                monkeypatch.delenv(name)
        for some in variables:
            for name, value in some.items():
                monkeypatch.setenv(name, value)
        return launched_run()

    return set_all


@pytest.mark.parametrize("launcher", [TORCHRUN, SLURM], ids=["torchrun", "srun"])
def test_a_launchers_ranks_are_one_run(around, launcher, tmp_path):
    """A restart is another one; and a rank may be given without an id."""
    run = around(launcher)
    assert (run.rank, run.world_size) == (1, 4)
    count = "TORCHELASTIC_RESTART_COUNT" if launcher is TORCHRUN else "SLURM_RESTART_COUNT"
    assert around(launcher, {count: "1"}).id != run.id
    rank = "RANK" if launcher is TORCHRUN else "SLURM_PROCID"
    other = around(launcher, {rank: "3"})
    assert (other.id, other.rank) == (run.id, 3)
    assert Run(rank=2, world_size=4).id == run.id
    assert Run().id != run.id
    assert BackgroundWriter("text", tmp_path).target.run == other


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "1", "WORLD_SIZE": "4"},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},
        SLURM | {"SLURM_STEP_ID": str(0xFFFFFFFB), "SLURM_PROCID": "0"},
        SLURM | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        SLURM | {"OMPI_COMM_WORLD_SIZE": "8"},
        TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"},
    ],
    ids=["set by others", "script", "script's step", "one task", "mpirun", "one rank"],
)
def test_what_only_looks_like_ranks_is_one_process(around, variables, tmp_path):
    """Others set such variables, too."""
    assert around(variables) is None
    assert BackgroundWriter("text", tmp_path).target.run.world_size == 1
    with pytest.raises(ValueError, match=r"2 ranks needs an id.*Run\(id="):
        Run(rank=0, world_size=2)


def test_a_torchrun_job_without_a_name_is_known_by_its_launcher(around):
    """Two of them have all variables in common but their logs; on several nodes there is nothing."""
    nameless = TORCHRUN | {"TORCHELASTIC_RUN_ID": "none"}
    logs = [f"/tmp/torchelastic_{word}/none_{word}/attempt_0/{rank}/error.json" for word in "ab" for rank in (0, 1)]
    ids = [around(nameless, {"TORCHELASTIC_ERROR_FILE": one}).id for one in logs]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    with pytest.raises(ValueError, match="--rdzv-id"):
        around(nameless, {"LOCAL_WORLD_SIZE": "2"})


RANK = """
import sys
from lighter_async import BackgroundWriter, Origin

rank = int(sys.argv[2])
with BackgroundWriter("text", sys.argv[1], backend="thread") as writer:
    for index in (rank, rank + 2, rank + 4):
        writer.submit(str(index), sys.argv[3], origin=Origin([index]))
    writer.submit("8", "both", origin=Origin([8]))
"""


@pytest.mark.parametrize("launcher", ["torchrun", "srun"])
def test_a_rank_that_opens_after_another_has_ended_is_of_the_same_run(tmp_path, around, launcher):
    """Its samples and the other one's count, and the other one's files are none of an earlier run's."""
    around()
    for text, job in (("old", "1"), ("new", "2")):
        for rank in (0, 1):
            variables = TORCHRUN | {"TORCHELASTIC_RUN_ID": job, "RANK": str(rank), "WORLD_SIZE": "2"}
            if launcher == "srun":
                variables = SLURM | {"SLURM_JOB_ID": job, "SLURM_PROCID": str(rank), "SLURM_STEP_NUM_TASKS": "2"}
            command = [sys.executable, "-c", RANK, tmp_path, str(rank), text]
            subprocess.run(command, check=True, timeout=60, env={**os.environ, **variables})
    assert left(tmp_path, 7) == [6]
    assert {(tmp_path / f"{index}.txt").read_text() for index in range(6)} == {"new"}
    manifest = read_manifest(tmp_path)
    assert sorted({run.sequence for run in manifest.runs}) == [1, 2]
    assert len({run.since for run in manifest.runs if run.sequence == 2}) == 1
    assert verify(tmp_path).is_sound


@pytest.mark.parametrize("backend", ["thread", "process"])
@pytest.mark.parametrize("if_exists", ["overwrite", "skip"])
def test_a_rank_that_stores_its_own_names_once_more_waits_for_no_other_one(tmp_path, backend, if_exists):
    """A script under torchrun may open a writer on one directory after each epoch, and all of them are of one run."""

    def write(text, rank=0, **options):
        run = Run(id="job", rank=rank, world_size=2)
        with BackgroundWriter("text", LocalTarget(tmp_path, run=run, **options), backend=backend) as writer:
            writer.submit_batch(["a", "b"], [f"{text} a", f"{text} b"])
        return writer.stats()

    write("first")
    stats = write("second", if_exists=if_exists)
    kept = if_exists == "skip"
    assert (stats.written, stats.skipped) == ((0, 2) if kept else (2, 0))
    assert (tmp_path / "a.txt").read_text() == ("first a" if kept else "second a")
    # Another rank's are still refused.
    with pytest.raises(WriteError) as raised:
        write("other", rank=1)
    assert {type(failure.cause) for failure in raised.value.failures} == {NameTakenError}
    assert (tmp_path / "b.txt").read_text() == ("first b" if kept else "second b")
    assert verify(tmp_path).is_sound


# The manifest, whatever becomes of it


@pytest.mark.parametrize("backend", ["thread", "process"])
@pytest.mark.parametrize("what", ["manifest-0.jsonl", ""], ids=["manifest", "folder"])
@pytest.mark.parametrize("when", ["between", "at the end"])
def test_a_manifest_that_is_removed_meanwhile_is_made_again(tmp_path, capfd, backend, what, when):
    """With what it said of the files that are there."""
    store(tmp_path, [0])
    with BackgroundWriter("text", tmp_path, backend=backend, max_workers=1, resume=True) as writer:
        writer.submit("1", "x", origin=Origin([1]))
        writer.flush()
        if when == "at the end":
            writer.submit("2", "x", origin=Origin([2]))
            writer.flush()
        path = tmp_path / ".lighter-async" / what
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if when == "between":
            writer.submit("2", "x", origin=Origin([2]))
    assert left(tmp_path, 4) == [3]
    assert verify(tmp_path).findings == []
    if when == "between":
        assert "begun anew" in capfd.readouterr().err
    store(tmp_path, [3], resume=True)
    assert left(tmp_path, 4) == []


@pytest.mark.parametrize("how", [shutil.rmtree, lambda path: path.rename(path.with_name("moved"))], ids=["rm", "mv"])
def test_a_directory_that_is_removed_or_moved_meanwhile(tmp_path, capfd, how):
    """What is stored from then on is recorded where it lies, and nothing that does not."""
    out = tmp_path / "out"
    with BackgroundWriter("text", out, backend="thread") as writer:
        writer.submit("0", "x", origin=Origin([0]))
        writer.flush()
        how(out)
        writer.submit("1", "x", origin=Origin([1]))
    lost = "begun anew. 1 sample that was stored is gone with it; first lighter-async verify" in capfd.readouterr().err
    assert lost == (how is shutil.rmtree)
    assert [record.index for record in read_manifest(out).records] == [1]
    assert verify(out).findings == []
    assert left(out, 2) == [0]
    shutil.rmtree(tmp_path / "moved", ignore_errors=True)  # with the writer's lock, which nobody holds


def test_a_directory_that_is_removed_at_the_end_stays_removed(tmp_path, capfd):
    """How many samples are gone with it is said once."""
    with BackgroundWriter("text", tmp_path / "out", backend="thread") as writer:
        writer.submit("0", "x")
        writer.flush()
        shutil.rmtree(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    told = capfd.readouterr().err
    assert told.count("was removed during the run. 1 sample that was stored is gone with it") == 1


# What was found damaged


def touch(path):
    os.utime(path)


def shorten(path):
    with open(path, "r+b") as file:
        file.truncate(1)


@pytest.mark.parametrize("later", [None, touch, shorten])
def test_what_could_not_be_removed_is_not_taken_for_whole(tmp_path, monkeypatch, later):
    """Whatever becomes of it further; what is stored in its place is."""
    store(tmp_path, range(3), resume=True, numbered=True)
    with open(tmp_path / "1.txt", "r+b") as file:
        file.truncate(2)

    def refuse(*_, **__):
        raise PermissionError(1, "as if it could not be removed")

    monkeypatch.setattr(os, "unlink", refuse)
    assert len(drop(verify(tmp_path))) == 1
    monkeypatch.undo()
    if later is not None:
        later(tmp_path / "1.txt")
    assert left(tmp_path, 3) == [1]
    store(tmp_path, [1], resume=True, numbered=True)
    manifest = tmp_path / ".lighter-async" / "manifest-0.jsonl"
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-1]))  # as if that had not come to it
    assert left(tmp_path, 3) == []


def test_what_an_earlier_version_has_dropped_is_not_taken_for_whole(tmp_path):
    """It did not say which file that was."""
    store(tmp_path, range(3), resume=True, numbered=True)
    status = os.stat(tmp_path / "1.txt")
    with open(tmp_path / ".lighter-async" / "manifest-0.jsonl", "a") as file:
        file.write(json.dumps({"dropped": "1", "file": "1.txt", "time": status.st_mtime + 1}) + "\n")
    assert left(tmp_path, 3) == [1]


# Indices, texts and numbers


@pytest.mark.parametrize("bad", [1 << 63, -(1 << 63) - 1, True, 1.0, "1", None, b"1", 1j])
@pytest.mark.parametrize("count", [1, 3])
def test_an_index_that_cannot_be_recorded_is_refused(tmp_path, bad, count):
    """With its place in the batch, and the batch is not taken."""
    names = [str(k) for k in range(count)]
    with BackgroundWriter("text", tmp_path, backend="thread") as writer:
        with pytest.raises(TypeError, match=f"sample {count - 1}"):
            writer.submit_batch(names, names, origin=Origin([*range(count - 1), bad]))
        for origin in (Origin([0] * count, loader=bad), Origin([0] * count, batch=bad) if bad is not None else None):
            if origin is not None:
                with pytest.raises(TypeError, match="number of a"):
                    writer.submit_batch(names, names, origin=origin)
        writer.submit_batch(names, names, origin=Origin(range(count)))
    manifest = read_manifest(tmp_path)
    assert (manifest.torn, sorted(record.index for record in manifest.records)) == (0, list(range(count)))


@pytest.mark.parametrize("bad", [{"id": 5}, {"key": 5}, {"id": b"x"}])
def test_a_run_has_texts(bad):
    """Or nobody could read what it records."""
    with pytest.raises(TypeError, match="are texts"):
        Run(**bad)


def test_numbers_in_any_order_are_claimed_once():
    """A sampler may give them one by one, in no order, or each rank its own."""
    claims = Claims()
    for number in [*range(0, 400, 2), *range(399, 0, -2)]:
        claims.claim_numbers(range(number, number + 1), ".txt")
    assert len(claims._used._ranges[".txt"]) <= 16
    for number in range(400):
        with pytest.raises(ValueError, match=f"'{number}'"):
            claims.claim_numbers(range(number, number + 1), ".txt")
        with pytest.raises(ValueError, match=f"'{number}.txt'"):
            claims.claim([f"{number}.txt"], [f"{number}.txt"])
    claims.claim_numbers(range(400, 403), ".txt")


# Replaying


@pytest.mark.parametrize("manifest", [True, False])
def test_a_kept_value_is_stored_as_durably_as_its_run_stored(tmp_path, monkeypatch, manifest):
    """Synced, where the run had that."""
    (tmp_path / "a.txt").mkdir()
    background = BackgroundWriter(
        "text", tmp_path, backend="thread", on_error="continue", durability="fsync", manifest=manifest
    )
    background.submit("a", "x")
    with pytest.raises(WriteError):
        background.close()
    (tmp_path / "a.txt").rmdir()
    synced, real = [], os.fsync

    def fsync(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert main(["replay", str(tmp_path)]) == 0
    assert any(path.endswith(".part") for path in synced)
    assert (tmp_path / "a.txt").read_text() == "x"


def test_a_clock_that_was_set_back_costs_no_kept_value(tmp_path, clock):
    """The file under its name is an earlier run's, though it looks newer."""
    store(tmp_path, [0], text="old")
    os.utime(tmp_path / "0.txt", (9e9, 9e9))
    clock[0] -= 3600

    def failing(path, value):
        raise ValueError("no way")

    failing.__name__ = "text"
    with pytest.raises(WriteError):
        with BackgroundWriter(failing, tmp_path, backend="thread", resume=True, on_error="continue") as background:
            background.submit("0", "new", origin=Origin([0]))
    assert len(list(kept_in(tmp_path))) == 1
    assert main(["replay", str(tmp_path)]) == 0
    assert (tmp_path / "0.txt").read_text() == "new"
