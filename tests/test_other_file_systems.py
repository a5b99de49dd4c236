"""File systems that lack something, writers of other machines and containers, and what is no directory."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from harness import results

from lighter_async import BackgroundWriter, FileWriter, LocalTarget, pending, read_manifest
from lighter_async import whole_files as files_module
from lighter_async.locks import Owner, RunLock, alone_in, is_held, owner_of, this_process
from lighter_async.locks import owner as owner_module
from lighter_async.targets import file_lanes as lanes
from lighter_async.whole_files import local_path, sync_folder

# What a preloaded library makes of the C library's calls: each fails as the environment says.
LIBRARY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
static int fails(const char *variable) {
    const char *number = getenv(variable);
    if (number) errno = atoi(number);
    return number != 0;
}
int flock(int descriptor, int operation) {
    int (*real)(int, int) = dlsym(RTLD_NEXT, "flock");
    return fails("NO_FLOCK") ? -1 : real(descriptor, operation);
}
int link(const char *from, const char *to) {
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "link");
    return fails("NO_LINK") ? -1 : real(from, to);
}
int linkat(int a, const char *from, int b, const char *to, int flags) { return link(from, to); }
int rename(const char *from, const char *to) {
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
    return access(to, F_OK) == 0 && fails("NO_REPLACE") ? -1 : real(from, to);
}
static int opened(const char *name, const char *path, int flags, int mode) {
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, name);
    return (flags & O_APPEND) && strstr(path, "manifest-") && fails("NO_APPEND") ? -1 : real(path, flags, mode);
}
int open(const char *path, int flags, ...) {
    va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more);
    return opened("open", path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more);
    return opened("open64", path, flags, mode);
}
int fsync(int descriptor) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    struct stat status;
    return fstat(descriptor, &status) == 0 && S_ISDIR(status.st_mode) && fails("NO_SYNC") ? -1 : real(descriptor);
}
"""

JOB = """
import sys, warnings
from lighter_async import BackgroundWriter, read_manifest
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    for mode in ("overwrite", "skip", "error"):
        for time in ("first", "second")[: 2 if mode == "overwrite" else 1]:
            with BackgroundWriter("text", sys.argv[1] + "/" + mode, backend=sys.argv[2], if_exists=mode,
                                  durability=sys.argv[3], max_workers=2) as writer:
                for number in range(30):
                    writer.submit(str(number), time)
            assert writer.stats().written == 30, writer.stats()
        for number in range(30):
            with open(f"{sys.argv[1]}/{mode}/{number}.txt") as file:
                assert file.read() == time
        names = [record.name for record in read_manifest(sys.argv[1] + "/" + mode).records]
        assert sorted(set(names), key=int) == [str(number) for number in range(30)], names
print(sorted({str(one.message).split(", so ")[0].split(" has no ")[1].split(" (")[0] for one in told}))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The path of the compiled library."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("library")
    (folder / "without.c").write_text(LIBRARY)
    built = subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "without.so", folder / "without.c", "-ldl"])
    if built.returncode:
        pytest.skip("the compiler builds no library")
    return folder / "without.so"


def lacking(library, script, *arguments, **lacks):
    """Run a script where calls fail with these numbers."""
    environment = os.environ | {"LD_PRELOAD": str(library)} | {what: str(number) for what, number in lacks.items()}
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("lacks", "durability", "told"),
    [
        ({"NO_FLOCK": errno.ENOSYS}, "rename", "locks"),
        pytest.param({"NO_FLOCK": errno.ENOLCK}, "rename", "locks", marks=pytest.mark.long),
        pytest.param({"NO_FLOCK": errno.EOPNOTSUPP}, "rename", "locks", marks=pytest.mark.long),
        pytest.param({"NO_FLOCK": errno.EIO}, "rename", "locks", marks=pytest.mark.long),
        ({"NO_LINK": errno.EMLINK}, "rename", None),
        pytest.param({"NO_APPEND": errno.EINVAL}, "rename", "O_APPEND", marks=pytest.mark.long),
        pytest.param(
            {"NO_APPEND": errno.EOPNOTSUPP, "NO_FLOCK": errno.EINVAL}, "rename", "locks", marks=pytest.mark.long
        ),
        pytest.param({"NO_REPLACE": errno.EEXIST}, "rename", "renaming over a file", marks=pytest.mark.long),
        ({"NO_SYNC": errno.EINVAL}, "fsync", "syncing of folders"),
    ],
    ids=str,
)
def test_a_file_system_that_lacks_something_stores_everything_and_says_what_is_weaker(
    tmp_path, library, lacks, durability, told
):
    """Whatever kind of worker asks it."""
    for backend in ("thread", "process"):
        done = lacking(library, JOB, tmp_path / backend, backend, durability, **lacks)
        assert done.returncode == 0, done.stderr
        said = eval(done.stdout) if backend == "thread" else [*eval(done.stdout), *done.stderr.split("has no ")]
        assert told is None or any(told in one for one in said), (said, done.stderr)


RANK = """
import sys
from lighter_async import BackgroundWriter, NameTakenError, Run, WriteError
rank, folder, backend, mode = int(sys.argv[1]), *sys.argv[2:]
print("ready", flush=True)
sys.stdin.readline()
run = Run(rank=rank, world_size=2, id="together")
writer = BackgroundWriter("text", folder, backend=backend, if_exists=mode, run=run, max_workers=2, on_error="continue",
                          manifest=True)
