"""Predictions on several ranks, real processes that talk over gloo: resuming, names that collide, and bad ends."""

import collections
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from harness import leftovers, results, script_running, until
from lightning_models import lightning_warnings
from ranks_script import CASES, SAMPLES, Ranks

from lighter_async import read_manifest

SCRIPT = Path(__file__).with_name("ranks_script.py")
TIMEOUT = 120  # seconds for one job; a machine that does other work as well takes its time to import torch four times

pytestmark = [pytest.mark.long, pytest.mark.timeout(600), lightning_warnings]

TWO = "cut one_left loaders padded padded_crops padded_chunks nested everywhere collide unshared in_the_way bytes_cut"


# Jobs


def command(folder, strategy, ranks, *scenarios, torchrun=False):
    """How to run some scenarios."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if torchrun else []
    return [sys.executable, *launcher, SCRIPT, folder, strategy, str(ranks), *scenarios]


def run(folder, *args, torchrun=False):
    """Run a job that has to succeed; returns its folder."""
    done = subprocess.run(
        command(folder, *args, torchrun=torchrun), capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Most scenarios, on two ranks."""
    return run(tmp_path_factory.mktemp("two"), "ddp", 2, *TWO.split())


@pytest.fixture(scope="module")
def four(two, tmp_path_factory):
    """The run that was cut goes on with four ranks."""
    folder = tmp_path_factory.mktemp("four")
    shutil.copytree(two / "cut", folder / "twice")
    return run(folder, "ddp", 4, "few", "twice")


@pytest.fixture(scope="module")
def spawned(two, tmp_path_factory):
    """The run that was cut goes on with two ranks that are spawned."""
    folder = tmp_path_factory.mktemp("spawned")
    shutil.copytree(two / "cut", folder / "resumed")
    return run(folder, "ddp_spawn", 2, "resumed")


@pytest.fixture(scope="module")
def elastic(two, tmp_path_factory):
    """The run that was cut goes on with two ranks of torchrun."""
    folder = tmp_path_factory.mktemp("elastic")
    shutil.copytree(two / "cut", folder / "resumed")
    return run(folder, "ddp", 2, "resumed", "sharded", torchrun=True)


@pytest.fixture(scope="module")
def alone(two, tmp_path_factory):
    """The run that was cut goes on without any other rank, in this process."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copytree(two / "cut", folder / "resumed")
    for scenario in ("resumed", "bytes_cut"):
        (folder / scenario).mkdir(exist_ok=True)
        getattr(Ranks(folder / scenario, "auto", 1), scenario)()
    return folder


# What they leave


def reports(folder, ranks=2, *, last=0):
    """What each rank reports of each prediction, or of the last ones, as lists of one per rank."""
    found = [json.loads((folder / f"rank-{rank}.json").read_text())[-last:] for rank in range(ranks)]
    return list(zip(*found, strict=True))


def counts(report, what="written"):
    """How many samples each rank's first writer has written, or skipped."""
    return [one["stats"][0][what] for one in report]


def computed(folder):
    """How often each item of each loader was computed, by ``LOADER INDEX``."""
    lines = (line for path in folder.glob("computed-*.txt") for line in path.read_text().splitlines())
    return collections.Counter(lines)


def once(*counts):
    """Each of so many items of each loader once."""
    return {f"{loader} {index}": 1 for loader, count in enumerate(counts) for index in range(count)}


def texts(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in results(folder) if path.suffix == ".txt"}


def assert_is_whole(directory, count, suffix=".txt"):
    """The manifest has each item of one loader, in order, and just the files that are there."""
    records = [record for record in read_manifest(directory).records if record.file.endswith(suffix)]
    assert [record.index for record in records] == list(range(count))
    files = {path.relative_to(directory).as_posix(): path for path in results(directory) if path.suffix == suffix}
    assert {record.file: record.bytes for record in records} == {
        file: path.stat().st_size for file, path in files.items()
    }
    assert leftovers(directory) == []


# Resuming


@pytest.mark.parametrize(
    ("job", "scenario"), [("four", "twice"), ("spawned", "resumed"), ("elastic", "resumed"), ("alone", "resumed")]
)
def test_a_run_that_was_cut_goes_on_with_other_ranks_and_batches(request, job, scenario):
    """Every item was computed once, its files have the names of its index, and the manifest is that of one run."""
    folder = request.getfixturevalue(job) / scenario
    assert computed(folder) == once(SAMPLES)
    assert texts(folder / "numbers") == {f"{i}.txt": f"{i} of loader 0" for i in range(SAMPLES)}
    assert {path.name for path in (folder / "numbers").glob("*.pt")} == {f"{i}.pt" for i in range(SAMPLES)}
    assert all(torch.load(folder / "numbers" / f"{i}.pt").item() == i for i in range(SAMPLES))
    assert texts(folder / "names") == {f"loader-0/case.{i}.txt": f"{i} of loader 0" for i in range(SAMPLES)}
    assert_is_whole(folder / "numbers", SAMPLES, ".txt")
    assert_is_whole(folder / "numbers", SAMPLES, ".pt")
    assert_is_whole(folder / "names", SAMPLES)


