"""Watching a run: what is printed and drawn while it goes on, and that its records are read once."""

import io
import subprocess
import sys

import pytest
import torch
from harness import DEADLINE
from rich.console import Console

from lighter_async import BackgroundWriter, Origin, WriteError, encoder
from lighter_async.cli.watch import run_watch
from lighter_async.cli.watch.counts import Watched
from lighter_async.cli.watch.view import as_line, as_screen
from lighter_async.manifest import ManifestLog
from lighter_async.manifest.following import Following
from lighter_async.manifest.line import Loader, Stored
from lighter_async.types import Run


def clock():
    """Ten seconds pass from one look to the next."""
    clock.now += 10.0
    return clock.now


clock.now = 0.0


def watched_lines(directory, *steps):
    """What is printed where there is no terminal, while a step is done in each pause."""
    file = io.StringIO()
    todo = list(steps)
    assert run_watch(directory, console=Console(file=file), pause=lambda seconds: todo.pop(0)(), clock=clock) == 0
    assert todo == []
    return file.getvalue().splitlines()


def test_a_line_is_printed_at_each_look_until_the_run_ends(tmp_path):
    """From before it has begun: samples, bytes, both a second, failures and the last name."""
    writers = []

    def begin():
        writers.append(BackgroundWriter("text", tmp_path / "results", backend="thread"))
        writers[0].submit("a\nb", "1234")
        writers[0].flush()

    def go_on():
        writers[0].submit_batch(list("cdefghijkl"), ["12345678"] * 10)
        writers[0].flush()

    lines = watched_lines(tmp_path / "results", begin, go_on, lambda: writers[0].close())
    assert lines == [
        f"waiting for a run to begin in {tmp_path / 'results'}",
        "run 1; 1 sample, 0.0 MB; 0.1 samples/s, 0.00 MB/s; 0 failed; last a\\nb",
        "run 1; 11 samples, 0.0 MB; 1.0 samples/s, 0.00 MB/s; 0 failed; last l",
        "run 1, not at work; 11 samples, 0.0 MB; 0 failed; last l",
    ]


def test_where_no_run_is_at_work_the_last_one_is_shown_once(tmp_path):
    """It is not waited for another one."""
    for number in range(2):
        with BackgroundWriter("text", tmp_path, resume=True, backend="thread") as writer:
            writer.submit(f"name {number}", "x")
    assert watched_lines(tmp_path) == [
        "run 2, not at work; 1 sample, 0.0 MB; with earlier runs 2 samples, 0.0 MB; 0 failed; last name 1"
    ]


def test_a_run_that_goes_on_shows_what_is_stored_with_the_runs_before_it(tmp_path):
    """Also where nothing was left to do; names are its own, and what a run that began anew replaces counts no more."""
    runs = [("a", 400_000, False), ("b", 1_000_000, False), ("c", 500_000, True), (None, 0, True)]
    for name, size, resume in runs:
        with BackgroundWriter("text", tmp_path, resume=resume, if_exists="overwrite", backend="thread") as writer:
            if name is not None:
                writer.submit_batch([name, f"{name}2"], ["x" * size] * 2)
    assert watched_lines(tmp_path) == [
        "run 4, not at work; 0 samples, 0.0 MB; with earlier runs 4 samples, 3.0 MB; 0 failed"
    ]
    watched = Watched(tmp_path, clock=clock)
    watched.look()
    text = drawn(watched)
    assert "0 samples, 0.0 MB; with earlier runs 4 samples, 3.0 MB" in text
    assert "last" not in text
    with BackgroundWriter("text", tmp_path, if_exists="overwrite", backend="thread") as writer:
        writer.submit("d", "x")
    assert watched_lines(tmp_path) == ["run 5, not at work; 1 sample, 0.0 MB; 0 failed; last d"]


def test_the_last_names_are_those_of_the_runs_that_are_shown(tmp_path, monkeypatch):
    """In the order in which they were recorded, whichever of the runs that are at work has done so."""
    monkeypatch.setattr("lighter_async.manifest.log.time", clock)
    with BackgroundWriter("text", tmp_path, backend="thread") as before:
        before.submit("before", "x")
    with (
        BackgroundWriter("text", tmp_path, resume=True, backend="thread") as one,
        BackgroundWriter("text", tmp_path, resume=True, backend="thread") as other,
    ):
        watched = Watched(tmp_path, clock=clock)
        for number in range(7):
            writer = one if number % 3 else other
            writer.submit(number, "x")
            writer.flush()
            if number == 1:
                watched.look()
                assert watched.names() == ["0", "1"]
        watched.look()
        assert watched.names() == ["2", "3", "4", "5", "6"]


def test_failures_are_counted_as_they_come(tmp_path):
    """Those of the runs that are shown, with the last error."""

    def refuse(value):
        raise ValueError(f"not {value}")

    writer = BackgroundWriter(encoder(suffix=".x")(refuse), tmp_path, backend="thread", on_error="continue")
    watched = Watched(tmp_path, clock=clock)
    writer.submit("a", 1)
    with pytest.raises(WriteError):
        writer.flush()
    assert watched.look()
    assert "; 1 failed" in as_line(watched)
    assert "ValueError: not 1" in drawn(watched)
    writer.close()
    assert not watched.look()


