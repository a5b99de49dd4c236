"""What a writer allows itself by default."""

import os
from pathlib import Path

import pytest

from lighter_async import BackgroundWriter, limits
from lighter_async.cpu_quota import cpu_quota

MEBI = 1 << 20


@pytest.fixture(autouse=True)
def _one_worker_by_default():
    """Not here, where the machine's own number is looked at."""


@pytest.fixture
def cores(monkeypatch):
    def set_cores(count):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(count)), raising=False)

    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(limits, "own_cpu_quota", lambda: None)
    return set_cores


@pytest.fixture
def groups(tmp_path):
    """A tree of control groups, made of files: `in_groups(lines of /proc/self/cgroup, files)` gives the quota."""

    def in_groups(lines, files):
        for name, text in files.items():
            file = tmp_path / "mounted" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
        (tmp_path / "cgroup").write_text("".join(f"{line}\n" for line in lines))
        return cpu_quota(tmp_path / "cgroup", tmp_path / "mounted")

    return in_groups


@pytest.fixture
def memory(monkeypatch):
    """A machine of so many bytes, in control groups with these files."""

    def set_memory(machine, **files):
        sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": machine // 4096}
        monkeypatch.setattr(os, "sysconf", sizes.__getitem__, raising=False)

        def read_text(path):
            key = "v2" if path.name == "memory.max" else "v1"
            if key not in files:
                raise FileNotFoundError(path)
            return files[key]

        monkeypatch.setattr(Path, "read_text", read_text)

    return set_memory


@pytest.mark.parametrize(("count", "workers"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (128, 4)])
def test_there_is_a_worker_per_core_up_to_four(cores, count, workers):
    """Cores are those that this process may run on, not those of the machine."""
    cores(count)
    assert limits.usable_cores() == count
    assert limits.default_workers() == workers


@pytest.mark.parametrize(
    ("ranks", "workers"),
    [
        ("1", 4),
        ("2", 4),
        ("4", 2),
        ("5", 1),
        ("8", 1),
        ("64", 1),
        ("0", 4),
        ("", 4),
        ("many", 4),
        ("-2", 4),
        ("2.5", 4),
    ],
)
def test_ranks_of_one_machine_share_its_cores(cores, monkeypatch, ranks, workers):
    """As torchrun counts them; anything that is no count is one rank."""
    cores(8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    assert limits.default_workers() == workers


def test_a_count_of_ranks_that_is_told_goes_before_the_environment(cores, monkeypatch):
    """Lightning's launcher knows it and sets no variable."""
    cores(8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert limits.default_workers(2) == 4
    assert limits.default_workers(4) == 2
    assert limits.default_workers(0) == 4


def test_without_affinity_the_machines_cores_count(monkeypatch):
    """As on macOS; where nobody knows, it is one."""
    monkeypatch.setattr(limits, "own_cpu_quota", lambda: None)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert limits.usable_cores() == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert limits.usable_cores() == 1


@pytest.mark.parametrize(
    ("path", "files", "quota"),
    [
        ("/", {"cpu.max": "200000 100000\n"}, 2.0),
        ("/job/step", {"job/step/cpu.max": "150000 100000\n"}, 1.5),
        ("/job/step", {"job/step/cpu.max": "max 100000\n", "job/cpu.max": "50000 100000\n"}, 0.5),
        ("/job/step", {"job/step/cpu.max": "100000 50000\n", "job/cpu.max": "800000 100000\n"}, 2.0),
        ("/job/step", {"job/step/cpu.max": "800000 100000\n", "cpu.max": "300000 100000\n"}, 3.0),
        ("/known/outside", {"cpu.max": "400000 100000\n"}, 4.0),
        ("/job", {"cpu.max": "max 100000\n", "other/cpu.max": "100000 100000\n"}, None),
        ("/../job", {"cpu.max": "100000 100000\n", "job/cpu.max": "100000 100000\n"}, None),
    ],
)
def test_the_quota_is_the_least_of_a_processs_group_and_those_above(groups, path, files, quota):
    """Version 2; a group that is not seen here, as in a container, and those of others are no affair of the process."""
    assert groups(["1:name=systemd:/job", f"0::{path}"], files) == quota


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(
    ("folder", "microseconds", "quota"),
    [
        ("job/step", "250000", 2.5),
        ("job", "100000", 1.0),
        ("", "300000", 3.0),
        ("job", "-1", None),
        ("else", "1", None),
    ],
)
def test_version_1_says_the_quota_in_two_files(groups, mount, folder, microseconds, quota):
    """Of the hierarchy with the controller `cpu`, under either of its names."""
    files = {f"{mount}/{folder}/cpu.cfs_quota_us": microseconds, f"{mount}/{folder}/cpu.cfs_period_us": "100000\n"}
    assert groups(["4:memory:/job", "3:cpu,cpuacct:/job/step", "2:cpuset:/", "0::/"], files) == quota


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "max",
        "100000",
        "many 100000",
        "100000 0",
        "0 100000",
        "-1 100000",
        "1e5 1e5",
        "9" * 5000 + " 1",
        b"\xff",
    ],
)
def test_an_odd_file_is_no_quota(groups, text):
    """Whatever it says, and the groups above count all the same."""
    assert groups(["0::/job"], {"job/cpu.max": text}) is None
    assert groups(["", "odd", "::", "0::/job"], {"cpu.max": "200000 100000"}) == 2.0