def test_the_run_was_cut(two):
    """With two batches of four on each of two ranks."""
    assert computed(two / "cut") == once(16)
    assert_is_whole(two / "cut" / "names", 16)


def test_a_rank_may_have_nothing_left(two, four):
    """One sample is left for two ranks, or three for four."""
    assert counts(reports(two / "one_left")[1]) == [1, 0]
    assert computed(two / "one_left") == once(CASES)
    assert_is_whole(two / "one_left" / "out", CASES)
    assert counts(reports(four / "few", 4)[0]) == [1, 1, 1, 0]
    assert_is_whole(four / "few" / "out", 3)


def test_all_ranks_may_have_nothing_left(four):
    """The run ends at once, and leaves all as it was."""
    resumed, again = reports(four / "twice", 4, last=2)
    assert counts(resumed) == [6, 5, 5, 5]
    assert counts(again) == [0, 0, 0, 0]
    assert [one["error"] for one in again] == [None] * 4


def test_several_loaders_go_on_each_for_itself(two):
    """Numbers go on over the loaders."""
    assert computed(two / "loaders") == once(9, 7, 12)
    out = two / "loaders" / "out"
    assert texts(out) == {
        f"{before + i}.txt": f"{i} of loader {n}"
        for n, (before, count) in enumerate(((0, 9), (9, 7), (16, 12)))
        for i in range(count)
    }
    places = [(record.loader, record.index) for record in read_manifest(out).records]
    assert places == [(n, i) for n, count in enumerate((9, 7, 12)) for i in range(count)]


def test_loaders_in_a_collection_of_collections(two):
    """Numbers go on over them in Lightning's order."""
    out = two / "nested" / "out"
    assert texts(out) == {
        f"{first + i}.txt": f"{i} of loader {n}"
        for n, (first, count) in enumerate(((0, 5), (5, 6), (11, 7)))
        for i in range(count)
    }


@pytest.mark.parametrize("job", ["two", "alone"])
def test_whole_batches_make_results_equal_byte_for_byte(request, job):
    """The model's outputs depend on the whole batch, and files are missing from the middle of batches."""
    folder = request.getfixturevalue(job) / "bytes_cut"
    whole, resumed = ({path.name: path.read_bytes() for path in results(folder / name)} for name in ("whole", "cut"))
    assert len(whole) == SAMPLES
    assert resumed == whole
    assert len(set(whole.values())) == SAMPLES
    assert_is_whole(folder / "cut", SAMPLES, ".pt")


# Samplers that repeat some items


@pytest.mark.parametrize("way", ["numbers", "names", "resume", "resumed-names"])
def test_what_a_sampler_pads_with_is_stored_once(two, way):
    """Rank 1 computes the first item again, so that both ranks have as many."""
    assert sum(computed(two / "padded").values()) == CASES + 1
    name = "loader-0/case.{}.txt" if "names" in way else "{}.txt"
    directory = two / "padded" / way
    assert texts(directory) == {name.format(i): f"{i} of loader 0" for i in range(CASES)}
    assert_is_whole(directory, CASES)
    (report,) = reports(two / "padded")
    assert {stats["accepted"] for stats in report[0]["stats"]} == {11}
    assert {stats["accepted"] for stats in report[1]["stats"]} == {10}


def test_padding_is_no_reason_to_leave_out_what_is_none(two):
    """Of a model with two samples for each item each is stored, whatever the sampler's length says."""
    stored = collections.Counter(texts(two / "padded_crops" / "out").values())
    assert set(stored) == {f"{i} {side}" for i in range(CASES) for side in "lr"}
    chunks = two / "padded_chunks" / "out"
    assert texts(chunks) == {f"loader-0/case.{i}.txt": f"{i} of loader 0" for i in range(CASES)}
    (report,) = reports(two / "padded_chunks")
    assert sum(counts(report)) == CASES
    assert sum(counts(report, "skipped")) == 1


