"""Fault runs in a short form: nothing is lost, duplicated or torn. `make soak` runs them for twenty minutes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parent.parent / "soak"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it kills, limits and mounts as Linux does"),
]

BACKENDS = pytest.mark.parametrize("backend", ["process", "thread"])


@pytest.fixture(autouse=True)
def _in_reach(monkeypatch):
    monkeypatch.syspath_prepend(str(SOAK))


def check(tally, *, faults=1):
    """Nothing was lost, and the faults were there."""
    if tally.skipped:
        pytest.skip(tally.skipped)
    assert tally.troubles == []
    assert (tally.lost, tally.duplicated, tally.torn) == (0, 0, 0)
    assert tally.faults >= faults
    assert tally.handed


@BACKENDS
def test_a_job_that_is_killed_again_and_again_stores_every_sample_once(backend, tmp_path):
    """And after each kill there are only whole files, and everything that is recorded; with helpers all handed over."""
    from kills import kills

    check(kills(1, 3, backend, tmp_path, samples=60), faults=3)


@BACKENDS
@pytest.mark.parametrize("kinds", [["shards"], ["rows", "growing rows"], ["table"]], ids=["shards", "array", "table"])
def test_ranks_that_are_killed_again_and_again_store_every_sample_once_in_one_place(kinds, backend, tmp_path):
    """After each kill every sealed shard is read by GNU tar, and what was reported stored by `open_results`."""
    from kills import kills

    check(kills(1, 4, backend, tmp_path, samples=40, kinds=kinds, ranks=2), faults=3)


@BACKENDS
def test_a_target_that_fails_has_each_sample_stored_or_reported(backend, tmp_path):
    """What passes is tried again, what does not is reported, and a helper that dies or hangs is replaced."""
    from failing import failing

    check(failing(5, 1, backend, tmp_path, samples=20))


@BACKENDS
def test_samples_above_a_limit_of_the_system_are_reported_and_stored_by_the_next_run(backend, tmp_path):
    """RLIMIT_FSIZE: smaller ones are not hurt."""
    from space import too_large

    check(too_large(1, 1, backend, tmp_path))


@BACKENDS
def test_what_finds_no_room_is_reported_and_stored_by_the_next_run(backend, tmp_path):
    """A file system of three megabytes."""
    from space import full

    check(full(1, 1, backend, tmp_path))


@BACKENDS
def test_with_wait_for_space_everything_is_stored_once_there_is_room(backend, tmp_path):
    """Somebody else makes it."""
    from space import full_for_a_while

    check(full_for_a_while(1, 1, backend, tmp_path))


@BACKENDS
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forks_while_a_writer_writes_cost_nothing(backend, tmp_path):
    """By hand and by a data loader; a child can use none of it, and holds nobody up."""
    from forks import forks

    check(forks(1, 1, backend, tmp_path), faults=3)


@BACKENDS
def test_four_threads_hand_ten_thousand_samples_over_and_each_is_stored_once(backend, tmp_path):
    """One by one and in batches, at once."""
    from crowd import crowd

    check(crowd(1, 1, backend, tmp_path, samples=10_000))


@BACKENDS
def test_handlers_of_signals_that_raise_or_call_the_writer_cost_nothing(backend, tmp_path):
    """At random moments of every call."""
    from signals import signals

    check(signals(1, 1, backend, tmp_path, samples=300))


def test_a_data_set_that_changes_between_runs_loses_no_case(tmp_path):
    """And neither do tasks that share a directory."""
    from growing import growing

    check(growing(1, 1, "thread", tmp_path, samples=12))


@pytest.mark.long
@BACKENDS
@pytest.mark.parametrize("run", ["clocks", "containers", "without_locks"])
def test_machines_that_are_not_like_this_one_store_every_sample_once(run, backend, tmp_path):
    """Wrong clocks, containers, file systems without locks or links."""
    import elsewhere

    check(getattr(elsewhere, run)(1, 1, backend, tmp_path, samples=24))


def test_a_tally_counts_what_is_lost_duplicated_and_torn(tmp_path):
    """A run that finds something is not taken for a clean one."""
    from tally import Tally

    tally = Tally("none", "thread")
    tally.settle({1, 2, 3, 4}, [1, 1, 2], [2, 3], [1])
    assert (tally.lost, tally.duplicated, tally.torn, tally.is_clean) == (1, 2, 1, False)
    tally = Tally("none", "thread")
    tally.settle({1}, [1, 5], [], [])
    assert not tally.is_clean


def test_the_check_of_a_file_finds_every_kind_of_damage(tmp_path):
    """Half of it, a changed byte, another sample's, and nothing."""
    import torch
    from samples import same, value

    path = tmp_path / "7.pt"
    torch.save(value(7), path)
    assert same(path, 7)
    assert not same(path, 8)
    whole = path.read_bytes()
    for damaged in (
        whole[: len(whole) // 2],
        b"",
        whole.replace(value(7).numpy().tobytes(), value(8).numpy().tobytes()),
    ):
        path.write_bytes(damaged)
        assert not same(path, 7)


def test_the_check_of_a_shard_and_of_an_array_finds_damage(tmp_path):
    """A changed byte, a sample that is there twice, and a shard that is cut."""
    import random
    import shutil

    from kinds import KINDS

    from lighter_async import Origin, Run

    folders = {kind: tmp_path / kind for kind in ("shards", "rows")}
    for kind, folder in folders.items():
        run = Run(id="one", numbered=True)
        with KINDS[kind].writer(folder, 3, random.Random(1), run, backend="thread", max_workers=1) as writer:
            writer.submit_batch(*KINDS[kind].samples(range(3)), origin=Origin(range(3)))
        found = KINDS[kind].look(folder)
        assert (sorted(found.stored), found.torn, found.unsealed, found.strange) == ([0, 1, 2], [], [], [])
        assert KINDS[kind].unreadable(folder, range(4)) == [3]
    shard = next(folders["shards"].glob("*.tar"))
    data = bytearray(shard.read_bytes())
    shutil.copy(shard, shard.with_name("twice.tar"))
    assert len(KINDS["shards"].look(folders["shards"]).stored) > 3
    shard.with_name("twice.tar").write_bytes(data[:700])
    assert "GNU tar does not read" in KINDS["shards"].look(folders["shards"]).strange[0]
    shard.with_name("twice.tar").unlink()
    place = data.index(b"\x93NUMPY") + 128
    data[place] ^= 1
    shard.write_bytes(data)
    assert len(KINDS["shards"].look(folders["shards"]).torn) == 1
    array = folders["rows"] / "a.npy"
    rows = bytearray(array.read_bytes())
    rows[-1] ^= 1
    array.write_bytes(rows)
    assert KINDS["rows"].look(folders["rows"]).torn == [2]


def test_a_run_prints_each_round_and_makes_the_pages_table_anew(tmp_path):
    """And keeps the figures as JSON."""
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- soak: begin -->\nthe last table\n<!-- soak: end -->\nafter\n")
    options = ["--only", "forks", "--backend", "thread", "--minutes", "0.01"]
    files = ["--json", tmp_path / "soak.json", "--page", page, "--folder", tmp_path]
    done = subprocess.run(
        [sys.executable, SOAK / "run.py", *options, *files], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert "round 1," in done.stdout
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "the last table" not in text
    rounds = re.search(r"\| os.fork and DataLoader workers while writing \| thread \| (\d+) \|", text)
    assert rounds is not None
    assert int(rounds[1]) >= 1  # as many as fit
    assert '"lost": 0' in (tmp_path / "soak.json").read_text()