taken = 0
try:
    with writer:
        for number in range(20):
            writer.submit(str(number), f"of rank {rank}")
except WriteError as error:
    taken = sum(isinstance(one.cause, NameTakenError) for one in error.failures)
    assert taken == len(error.failures), error
stats = writer.stats()
print(stats.written, taken, flush=True)
"""


@pytest.mark.long
@pytest.mark.parametrize("backend", ["thread", "process"])
@pytest.mark.parametrize(
    "lacks", [{"NO_LINK": errno.EPERM}, {"NO_LINK": errno.EPERM, "NO_FLOCK": errno.ENOSYS}], ids=str
)
def test_two_ranks_without_links_do_not_replace_each_others_samples(tmp_path, library, backend, lacks):
    """Of two samples of one name one is stored, and the other one is reported; also where there are no locks either."""
    environment = os.environ | {"LD_PRELOAD": str(library)} | {what: str(number) for what, number in lacks.items()}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", RANK, str(rank), tmp_path / "out", backend, "overwrite"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for rank in ranks:
        assert rank.stdout.readline() == "ready\n"
    told = []
    for rank in ranks:
        rank.stdin.write("go\n")
        rank.stdin.flush()
    for rank in ranks:
        out, errors = rank.communicate(timeout=100)
        assert rank.returncode == 0, errors
        told.append(tuple(map(int, out.split())))
    assert all(written + taken == 20 for written, taken in told), told
    assert sum(written for written, _ in told) == 20, told
    owners = {path.stem: path.read_text() for path in (tmp_path / "out").glob("*.txt")}
    assert len(owners) == 20
    assert [sum(text == f"of rank {rank}" for text in owners.values()) for rank in range(2)] == [
        written for written, _ in told
    ]


def test_a_link_whose_answer_was_lost_is_no_name_that_somebody_has_taken(tmp_path, monkeypatch):
    """A network file system makes the link, loses the answer, tries once more, and finds it there."""
    original = os.link

    def link(source, destination):
        original(source, destination)
        raise FileExistsError(errno.EEXIST, "File exists", destination)

    monkeypatch.setattr(files_module.os, "link", link)
    with BackgroundWriter("text", tmp_path, backend="thread", if_exists="error") as writer:
        writer.submit("a", "x")
    assert writer.stats().written == 1
    assert [path.name for path in results(tmp_path)] == ["a.txt"]


def test_a_file_system_that_tells_no_limits_has_the_usual_ones(tmp_path, monkeypatch):
    """Some refuse to be asked."""

    def pathconf(path, name):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "pathconf", pathconf)
    with BackgroundWriter("text", tmp_path, backend="thread") as writer:
        writer.submit("a", "x")
    assert (tmp_path / "a.txt").read_text() == "x"


def test_few_descriptors_mean_few_open_files(monkeypatch):
    """Files that are synced together are open together."""
    monkeypatch.setattr(lanes.resource, "getrlimit", lambda number: (24, 24))
    assert lanes._most_open() == 1
    monkeypatch.setattr(lanes.resource, "getrlimit", lambda number: (1024, 4096))
    assert lanes._most_open() == 64


def test_a_folder_that_cannot_be_synced_for_another_reason_is_an_error(tmp_path, monkeypatch):
    """A disk that fails is not one that lacks something."""

    def fsync(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files_module.os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output"):
        sync_folder(os.fspath(tmp_path))


# Who is alive


def test_a_child_that_was_forked_meanwhile_does_not_stay_alone_in_a_file(tmp_path):
    """A data loader's worker lives as long as the job, and has what was open when it was forked."""
    path = os.fspath(tmp_path / "busy")
    ready, go = os.pipe()
    with alone_in(path):
        child = os.fork()
        if not child:
            os.close(go)
            os.read(ready, 1)
            os._exit(0)
    os.close(ready)
    try:
        entered = threading.Event()

        def enter():
            with alone_in(path):
                entered.set()

        thread = threading.Thread(target=enter, daemon=True)
        thread.start()
        assert entered.wait(5)
    finally:
        os.close(go)
        os.waitpid(child, 0)
        thread.join(5)


def test_who_hides_its_processes_does_not_make_them_dead(monkeypatch):
    """hidepid: another user's process is there, and /proc says nothing of it."""
    monkeypatch.setattr(owner_module, "_started", lambda process: "")

    def kill(process, number):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    owner = dataclasses.replace(this_process(), process=os.getppid(), started="7")
    monkeypatch.setattr(os, "kill", kill)
    assert not owner.is_dead