@pytest.mark.parametrize("way", ["names", "synced", "resume"])
def test_what_every_rank_computes_is_stored_once(two, way):
    """The slower rank's sample is counted as skipped, and is no error."""
    folder = two / "everywhere"
    assert computed(folder) == {f"0 {i}": 2 for i in range(SAMPLES)}
    assert_is_whole(folder / way, SAMPLES)
    (report,) = reports(folder)
    place = ["names", "synced", "resume"].index(way)
    stats = [one["stats"][place] for one in report]
    assert [one["error"] for one in report] == [None, None]
    assert [one["written"] + one["skipped"] for one in stats] == [SAMPLES, SAMPLES]
    assert sum(one["written"] for one in stats) == SAMPLES


# Names that collide


def test_two_samples_under_one_name_are_an_error_on_the_slower_rank(two):
    """The other rank's sample is stored, and its bytes stay."""
    found = reports(two / "collide")
    for if_exists, report in zip(["overwrite", "skip", "error"], found[:3], strict=True):
        winner = counts(report).index(1)
        assert report[winner]["error"] is None
        loser = report[1 - winner]
        assert counts([loser]) == [0]
        assert f"index {winner} of loader 0, which rank {winner} has stored, and index {1 - winner}" in loser["error"]
        assert "'same.0.txt'" in loser["error"]
        if if_exists != "overwrite":
            assert texts(two / "collide" / if_exists) == {"same.0.txt": f"{winner} by rank {winner}"}


def test_two_samples_under_the_name_of_an_earlier_run(two):
    """Overwriting, one rank replaces the file and the other has an error; else the file stays."""
    overwritten, skipped, refused = reports(two / "collide")[3:]
    winner = counts(overwritten).index(1)
    assert texts(two / "collide" / "overwrite") == {"same.0.txt": f"{winner} by rank {winner}"}
    assert "NameTakenError" in overwritten[1 - winner]["error"]
    assert [counts(skipped), counts(skipped, "skipped")] == [[0, 0], [1, 1]]
    assert all("FileExistsError" in one["error"] and "exists already" in one["error"] for one in refused)


WRITES = """
import json, sys
from lighter_async import LocalTarget, NameTakenError, Run

directory, if_exists, rank, ranks, since, count = sys.argv[1:]
run = Run(id="the-run", rank=int(rank), world_size=int(ranks), since=int(since))
target = LocalTarget(directory, if_exists=if_exists, run=run)
target.open()
print("ready", flush=True)
sys.stdin.readline()
outcomes = []
for number in range(int(count)):
    try:
        outcomes.append(target.put(str(number), [memoryview(f"{number} by {rank}".encode())]))
    except NameTakenError:
        outcomes.append("taken")
    except FileExistsError:
        outcomes.append("exists")
target.close()
print(json.dumps(outcomes))
"""


@pytest.mark.parametrize("earlier", [False, True], ids=["anew", "earlier"])
@pytest.mark.parametrize("if_exists", ["overwrite", "skip", "error"])
def test_ranks_that_race_for_the_same_names(tmp_path, if_exists, earlier):
    """Of four ranks one stores each sample, and that one's bytes stay."""
    count, ranks = 2000, 4
    since = tmp_path / "since"
    since.touch()
    for number in range(count) if earlier else ():
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / f"{number}").write_text("earlier")
        os.utime(tmp_path / "out" / f"{number}", (1, 1))
    with contextlib.ExitStack() as stack:
        arguments = [
            (tmp_path / "out", if_exists, rank, ranks, since.stat().st_mtime_ns, count) for rank in range(ranks)
        ]
        processes = [stack.enter_context(script_running(WRITES, *one)) for one in arguments]
        for process in processes:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        outcomes = [json.loads(process.stdout.readline()) for process in processes]
        assert [process.wait(30) for process in processes] == [0] * ranks
    stored = {path.name: path.read_text() for path in results(tmp_path / "out")}
    assert len(stored) == count
    for number in range(count):
        found = [outcome[number] for outcome in outcomes]
        if earlier and if_exists != "overwrite":
            assert found == [{"skip": False, "error": "exists"}[if_exists]] * ranks
            assert stored[str(number)] == "earlier"
        else:
            assert sorted(map(str, found)) == ["True"] + ["taken"] * (ranks - 1), number
            assert stored[str(number)] == f"{number} by {found.index(True)}"


# Together


def test_ranks_talk_to_each_other_in_setup_alone(two):
    """A collective call in the loop would have the ranks wait for each other, or hang where one has fewer batches."""
    for scenario in ("cut", "one_left", "loaders", "padded", "everywhere"):
        for report in reports(two / scenario):
            for one in report:
                assert {call.split(":")[0] for call in one["calls"]} == {"setup"}, scenario


