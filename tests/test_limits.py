"""What a writer allows itself by default."""

import os
from pathlib import Path

import pytest

from lighter_async import BackgroundWriter, limits

MEBI = 1 << 20


@pytest.fixture(autouse=True)
def _one_worker_by_default():
    """Not here, where the machine's own number is looked at."""


@pytest.fixture
def cores(monkeypatch):
    def set_cores(count):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(count)), raising=False)

    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return set_cores


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
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert limits.usable_cores() == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert limits.usable_cores() == 1


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
