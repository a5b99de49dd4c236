"""What macOS and Windows lack is taken away from this system: the package is imported, stores, resumes and verifies."""

import sys

import pytest
from harness import run_script

# Runs first in a process of its own. Libraries keep what they have found: they are imported before anything is taken
# away, and this package after it. `SYSTEM` says whose system it is to be.
TAKEN_AWAY = """
import builtins, errno, importlib, os, pathlib, pkgutil, shutil, signal, socket, sys, types, warnings

def is_of_linux(path):
    return str(path).startswith(("/proc", "/sys/fs/cgroup")) if isinstance(path, (str, bytes, os.PathLike)) else False

def without_linux(module, name):
    real = getattr(module, name)
    def call(path=".", *more, **options):
        if is_of_linux(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return real(path, *more, **options)
    setattr(module, name, call)

NOT_ON_MACOS = (
    *("memfd_create", "pidfd_open", "eventfd", "eventfd_read", "eventfd_write", "MFD_CLOEXEC", "EFD_CLOEXEC"),
    *("fdatasync", "posix_fallocate", "posix_fadvise", "POSIX_FADV_DONTNEED", "copy_file_range", "splice"),
    *("sched_getaffinity", "sched_setaffinity", "sched_setscheduler", "SCHED_IDLE", "sched_param", "pipe2"),
)
NOT_ON_WINDOWS = (
    *("fork", "forkpty", "register_at_fork", "posix_spawn", "posix_spawnp", "wait4", "waitid", "WNOHANG"),
    *("writev", "readv", "pwrite", "pread", "pwritev", "preadv", "sendfile", "pathconf", "fpathconf", "statvfs"),
    *("fstatvfs", "sysconf", "uname", "mkfifo", "mknod", "chown", "fchown", "lchown", "getuid", "geteuid", "getgid"),
    *("getegid", "getgroups", "setuid", "setgid", "getpgid", "setpgid", "getpgrp", "killpg", "setsid", "getsid"),
    *("nice", "getpriority", "setpriority", "getloadavg", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_DIRECTORY"),
    *("O_SYNC", "O_DSYNC", "chroot", "sync", "openpty", "ttyname", "ctermid", "lockf", "sched_yield"),
)

def take_away(system):
    missing = NOT_ON_MACOS if system == "macos" else NOT_ON_MACOS + NOT_ON_WINDOWS
    for name in missing:
        if hasattr(os, name):
            delattr(os, name)
    sys.platform = "darwin" if system == "macos" else "win32"
    without_linux(builtins, "open")
    for name in ("open", "readlink", "listdir", "scandir", "stat", "lstat"):
        without_linux(os, name)
    import select
    for name in ("epoll", "poll") if system == "windows" else ("epoll",):
        delattr(select, name)
    if system == "macos":
        return
    for name in ("fcntl", "resource", "termios", "pty", "tty", "pwd", "grp", "posix"):
        sys.modules[name] = None
    for name in ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGXFSZ", "pthread_sigmask", "pthread_kill"):
        delattr(signal, name)
    os.supports_dir_fd = os.supports_fd = os.supports_follow_symlinks = set()
    shutil.disk_usage = disk_usage
    opens_no_folders(), keeps_open_files()

def opens_no_folders():
    real = os.open
    def open_(path, flags, *more, **options):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, flags, *more, **options)
    os.open = open_

def keeps_open_files():
    # What is open can be neither removed nor renamed nor replaced there, and nothing is renamed over a file.
    listed, linked, lexists = real_listdir, real_readlink, os.path.lexists
    def check(path):
        place = os.path.abspath(path)
        for one in listed("/proc/self/fd"):
            try:
                if linked("/proc/self/fd/" + one) == place:
                    raise PermissionError(errno.EACCES, "it is used by another process", path)
            except FileNotFoundError:
                pass
    def wrap(name, paths):
        real = getattr(os, name)
        def call(*args, **options):
            for path in args[:paths]:
                check(path)
            if name == "rename" and lexists(args[1]):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), args[1])
            return real(*args, **options)
        setattr(os, name, call)
    wrap("unlink", 1), wrap("remove", 1), wrap("rename", 2), wrap("replace", 2)

real_listdir, real_readlink, real_statvfs = os.listdir, os.readlink, os.statvfs

def disk_usage(path):  # which asks the system in a way of its own there
    status = real_statvfs(path)
    return types.SimpleNamespace(free=status.f_bavail * status.f_frsize)
"""