def test_files_that_cannot_be_read_are_no_quota(groups, tmp_path):
    """As on a system without control groups, or where something else is in their place."""
    assert cpu_quota(tmp_path / "nothing", tmp_path) is None
    (tmp_path / "mounted" / "job" / "cpu.max").mkdir(parents=True)
    assert groups(["0::/job"], {}) is None


@pytest.mark.parametrize(
    ("quota", "count", "workers"), [(None, 8, 4), (0.1, 1, 1), (1.9, 1, 1), (2.0, 2, 2), (3.5, 3, 3), (64.0, 8, 4)]
)
def test_a_quota_counts_as_so_many_whole_cores(cores, monkeypatch, quota, count, workers):
    """At least one and no more than the process may run on; the workers by default follow."""
    cores(8)
    monkeypatch.setattr(limits, "own_cpu_quota", lambda: quota)
    assert (limits.usable_cores(), limits.default_workers()) == (count, workers)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, 16 << 30),
        ({"v2": "max\n"}, 16 << 30),
        ({"v2": "4294967296\n"}, 4 << 30),
        ({"v1": "2147483648\n"}, 2 << 30),
        ({"v1": "9223372036854771712\n"}, 16 << 30),
        ({"v2": "8589934592\n", "v1": "4294967296\n"}, 4 << 30),
        ({"v2": ""}, 16 << 30),
    ],
)
def test_memory_is_the_machines_or_the_containers(memory, files, found):
    """The least of what the machine and the control groups, version 2 and 1, say; "max" and "unlimited" say nothing."""
    memory(16 << 30, **files)
    assert limits.memory_bytes() == found


def test_where_nobody_knows_the_memory_a_modest_machine_is_assumed(memory, monkeypatch):
    """As on Windows."""
    memory(16 << 30)
    monkeypatch.delattr(os, "sysconf")
    assert limits.memory_bytes() == 8 << 30


@pytest.mark.parametrize(
    ("machine", "queue"),
    [
        (1 << 30, 64 * MEBI),
        (2 << 30, 64 * MEBI),
        (4 << 30, 128 * MEBI),
        (32 << 30, 1024 * MEBI),
        (1 << 40, 1024 * MEBI),
    ],
)
def test_the_queue_takes_a_thirty_second_of_the_memory_within_bounds(memory, machine, queue):
    """At least 64 MiB, at most 1 GiB."""
    memory(machine)
    assert limits.default_queue_bytes() == queue


def test_this_machine_has_cores_and_memory():
    """The real answers, whatever they are, are usable."""
    assert limits.usable_cores() >= 1
    assert limits.memory_bytes() > 64 * MEBI
    assert 1 <= limits.default_workers() <= 4
    assert 64 * MEBI <= limits.default_queue_bytes() <= 1024 * MEBI


def test_a_writer_takes_the_defaults(tmp_path, cores):
    """Unless it is told otherwise."""
    cores(3)
    writer = BackgroundWriter("text", tmp_path)
    assert (writer.max_workers, writer.queue_size) == (3, limits.DEFAULT_QUEUE_SIZE)
    assert writer.queue_bytes == limits.default_queue_bytes()
    writer = BackgroundWriter("text", tmp_path, max_workers=7, queue_size=5, queue_bytes=100)
    assert (writer.max_workers, writer.queue_size, writer.queue_bytes) == (7, 5, 100)
