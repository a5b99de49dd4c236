"""What ``backend="auto"`` chooses, and what it knows when it does."""

import dataclasses
import os
import re

import pytest
import torch
from harness import MemoryTarget, results

from lighter_async import ArrayTarget, BackgroundWriter, Origin, TableTarget, encoder
from lighter_async import other_programs as looking
from lighter_async.other_programs import CoresInUse, Look, in_use, in_use_since, look
from lighter_async.service import lifecycle
from lighter_async.service import setup as setting_up
from lighter_async.types import WriterStats
from lighter_async.workers import Choice, choose_backend, choose_by_cores
from lighter_async.workers.process import launch
from lighter_async.writers import resolve_writer

QUIET = CoresInUse(cores=2, own=0.5, others=0.1)
BUSY = CoresInUse(cores=2, own=0.2, others=1.75)
HALF = torch.rand(2, 1 << 16)


async def written_async(path, value):
    """A writer."""


def written(path, value):
    """Another one."""


# The rule


@pytest.mark.parametrize(
    ("writer", "facts", "chosen", "why"),
    [
        ("tensor", {}, "process", "interpreter lock"),
        ("image_2d", {}, "process", "interpreter lock"),
        ({"mask": "image_2d", "logits": "tensor"}, {}, "process", "interpreter lock"),
        ("tensor", {"cores": 1}, "thread", "one core"),
        ("tensor", {"is_local": False}, "thread", "the target is yours"),
        (written, {}, "thread", "the writer is yours"),
        (encoder(suffix=".x")(lambda value: b""), {}, "thread", "the writer is yours"),
        ({"mask": "image_2d", "own": encoder(suffix=".x")(lambda value: b"")}, {}, "thread", "the writer is yours"),
        (written_async, {}, "thread", "event loop"),
        (written_async, {"cores": 1}, "thread", "event loop"),
    ],
)
def test_the_writer_the_target_and_the_cores_are_known_at_once(writer, facts, chosen, why):
    """Only what may still become threads is left open."""
    choice = choose_backend("auto", resolve_writer(writer), **{"is_local": True, "cores": 2, **facts})
    assert choice.backend == chosen
    assert why in choice.reason
    assert choice.is_open == (chosen == "process")


def test_a_system_without_helpers_has_threads(monkeypatch):
    """And says what it lacks."""
    monkeypatch.setattr(launch, "supported", lambda: False)
    choice = choose_backend("auto", resolve_writer("text"), is_local=True, cores=8)
    assert choice == Choice("thread", "helper processes need Linux 5.3 or later")


@pytest.mark.parametrize("name", ["thread", "process"])
def test_an_explicit_choice_stays(name):
    """Whoever else is at work."""
    choice = choose_backend(name, resolve_writer("tensor"), is_local=True, cores=1)
    assert choice == Choice(name, f"backend={name!r}")
    assert choose_by_cores(choice, BUSY) == choice


@pytest.mark.parametrize(
    ("used", "chosen"),
    [
        (None, "process"),
        (QUIET, "process"),
        (CoresInUse(cores=2, own=1.9, others=0.1), "process"),  # the loop itself, which waits for its helpers
        (CoresInUse(cores=2, own=1.0, others=0.5), "process"),
        (CoresInUse(cores=16, own=0.5, others=12.0), "process"),  # several cores are idle
        (BUSY, "thread"),
        (CoresInUse(cores=2, own=0.7, others=1.3), "thread"),  # more programs than cores, which share them
        (CoresInUse(cores=2, own=0.0, others=1.0), "thread"),  # one core is left
        (CoresInUse(cores=16, own=0.0, others=15.0), "thread"),
        (CoresInUse(cores=16, own=7.9, others=8.0), "thread"),
    ],
)
def test_helpers_are_not_for_a_machine_that_other_programs_keep_busy(used, chosen):
    """They would let these go first; what cannot be known changes nothing."""
    choice = choose_by_cores(choose_backend("auto", resolve_writer("image_2d"), is_local=True, cores=2), used)
    assert choice.backend == chosen
    assert not choice.is_open
    if chosen == "thread":
        assert f"other programs use {used.others:.1f} of {used.cores} cores" in choice.reason


# What it is where a writer is started


@pytest.fixture
def looks(monkeypatch):
    """Have the writer see these cores in use."""

    def see(used):
        monkeypatch.setattr(lifecycle, "in_use_since", lambda before: used)

    return see