def test_numbers_that_count_in_another_container_say_nothing():
    """Nor do those of another machine; what is gone from here is dead."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    here = dataclasses.replace(this_process(), process=gone.pid, started="7")
    assert here.is_dead
    assert not dataclasses.replace(here, namespace="pid:[1]").is_dead
    assert not dataclasses.replace(here, boot="another").is_dead
    assert not dataclasses.replace(here, boot="").is_dead
    assert not this_process().is_dead
    assert dataclasses.replace(this_process(), started="7").is_dead


def other_machines(folder, *, age):
    """A lock and a temporary file of a writer of another machine, whose lock looks free here."""
    own = folder / ".lighter-async"
    own.mkdir(parents=True, exist_ok=True)
    lock, part = own / "abcdef123456.lock", folder / ".lighter-async-abcdef123456-7-0.part"
    lock.write_text(json.dumps(dataclasses.asdict(Owner(7, "123", "another-boot", "pid:[1]", "run"))))
    part.write_bytes(b"half")
    for path in (lock, part):
        written = path.stat().st_mtime - age
        os.utime(path, (written, written))
    return lock, part


def test_what_another_machine_is_writing_is_left_alone(tmp_path):
    """Its lock may not be seen here. What it has not touched for a day is what a crash left."""
    lock, part = other_machines(tmp_path, age=60)
    with BackgroundWriter("text", tmp_path, backend="thread") as writer:
        writer.submit("a", "x")
    assert lock.exists()
    assert part.exists()
    lock, part = other_machines(tmp_path, age=2 * 24 * 3600)
    with BackgroundWriter("text", tmp_path, backend="thread") as writer:
        writer.submit("b", "x")
    assert not lock.exists()
    assert not part.exists()


def test_a_long_run_of_another_machine_keeps_its_lock_while_it_writes(tmp_path):
    """It began days ago, and has written a moment ago."""
    lock, part = other_machines(tmp_path, age=2 * 24 * 3600)
    os.utime(part)
    with BackgroundWriter("text", tmp_path, backend="thread") as writer:
        writer.submit("a", "x")
    assert lock.exists()
    assert part.exists()
    assert not is_held(os.fspath(lock))
    lock.unlink()
    part.unlink()


def test_what_a_living_process_is_writing_is_left_alone_whatever_its_lock_says(tmp_path):
    """Some file systems say that a lock was taken, and keep none."""
    lock, part = other_machines(tmp_path, age=0)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        owner = dataclasses.replace(this_process(), process=other.pid, started=owner_module._started(other.pid))
        lock.write_text(json.dumps(dataclasses.asdict(owner)))
        with BackgroundWriter("text", tmp_path, max_workers=2) as writer:
            writer.submit("a", "x")
        assert part.exists()
        other.kill()
    with BackgroundWriter("text", tmp_path, backend="thread") as writer:
        writer.submit("b", "x")
    assert not part.exists()


def test_a_lock_file_of_an_earlier_version_is_read(tmp_path):
    """It says nothing of namespaces and runs."""
    path = tmp_path / "a.lock"
    path.write_text(json.dumps({"process": 7, "started": "123", "boot": "b"}))
    assert owner_of(os.fspath(path)) == Owner(7, "123", "b", "", "")
    lock = RunLock(os.fspath(path))
    assert lock.acquire()
    lock.release()


# What is no directory

URLS = [
    "s3://bucket/preds",
    "gs://bucket",
    "http://host/x",
    "file:///tmp/x",
    "hf://datasets/x",
    "memory://x",
    "az-1://x",
]


@pytest.mark.parametrize("url", URLS)
def test_a_url_is_refused_wherever_a_directory_is_given(tmp_path, monkeypatch, url):
    """It would become a folder of that name here. A path of it has lost a slash."""
    monkeypatch.chdir(tmp_path)
    for given in (url, Path(url)):
        for refuse in (
            lambda given=given: BackgroundWriter("text", given),
            lambda given=given: LocalTarget(given),
            lambda given=given: FileWriter(given, "x", "text"),
            lambda given=given: pending([1], given),
            lambda given=given: read_manifest(given),
        ):
            with pytest.raises(ValueError, match="is a URL"):
                refuse()
    for command in ("verify", "replay", "manifest"):
        done = subprocess.run(
            [sys.executable, "-m", "lighter_async.cli", command, url], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 2, (command, done.stderr)
        assert "is a URL" in done.stderr
        assert "Traceback" not in done.stderr
        if url != URLS[0]:
            break
    assert os.listdir(tmp_path) == []


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    """And a folder of that name can still be had."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert local_path("~/preds") == local_path(Path("~/preds")) == tmp_path / "home" / "preds"
    with BackgroundWriter("text", "~/preds", backend="thread") as writer:
        writer.submit("a", "x")
    assert (tmp_path / "home" / "preds" / "a.txt").exists()
    assert [record.name for record in read_manifest("~/preds").records] == ["a"]
    with BackgroundWriter("text", "./~", backend="process", max_workers=1) as writer:
        writer.submit("a", "x")
    assert (tmp_path / "~" / "a.txt").exists()
    with pytest.raises(ValueError, match="no home folder is known"):
        local_path("~nobody-of-that-name/preds")
    assert local_path("$HOME/preds") == Path("$HOME/preds")