def test_ranks_that_do_not_share_the_directory_all_say_so(two):
    """The one that does not see it, and the other one, which would wait for it."""
    (report,) = reports(two / "unshared")
    assert report[0]["error"].startswith("RuntimeError: another rank does not see what rank 0 put into 'results'")
    assert report[1]["error"].startswith("RuntimeError: rank 1 does not see what rank 0 put into 'results'")
    assert leftovers(two / "unshared") == []


def test_what_rank_0_cannot_make_is_raised_on_every_rank(two):
    """With the directory's name."""
    (report,) = reports(two / "in_the_way")
    for one in report:
        assert one["error"].startswith("NotADirectoryError: FileWriter writes to the directory")
        assert "in_the_way/taken" in one["error"]


def test_a_model_that_is_spread_over_the_ranks(elastic):
    """Without Lightning, of which every rank computes and stores its part; what was padded with is stored once."""
    folder = elastic / "sharded"
    found = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert sum(one["stats"]["written"] for one in found) == CASES
    assert sum(one["stats"]["skipped"] for one in found) == 1
    assert [one["calls"] for one in found] == [[], []]
    assert_is_whole(folder / "out", CASES, ".pt")
    weights = torch.load(folder / "plain.pt")
    for number in range(CASES):
        expected = torch.full((3,), float(number)) @ weights["weight"].T + weights["bias"]
        torch.testing.assert_close(torch.load(folder / "out" / f"{number}.pt"), expected)


# Bad ends


@contextlib.contextmanager
def running(*args, torchrun=False):
    """A job in a session of its own, all of which is killed if it does not end by itself."""
    with subprocess.Popen(
        command(*args, torchrun=torchrun),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as job:
        try:
            yield job
        finally:
            for process in session_of(job.pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def session_of(leader):
    """The processes of a session that have not ended."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end_of(job):
    """What a job has told until all of its processes had ended."""
    told, _ = job.communicate(timeout=TIMEOUT)
    until(lambda: not session_of(job.pid), "every process of the job ends")
    return told


def test_a_model_that_fails_on_one_rank_ends_the_job(tmp_path):
    """The other rank, which waits for it, is not left behind, and what both handed over is stored."""
    with running(tmp_path, "ddp", 2, "model_fails") as job:
        told = end_of(job)
    assert job.returncode != 0
    assert "no prediction from here" in told
    assert texts(tmp_path / "model_fails" / "out") == {f"{i}.txt": f"{i} of loader 0" for i in range(16)}
    assert_is_whole(tmp_path / "model_fails" / "out", 16)


def test_a_writer_that_fails_on_one_rank_ends_the_job(tmp_path):
    """torchrun ends the other rank, which stores what it was handed before it goes."""
    with running(tmp_path, "ddp", 2, "writer_fails", torchrun=True) as job:
        told = end_of(job)
    assert job.returncode != 0
    assert "writer 'write' failed on 'loader-0/case.8': ValueError: no way to write here" in told
    folder = tmp_path / "writer_fails"
    lines = (folder / "computed-1.txt").read_text().split("\n")[:-1]
    stored = {path.name for path in results(folder / "out")}
    assert stored >= {f"case.{line.split()[1]}" for line in lines}
    assert leftovers(folder) == []


@pytest.mark.parametrize("signalled", [[0], [0, 1]], ids=["rank-0", "both"])
def test_sigterm_ends_every_rank_once_everything_is_stored(tmp_path, signalled):
    """Whether rank 0 alone is told or each of them; what was computed is stored and recorded."""
    folder = tmp_path / "endless"
    with running(tmp_path, "ddp", 2, "endless") as job:
        files = [folder / f"process-{rank}" for rank in range(2)]
        until(lambda: all(file.exists() and file.read_text() for file in files) or job.poll() is not None, "both run")
        for rank in signalled:
            os.kill(int(files[rank].read_text()), signal.SIGTERM)
        told = end_of(job)
    assert job.returncode == 128 + signal.SIGTERM, told
    assert [one["error"] for one in reports(folder)[0]] == ["SystemExit: 143"] * 2, told
    indices = {int(line.split()[1]) for line in computed(folder)}
    assert len(indices) >= 40
    for name, suffix in (("out", ".txt"), ("names", ".pt")):
        stored = {path.relative_to(folder / name).as_posix() for path in results(folder / name)}
        pattern = "{}.txt" if suffix == ".txt" else "loader-0/case.{}.pt"
        assert stored == {pattern.format(index) for index in indices}
        assert {record.file for record in read_manifest(folder / name).records} == stored
    assert leftovers(folder) == []