@pytest.mark.parametrize(
    ("writer", "batch", "used", "kind", "reason"),
    [
        ("tensor", torch.rand(2, 8), QUIET, "process", "helper processes leave the loop its interpreter lock"),
        ("tensor", torch.rand(2, 1 << 18), QUIET, "process", "helper processes leave the loop its interpreter lock"),
        ("tensor", torch.rand(2, 8), BUSY, "thread", r"other programs use 1\.8 of 2 cores, and helper .*"),
        ("text", ["a text", "another"], BUSY, "thread", "other programs use .*"),
        ({"a": "tensor", "b": "npy"}, {"a": HALF, "b": HALF}, BUSY, "thread", "other programs use .*"),
    ],
)
def test_what_others_use_decides_and_stats_say_why(tmp_path, looks, writer, batch, used, kind, reason):
    """Whatever the workers are, they store all of it, and the batches behind it, too."""
    looks(used)
    background = BackgroundWriter(writer, tmp_path, max_workers=2)
    assert background.backend == "process"
    with background:
        assert background.backend == kind
        background.submit_batch(["a", "b"], batch)
        background.submit_batch(["c", "d"], batch)
    stats = background.stats()
    assert (stats.written, stats.backend, background.backend) == (4, kind, kind)
    assert re.fullmatch(reason, stats.backend_reason)
    assert len(results(tmp_path)) == 4 * (len(writer) if isinstance(writer, dict) else 1)


def test_a_directory_that_cannot_be_made_is_an_error_at_the_start(tmp_path):
    """As with workers that are chosen at once; the writer can be started once more."""
    (tmp_path / "out").write_text("in the way")
    writer = BackgroundWriter("tensor", tmp_path / "out")
    with pytest.raises(OSError, match="out"):
        writer.start()
    assert writer.state == "new"
    (tmp_path / "out").unlink()
    with writer:
        writer.submit("a", torch.zeros(1))
    assert writer.stats().written == 1


def test_workers_that_cannot_be_started_may_be_later(tmp_path, monkeypatch):
    """The batch was not taken, and the writer goes on as if it had not been handed over."""
    made = lifecycle.make_workers
    monkeypatch.setattr(lifecycle, "make_workers", refuse)
    writer = BackgroundWriter("text", tmp_path)
    with pytest.raises(OSError, match="no threads left"):
        writer.submit("a", "x")
    monkeypatch.setattr(lifecycle, "make_workers", made)
    with writer:
        writer.submit("a", "x")
    assert writer.stats().accepted == writer.stats().written == 1


def refuse(*args):
    raise OSError("no threads left")


@pytest.mark.parametrize("make", [ArrayTarget, TableTarget], ids=["array", "table"])
def test_rows_are_stored_by_what_is_chosen(tmp_path, looks, make):
    """Also where a run ends without a row."""
    looks(BUSY)
    target = make(tmp_path / ("rows.npy" if make is ArrayTarget else "rows.csv"))
    with BackgroundWriter(target=target):
        pass
    rows = torch.rand(2, 3) if make is ArrayTarget else {"x": torch.rand(2)}
    with BackgroundWriter(target=target) as writer:
        writer.submit_batch(["a", "b"], rows, origin=Origin([0, 1]))
    assert (writer.stats().written, writer.backend) == (2, "thread")


def test_an_explicit_backend_is_there_at_the_start(tmp_path):
    """Who asks for helpers has them at once."""
    with BackgroundWriter("text", tmp_path, backend="process", max_workers=2) as writer:
        assert len(writer._lifecycle.backend.helpers) == 2
        assert writer.stats().backend_reason == "backend='process'"
    with BackgroundWriter("text", tmp_path, backend="thread") as writer:
        assert list(writer._lifecycle.backend.helpers) == []


def test_a_target_of_ones_own_is_named_as_the_reason():
    """Nothing is left open there."""
    with BackgroundWriter("text", target=MemoryTarget({})) as writer:
        writer.submit("a", "x")
    assert writer.stats().backend_reason == "the target is yours, and may need objects of this process"


def test_one_core_means_threads_from_the_start(tmp_path, monkeypatch):
    """Those of a container's limit count."""
    monkeypatch.setattr(setting_up, "usable_cores", lambda: 1)
    assert BackgroundWriter("text", tmp_path).backend == "thread"
    assert BackgroundWriter("text", tmp_path, backend="process").backend == "process"


def test_threads_in_the_place_of_helpers_are_told_with_the_reason(tmp_path, monkeypatch):
    """What the system lacks."""

    def refuse_helpers(self):
        raise launch.BackendUnavailableError("helper processes need more than there is")

    monkeypatch.setattr("lighter_async.workers.process.backend.ProcessBackend.start", refuse_helpers)
    with pytest.warns(RuntimeWarning, match="no helper processes"):
        with BackgroundWriter("text", tmp_path) as writer:
            writer.submit("a", "x")
    stats = writer.stats()
    assert (stats.backend, stats.written) == ("thread", 1)
    assert stats.backend_reason.startswith("no helper processes: ")


def test_stats_are_shown_in_one_line_without_endless_digits(tmp_path):
    """With what one looks for first, what is not as usual, and what the workers are at its end."""
    with BackgroundWriter("text", tmp_path, backend="thread") as writer:
        writer.submit("a", "x")
    shown = repr(writer.stats())
    assert re.fullmatch(
        r"WriterStats\(accepted=1, written=1, bytes_written=1, open_seconds=\d+\.\d{1,3}, max_workers=1, "
        r"backend='thread'\)",
        shown,
    )
    known = dataclasses.asdict(writer.stats())
    unusual = WriterStats(**{**known, "failed": 2, "pending": 3, "waits": 1, "waited_seconds": 0.12345})
    assert "failed=2, pending=3, bytes_written=1, waits=1, waited_seconds=0.123, open_seconds=" in repr(unusual)