def drawn(watched):
    file = io.StringIO()
    Console(file=file, width=200).print(as_screen(watched))
    return file.getvalue()


def test_ranks_are_drawn_each_and_how_much_of_the_data_set_is_done(tmp_path):
    """Each rank writes a manifest of its own, and names are no markup."""
    run = Run(id="run", rank=0, world_size=2), Run(id="run", rank=1, world_size=2)
    logs = [ManifestLog(tmp_path, one, writer="text", suffix=".txt") for one in run]
    watched = Watched(tmp_path, clock=clock)
    for rank, log in enumerate(logs):
        log.begin(0)
        log.describe([Loader(10, None)], named=True)
        for number in range(2 + rank):
            name = f"[bold]{rank}-{number}"
            log.append([Stored(0, f"{name}.txt", 1_000_000, "0" * 16)], [name], [None], Origin([number]))
    watched.look()
    text = drawn(watched)
    assert "5 of 10 samples (50%), 5.0 MB" in text
    assert "2 ranks" in text
    rows = [line.split()[:3] for line in text.splitlines()]
    assert ["0", "2", "2.0"] in rows
    assert ["1", "3", "3.0"] in rows
    assert "[bold]1-2" in text
    for log in logs:
        log.close()


def test_a_terminal_is_drawn_on_until_ctrl_c(tmp_path):
    """Which is how one leaves it, so it is no failure."""
    with BackgroundWriter("text", tmp_path, backend="thread") as writer:
        writer.submit("a", "x")
        writer.flush()

        def interrupt(seconds):
            raise KeyboardInterrupt

        file = io.StringIO()
        console = Console(file=file, force_terminal=True, width=100, _environ={"TERM": "xterm"})
        assert run_watch(tmp_path, console=console, pause=interrupt) == 0
        assert "1 sample, 0.0 MB" in file.getvalue()
        assert "last: a" in file.getvalue()


def test_a_dumb_terminal_gets_lines(tmp_path):
    """Since its cursor cannot be moved."""
    with BackgroundWriter("text", tmp_path, backend="thread") as writer:
        writer.submit("a", "x")
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, _environ={"TERM": "dumb"})
    assert run_watch(tmp_path, console=console) == 0
    assert file.getvalue() == "run 1, not at work; 1 sample, 0.0 MB; 0 failed; last a\n"


def test_the_command_follows_a_run_of_another_process(tmp_path):
    """It ends with the run, by itself."""
    with BackgroundWriter("tensor", tmp_path, backend="thread") as writer:
        command = [sys.executable, "-m", "lighter_async.cli", "watch", str(tmp_path), "--seconds", "0.01"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert any("0 samples" in line for line in iter(process.stdout.readline, ""))
            writer.submit_batch(list("ab"), torch.zeros(2, 3))
            writer.flush()
            assert any("2 samples" in line for line in iter(process.stdout.readline, ""))
            writer.close()
            assert process.stdout.read().splitlines()[-1].startswith("run 1, not at work; 2 samples")
            assert process.wait(DEADLINE) == 0


def test_nobody_reading_any_more_ends_the_command_quietly(tmp_path):
    """As with `head`."""
    with BackgroundWriter("text", tmp_path, backend="thread"):
        command = [sys.executable, "-m", "lighter_async.cli", "watch", str(tmp_path), "--seconds", "0.01"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == ""
            assert process.wait(DEADLINE) == 0


def test_a_line_is_read_once_it_is_whole_and_only_once(tmp_path):
    """Also when it comes in pieces, and beside one that is too long to be ours."""
    folder = tmp_path / ".lighter-async"
    folder.mkdir()
    path = folder / "manifest-0.jsonl"
    following = Following(tmp_path)
    assert list(following.read()) == []
    line = b'{"sealed":"a.tar","run":"run","time":1.0}\n'

    def gained(more):
        with open(path, "ab") as file:
            file.write(more)
        return [one.entry.object for one in following.read()]

    assert gained(line) == ["a.tar"]
    assert gained(b"") == []
    assert gained(line[:20]) == []
    assert gained(line[20:] + line) == ["a.tar", "a.tar"]
    assert gained(b"x" * (1 << 20)) == []
    assert gained(b"x" * 10) == []
    assert gained(b"x\n" + line) == ["a.tar"]
    assert gained(b"torn\n" + line) == ["a.tar"]


def test_a_manifest_that_begins_anew_is_counted_anew(tmp_path):
    """Its writer makes another one where it was removed, so what the first has said does not count twice."""
    for folder, names in (("first", "abc"), ("second", "d")):
        log = ManifestLog(tmp_path / folder, Run(id="run"), writer="text", suffix=".txt")
        log.begin(0)
        for name in names:
            log.append([Stored(0, f"{name}.txt", 1, "0" * 16)], [name], [None], None)
        log.close()
    watched = Watched(tmp_path / "first", clock=clock)
    watched.look()
    assert watched.total().samples == 3
    manifest = ".lighter-async/manifest-0.jsonl"
    (tmp_path / "second" / manifest).replace(tmp_path / "first" / manifest)
    watched.look()
    assert watched.total().samples == 1