RUN = (
    TAKEN_AWAY
    + """
import asyncio, ctypes, logging, multiprocessing, subprocess, tempfile
import anyio, cloudpickle, msgspec, numpy, rich.live, rich.progress, tenacity, xxhash
system, folder = sys.argv[1:]
take_away(system)
from lighter_async import (
    ArrayTarget, AsyncBackgroundWriter, BackgroundWriter, Origin, TarShards, TableTarget, WriteError, encoder,
    open_results, read_manifest,
)
from lighter_async.cli import main

with BackgroundWriter("text", folder + "/files") as writer:
    writer.submit_batch(["a", "b/c"], ["one\\n", "two"], origin=Origin([0, 1]))
    writer.flush()
    assert writer.backend == "thread", writer.backend
    assert "Linux" in writer.stats().backend_reason, writer.stats().backend_reason
with BackgroundWriter("text", folder + "/files", resume=True, durability="fsync") as writer:
    writer.submit("d", "three", origin=Origin([2]))
with BackgroundWriter("text", folder + "/files", if_exists="skip") as writer:
    writer.submit("a", "other", origin=Origin([0]))
assert writer.stats().skipped == 1
assert dict(open_results(folder + "/files")) == {"a": "one\\n", "b/c": "two", "d": "three"}
assert pathlib.Path(folder, "files", "a.txt").read_bytes() == b"one\\n"
assert read_manifest(folder + "/files").done() == {0, 1, 2}

# One that overwrites, two at once, and one that fails on a sample.
with BackgroundWriter("text", folder + "/files", if_exists="overwrite") as writer:
    writer.submit("a", "four")
    with BackgroundWriter("text", folder + "/files", if_exists="overwrite") as other:
        other.submit("e", "five")
assert open_results(folder + "/files")["a"] == "four"

@encoder(suffix=".picky")
def picky(value):
    return {"good": b"bytes"}[value]

with BackgroundWriter(picky, folder + "/picky", on_error="continue") as writer:
    writer.submit_batch(["good", "bad"], ["good", "bad"])
    try:
        writer.flush()
    except WriteError as error:
        assert error.name == "bad"
    else:
        raise AssertionError

async def asynchronous():
    async with AsyncBackgroundWriter("text", folder + "/async") as writer:
        await writer.submit("a", "one")

asyncio.run(asynchronous())

with BackgroundWriter(target=TableTarget(folder + "/t.csv")) as writer:
    writer.submit_batch(["a", "b"], [{"x": 1}, {"x": 2}], origin=Origin([0, 1]))
with BackgroundWriter(target=TableTarget(folder + "/t.csv"), resume=True) as writer:
    writer.submit("c", {"x": 3}, origin=Origin([2]))
with BackgroundWriter("text", target=TarShards(folder + "/shards", durability="fsync")) as writer:
    writer.submit_batch(["a", "b"], ["one", "two"], origin=Origin([0, 1]))
with BackgroundWriter("text", target=TarShards(folder + "/shards"), resume=True) as writer:
    writer.submit("c", "three", origin=Origin([2]))
with BackgroundWriter(target=ArrayTarget(folder + "/e.npy", 4)) as writer:
    writer.submit_batch(None, numpy.ones((3, 2)), origin=Origin(range(3)))
with BackgroundWriter(target=ArrayTarget(folder + "/e.npy", 4), resume=True) as writer:
    writer.submit_batch(None, numpy.ones((1, 2)), origin=Origin([3]))
# What is open cannot be renamed on Windows, so it keeps the name of a part.
ending = ".part" if system == "windows" else ""
assert (numpy.load(folder + "/e.npy" + ending) == 1).all()
assert (open_results(folder + "/e.npy").to_array() == 1).all()
assert dict(open_results(folder + "/shards")) == {"a": "one", "b": "two", "c": "three"}
assert len(open_results(folder + "/t.csv")) == 3
assert pathlib.Path(folder, "t.csv").read_text().count("\\n") == 4

assert main(["verify", folder]) == 0
pathlib.Path(folder, "files", "a.txt").write_text("damaged")
assert main(["verify", folder + "/files"]) == 1
assert main(["verify", folder + "/files", "--repair"]) == 0
assert main(["report", folder + "/files"]) == 0
left = [*pathlib.Path(folder, "files").rglob("*.part"), *pathlib.Path(folder).rglob(".lighter-async/*.lock")]
assert not left, left
print("all is stored")
"""
)

IMPORT = (
    TAKEN_AWAY
    + """
import lighter_async

def modules():
    found = [module.name for module in pkgutil.walk_packages(lighter_async.__path__, "lighter_async.")]
    return [name for name in found if not name.endswith("__main__")]

for name in modules():
    importlib.import_module(name)
names = modules()
for name in [name for name in sys.modules if name.split(".")[0] == "lighter_async"]:
    del sys.modules[name]
take_away(sys.argv[1])
for name in names:
    importlib.import_module(name)
print(len(names), "modules")
"""
)

SYSTEMS = ["macos", "windows"]


@pytest.mark.skipif(sys.platform != "linux", reason="it is taken away from Linux")
@pytest.mark.parametrize("system", SYSTEMS)
def test_threads_store_resume_and_verify_without_what_another_system_lacks(tmp_path, system):
    """Files, shards, an array and a table, read back and repaired; nothing temporary is left."""
    done = run_script(RUN, system, tmp_path / "results")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all is stored\n")


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="it is taken away from Linux")
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_module_is_imported_without_what_another_system_lacks(system):
    """Those of helper processes, which are started nowhere else, too."""
    done = run_script(IMPORT, system)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "modules" in done.stdout