# How much other programs use


def test_a_look_sees_this_process_its_children_and_all_others(tmp_path, monkeypatch):
    """In a /proc that was made up: of two of three cores, with a child and a grandchild."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2}, raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_CLK_TCK": 100}.__getitem__)
    stat = [
        "cpu  99999 9 9 9 9 9 9 9 0 0",
        "cpu0 1000 100 200 50000 600 10 20 70 0 0",
        "cpu1 7777 7 7 7 7 7 7 7 0 0",
        "cpu2 500 0 100 50000 0 0 0 0 0 0",
        "intr 12345 0 0",
    ]
    (tmp_path / "stat").write_text("\n".join(stat))
    for process, tasks, ticks in (("self", {"1": "7", "2": ""}, "300 50 20 30"), ("7", {"7": "8 9"}, "10 20 0 0")):
        for task, children in tasks.items():
            folder = tmp_path / process / "task" / task
            folder.mkdir(parents=True)
            (folder / "children").write_text(children)
        (tmp_path / process / "stat").write_text(f"{process} (a) name) S 1 1 1 0 -1 0 0 0 0 0 {ticks} 20 0 1 0")
    (tmp_path / "8").mkdir()
    (tmp_path / "8" / "stat").write_text("8 (x) S 1 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 1 0")  # 9 has ended
    seen = look(tmp_path)
    assert seen.cores == {0, 2}
    assert seen.all == pytest.approx((1000 + 100 + 200 + 10 + 20 + 70 + 500 + 100) / 100)
    assert seen.own == pytest.approx((300 + 50 + 20 + 30 + 10 + 20 + 5 + 5) / 100)
    assert seen.process == os.getpid()


@pytest.mark.parametrize("stat", [None, "", "cpu0 1 2", "cpu0 a b c d e f g h"])
def test_a_system_that_tells_nothing_is_no_error(tmp_path, stat):
    """Nothing is known then."""
    if stat is not None:
        (tmp_path / "stat").write_text(stat)
    assert look(tmp_path) is None
    assert in_use(None, None) is None


def seen(moment, *, process=1, cores=(0, 1), all_=0.0, own=0.0):
    return Look(process, moment, frozenset(cores), all_, own)


def test_what_others_use_is_what_all_use_less_our_own():
    """On average, and never more than there is."""
    used = in_use(seen(10.0, all_=100.0, own=5.0), seen(12.0, all_=103.0, own=6.0))
    assert used == CoresInUse(cores=2, own=0.5, others=1.0)
    assert used.idle == 0.5
    assert in_use(seen(0.0), seen(1.0, all_=9.0)) == CoresInUse(cores=2, own=0.0, others=2)
    assert in_use(seen(0.0), seen(1.0, all_=1.0, own=1.5)) == CoresInUse(cores=2, own=1.5, others=0.0)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, seen(1.0)),
        (seen(1.0), None),
        (seen(1.0), seen(1.2)),
        (seen(1.0), seen(9.0, process=2)),
        (seen(1.0), seen(9.0, cores=(0,))),
    ],
    ids=["no first", "no second", "too soon", "forked", "other cores"],
)
def test_two_looks_that_tell_nothing_together(before, after):
    """What is not known is not guessed."""
    assert in_use(before, after) is None


@pytest.mark.parametrize(
    ("imported", "before", "now", "used"),
    [
        (seen(0.0), seen(50.0, all_=50.0), seen(51.0, all_=50.5), CoresInUse(cores=2, own=0.0, others=0.5)),
        (seen(0.0), seen(50.0, all_=50.0), seen(50.0, all_=50.0), CoresInUse(cores=2, own=0.0, others=1.0)),
        (seen(0.0), None, seen(50.0, all_=25.0), CoresInUse(cores=2, own=0.0, others=0.5)),
        (seen(0.0), seen(70.0), seen(70.0), None),
        (seen(0.0, process=2), seen(50.0), seen(50.0), None),
        (None, seen(50.0), seen(50.0), None),
        (seen(0.0), seen(50.0), None, None),
    ],
    ids=["since then", "just now", "never", "imported long ago", "imported by the parent", "at no time", "not now"],
)
def test_a_writer_that_is_used_at_once_knows_what_was_used_since_the_import(monkeypatch, imported, before, now, used):
    """If the package was imported a moment ago, as by a script."""
    monkeypatch.setattr(looking, "_at_import", imported)
    monkeypatch.setattr(looking, "look", lambda: now)
    assert in_use_since(before) == used


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="there is no /proc")
def test_a_look_at_this_machine():
    """There is more that all programs have used than this one."""
    seen = looking.look()
    assert seen.all > 0
    assert seen.own > 0
    assert seen.cores == os.sched_getaffinity(0)
