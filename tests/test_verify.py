"""Comparing a directory with its manifest, and repairing it."""

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
import threading

import pytest
import torch
from harness import DEADLINE, until

from lighter_async import BackgroundWriter, Origin, Run, pending, read_manifest
from lighter_async.cli import main
from lighter_async.manifest.verify import drop, verify
from lighter_async.store import DirectoryStore

pytestmark = pytest.mark.usefixtures("one_core")

COUNT = 8


@pytest.fixture
def folder(tmp_path):
    """Eight texts, some of them in a folder below, named by their index."""
    folder = tmp_path / "out"
    store(folder, range(COUNT))
    return folder


def store(folder, indices, *, text="value", resume=False, rank=0, below="", **options):
    indices = list(indices)
    run = Run(rank=rank, numbered=not below)
    # One worker, so that the lines are in the samples' order.
    options = {"backend": "thread", "max_workers": 1, "resume": resume, "run": run, **options}
    with BackgroundWriter("text", folder, **options) as writer:
        writer.submit_batch([f"{below}{i}" for i in indices], [f"{text} {i}" for i in indices], origin=Origin(indices))


def troubles(folder):
    return {one.file: one.trouble for one in verify(folder).findings}


def report_of(capsys, *arguments):
    """The exit status and the JSON of the command."""
    status = main(["verify", *map(str, arguments), "--json"])
    return status, json.loads(capsys.readouterr().out)


# What may be wrong


def remove(path):
    path.unlink()


def shorten(path):
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"x")


def empty(path):
    path.write_bytes(b"")


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def become_a_folder(path):
    path.unlink()
    path.mkdir()


def become_a_full_folder(path):
    become_a_folder(path)
    (path / "inside").write_text("x")


def become_a_dangling_link(path):
    path.unlink()
    path.symlink_to("nowhere")


def become_a_link_to_itself(path):
    path.unlink()
    path.symlink_to(path.name)


def become_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


DAMAGES = {
    remove: "missing",
    shorten: "wrong size",
    lengthen: "wrong size",
    empty: "wrong size",
    flip_a_bit: "wrong checksum",
    become_a_folder: "unreadable",
    become_a_full_folder: "unreadable",
    become_a_dangling_link: "unreadable",
    become_a_link_to_itself: "unreadable",
    become_a_pipe: "unreadable",
}


def test_what_is_whole_is_sound(folder, capsys):
    """The status is 0, and each file was compared."""
    status, report = report_of(capsys, folder)
    assert status == 0
    assert report["sound"] is True
    assert (report["recorded"], report["checked"], report["findings"], report["counts"]) == (COUNT, COUNT, [], {})
    assert report["bytes"] == sum(path.stat().st_size for path in folder.glob("*.txt"))
    assert report["ranks"] == {"0": {"samples": COUNT, "bytes": report["bytes"]}}
    assert main(["verify", str(folder)]) == 0
    assert "sound" in capsys.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="there are links and pipes of another kind")
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found(folder, capsys, damage):
    """Each kind under its name, for its file alone, and with the status 1."""
    damage(folder / "3.txt")
    assert troubles(folder) == {"3.txt": DAMAGES[damage]} | (
        {"3.txt/inside": "extra"} if damage is become_a_full_folder else {}
    )
    status, report = report_of(capsys, folder)
    assert (status, report["sound"], report["dropped"]) == (1, False, 0)
    finding = report["findings"][0]
    assert (finding["file"], finding["trouble"]) == ("3.txt", DAMAGES[damage])
    assert (finding["loader"], finding["index"]) == (0, 3)
    assert main(["verify", str(folder)]) == 1
    out = capsys.readouterr().out
    assert f"{DAMAGES[damage]}: 3.txt" in out
    assert f"DAMAGED: 1 {DAMAGES[damage]}\n" in out
    assert "--repair" in out


def test_a_folder_that_is_a_file_now_misses_what_was_in_it(tmp_path):
    """It is gone with all that lay below."""
    store(tmp_path, [1, 2], below="a/")
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "a").write_text("x")
    assert troubles(tmp_path) == {"a/1.txt": "missing", "a/2.txt": "missing", "a": "extra"}


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may read anything")
def test_a_file_that_may_not_be_read_is_unreadable(folder):
    """The system's own words are the detail."""
    (folder / "3.txt").chmod(0)
    (finding,) = verify(folder).findings
    assert finding.trouble == "unreadable"
    assert "Permission" in finding.detail


def test_what_the_manifest_does_not_know_is_extra(folder, capsys):
    """That is told, and nothing is damaged."""
    (folder / "notes.md").write_text("mine")
    (folder / "sub").mkdir()
    (folder / "sub" / "more").write_text("mine")
    assert troubles(folder) == {"notes.md": "extra", "sub/more": "extra"}
    assert main(["verify", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "extra: notes.md" in out
    assert "sound" in out


def test_results_of_a_directory_of_their_own_are_not_extra(folder):
    """As masks in a folder beside the table of their scores; a file beside the folder is."""
    store(folder / "sub" / "masks", range(3), below="deep/")
    (folder / "sub" / "more").write_text("mine")
    assert troubles(folder) == {"sub/more": "extra"}


def test_beside_functions_that_write_what_they_like_nothing_is_extra(tmp_path, capsys):
    """Their files are not known, and that is told."""

    def write_two(path, value):
        path.with_suffix(".a").write_text(value)
        path.with_suffix(".b").write_text(value)

    with BackgroundWriter(write_two, tmp_path) as writer:
        writer.submit("one", "x")
    status, report = report_of(capsys, tmp_path)
    assert (status, report["opaque"], report["checked"], report["findings"]) == (0, 1, 0, [])
    assert main(["verify", str(tmp_path)]) == 0
    assert "1 sample written by a function" in capsys.readouterr().out


def test_a_file_that_its_run_could_not_record_is_told_as_such(folder):
    """It is whole, and resuming takes it over."""
    store(folder, [COUNT], resume=True)
    manifest = folder / ".lighter-async" / "manifest-0.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-10])  # of its line
    (folder / f"{COUNT + 1}.text").write_text("not of the run")
    report = verify(folder)
    assert {one.file: one.trouble for one in report.findings} == {
        f"{COUNT}.txt": "not recorded",
        f"{COUNT + 1}.text": "extra",
    }
    assert report.is_sound
    assert report.manifest.torn == 1
    assert list(pending(range(COUNT + 2), folder)) == [COUNT + 1]


def test_each_ranks_files_are_compared(folder, capsys):
    """The report counts them by rank."""
    store(folder, [20, 21], resume=True, rank=1)
    store(folder, [30], resume=True, rank=10)
    (folder / "21.txt").unlink()
    status, report = report_of(capsys, folder)
    assert status == 1
    assert [(rank, found["samples"]) for rank, found in report["ranks"].items()] == [("0", COUNT), ("1", 2), ("10", 1)]
    assert [one["file"] for one in report["findings"]] == ["21.txt"]


def test_a_file_is_compared_with_its_latest_record(folder):
    """What an earlier run has stored under the name is gone."""
    store(folder, [3], text="another value", resume=True)
    assert troubles(folder) == {}


# The command


@pytest.mark.parametrize("options", [[], ["--json"], ["--repair"]])
def test_without_a_manifest_nothing_can_be_told(tmp_path, capsys, options):
    """The status is 2, in one line that says which directory, and nothing is made."""
    (tmp_path / "file").write_text("x")
    for folder, message in ((tmp_path, "has no manifest"), (tmp_path / "none", "there is no directory")):
        assert main(["verify", str(folder), *options]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert message in err
        assert str(folder) in err
        assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_damage_is_shown_before_what_is_only_not_known(folder, capsys):
    """A damaged file is among the twenty that are shown, however many others there are."""
    for number in range(50):
        (folder / f"0-{number}").write_text("x")
    (folder / "7.txt").unlink()
    assert main(["verify", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "missing: 7.txt" in out
    assert "and 31 more; --json lists all" in out


@pytest.mark.skipif(os.name != "posix", reason="such names are no file names there")
def test_any_name_can_be_shown(tmp_path, capsys):
    """On one line, and without control characters, whatever its characters are."""
    names = ["new\nline", "\x1b[31mred", "\udcff", "plain ü"]
    with BackgroundWriter("text", tmp_path) as writer:
        writer.submit_batch(names, ["x"] * len(names))
    for name in names:
        os.unlink(os.path.join(tmp_path, name + ".txt"))
    assert main(["verify", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "missing: new\\nline.txt" in out
    assert "missing: plain ü.txt" in out
    assert "\x1b" not in out
    assert main(["verify", str(tmp_path), "--repair"]) == 0


@pytest.mark.parametrize("workers", [1, 3, 32])
def test_any_number_of_workers_finds_the_same(folder, capsys, workers):
    """Each damaged file once."""
    for number in (1, 5):
        flip_a_bit(folder / f"{number}.txt")
    status, report = report_of(capsys, folder, "--workers", workers)
    assert status == 1
    assert [one["file"] for one in report["findings"]] == ["1.txt", "5.txt"]


def test_a_big_directory_is_compared_as_a_whole(tmp_path):
    """Every file of thousands, in whichever thread, and each is counted once."""
    count, ticks = 5000, []
    with BackgroundWriter("text", tmp_path, backend="process", queue_size=1000) as writer:
        for start in range(0, count, 500):
            numbers = range(start, start + 500)
            writer.submit_batch([f"{i % 7}/{i}" for i in numbers], [str(i) for i in numbers], origin=Origin(numbers))
    damaged = {f"{i % 7}/{i}.txt" for i in range(0, count, 97)}
    for file in damaged:
        flip_a_bit(tmp_path / file)
    report = verify(tmp_path, workers=8, begin=lambda total: lambda: ticks.append(total))
    assert {one.file for one in report.findings} == damaged
    assert ticks == [count] * count
    assert report.checked == count


def test_there_is_a_bar_on_a_terminal_alone(folder):
    """A log gets the title and no control characters, and stdout the report."""
    command = [sys.executable, "-m", "lighter_async.cli", "verify", str(folder)]
    plain = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE * 2)
    assert plain.returncode == 0
    assert "\x1b" not in plain.stdout + plain.stderr
    assert " ".join(plain.stderr.split()).startswith(f"Verifying {COUNT} records of")
    assert "sound" in plain.stdout

    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # which is how a terminal ends
            while data := os.read(ours, 4096):
                shown += data
        os.close(ours)
        assert process.stdout.read().endswith(b"unchanged\n")
        assert process.wait(DEADLINE) == 0
    assert b"\x1b[" in shown
    assert f"{COUNT}/{COUNT}".encode() in shown


# Repairing


def test_what_was_repaired_is_pending_and_stored_again(folder, capsys):
    """Damage, repair, resume: then the directory is sound and holds what it held."""
    before = {path.name: path.read_bytes() for path in folder.glob("*.txt")}
    (folder / "1.txt").unlink()
    shorten(folder / "2.txt")
    flip_a_bit(folder / "4.txt")
    become_a_dangling_link(folder / "5.txt")
    with pytest.warns(UserWarning, match="are gone"):
        assert list(pending(range(COUNT), folder)) == []

    status, report = report_of(capsys, folder, "--repair")
    assert (status, report["sound"], report["dropped"], report["not_removed"]) == (0, False, 4, [])
    assert sorted(path.name for path in folder.glob("*.txt")) == ["0.txt", "3.txt", "6.txt", "7.txt"]
    assert list(pending(range(COUNT), folder)) == [1, 2, 4, 5]
    assert report_of(capsys, folder)[1]["sound"] is True
    for line in (folder / ".lighter-async" / "manifest-0.jsonl").read_text().splitlines():
        json.loads(line)

    todo = list(pending(range(COUNT), folder))
    with BackgroundWriter("text", folder, resume=True, run=Run(numbered=True)) as writer:
        writer.submit_batch([str(i) for i in todo], [f"value {i}" for i in todo], origin=Origin(todo))
    assert list(pending(range(COUNT), folder)) == []
    assert report_of(capsys, folder)[1]["checked"] == COUNT
    assert troubles(folder) == {}
    assert {path.name: path.read_bytes() for path in folder.glob("*.txt")} == before


def test_repairing_tells_what_to_do_next(folder, capsys):
    """A resumed run computes it again; what is sound needs nothing."""
    assert main(["verify", str(folder), "--repair"]) == 0
    assert "dropped" not in capsys.readouterr().out
    (folder / "1.txt").unlink()
    assert main(["verify", str(folder), "--repair"]) == 0
    assert "dropped 1: run again with resume=True" in capsys.readouterr().out


def test_extra_files_are_not_removed(folder):
    """They are the user's own."""
    (folder / "mine").write_text("x")
    (folder / "1.txt").unlink()
    assert main(["verify", str(folder), "--repair"]) == 0
    assert (folder / "mine").read_text() == "x"


def test_a_folder_in_a_files_place_is_left_to_the_user(folder, capsys):
    """Its sample is pending, and the status says that something is still to be done."""
    become_a_full_folder(folder / "1.txt")
    (folder / "2.txt").unlink()
    flip_a_bit(folder / "3.txt")
    assert main(["verify", str(folder), "--repair"]) == 1
    assert "has to be removed by hand" in capsys.readouterr().err
    assert (folder / "1.txt" / "inside").exists()
    assert not (folder / "3.txt").exists()
    assert list(pending(range(COUNT), folder)) == [1, 2, 3]


def test_damage_of_several_ranks_is_repaired_in_the_manifest_of_each(folder):
    """A record is taken back behind itself, whatever the clocks of the ranks' machines say."""
    store(folder, [20], resume=True, rank=1)
    manifest = folder / ".lighter-async" / "manifest-1.jsonl"
    header, line = manifest.read_text().splitlines()
    record = json.loads(line)
    manifest.write_text(f"{header}\n{json.dumps(record | {'time': record['time'] + 3600})}\n")
    for number in (3, 20):
        (folder / f"{number}.txt").unlink()
    assert drop(verify(folder)) == []
    assert read_manifest(folder).done() == set(range(COUNT)) - {3}
    store(folder, [20], resume=True, rank=1)
    assert read_manifest(folder).done() == {*range(COUNT), 20} - {3}


def test_a_torn_manifest_can_be_repaired(folder):
    """What is taken back stands on a line of its own."""
    manifest = folder / ".lighter-async" / "manifest-0.jsonl"
    manifest.write_bytes(manifest.read_bytes() + b'{"samples":1,"names":["torn')
    (folder / "1.txt").unlink()
    assert main(["verify", str(folder), "--repair"]) == 0
    assert read_manifest(folder).done() == set(range(COUNT)) - {1}


def test_a_manifest_that_cannot_be_written_to_costs_no_file(folder, capsys, monkeypatch):
    """Nothing is removed that would still be said to be stored."""

    def fail(log, records):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lighter_async.manifest.verify.ManifestLog.drop", fail)
    flip_a_bit(folder / "1.txt")
    assert main(["verify", str(folder), "--repair"]) == 1
    assert "nothing was dropped" in capsys.readouterr().err
    assert (folder / "1.txt").exists()


# While somebody writes


def test_a_directory_that_is_being_written_is_not_repaired(folder, capsys):
    """What looks damaged may be stored at this moment."""
    (folder / "1.txt").unlink()
    for backend in ("thread", "process"):
        with BackgroundWriter("text", folder, backend=backend, resume=True):
            assert main(["verify", str(folder), "--repair"]) == 2
            assert "a writer is at work" in capsys.readouterr().err
            status, report = report_of(capsys, folder)
            assert (status, report["in_use"]) == (1, True)
    assert report_of(capsys, folder)[1]["in_use"] is False
    assert main(["verify", str(folder), "--repair"]) == 0


def test_the_lock_of_a_writer_that_was_killed_is_nobodys(folder):
    """It is free, so the directory can be repaired."""
    (folder / ".lighter-async" / "0123456789ab.lock").write_text("{}")
    assert main(["verify", str(folder), "--repair"]) == 0
    (folder / ".lighter-async" / "0123456789ab.lock").unlink()


def test_files_that_are_replaced_meanwhile_are_not_damaged(tmp_path):
    """Each is compared with what is recorded of it by then."""
    count, stop, rounds = 40, threading.Event(), []
    store(tmp_path, range(count))

    def rewrite():
        number = 0
        while not stop.is_set():
            number += 1
            store(tmp_path, range(count), text="x" * number, resume=True)
            rounds.append(number)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        looks = 0
        while len(rounds) < 3 or looks < 10:
            looks += 1
            damaged = verify(tmp_path).damaged
            # A file that was stored and whose line is not written yet may be taken for damaged, for a moment.
            assert not damaged or verify_again(tmp_path, damaged), damaged
    finally:
        stop.set()
        writer.join(DEADLINE)
    assert troubles(tmp_path) == {}


def verify_again(folder, damaged):
    files = {one.file for one in damaged}
    found = []

    def is_gone():
        found[:] = [one for one in verify(folder).damaged if one.file in files]
        files.intersection_update(one.file for one in found)
        return not files

    until(is_gone, "damage that goes away by itself")
    return True


def test_files_that_are_stored_meanwhile_are_known(folder, monkeypatch):
    """Between reading the manifest and looking for files a writer goes on."""
    real = DirectoryStore.objects

    def objects_later(self, **options):
        monkeypatch.undo()  # taking over what is not recorded looks for files as well
        store(folder, [100, 101], resume=True)
        return real(self, **options)

    monkeypatch.setattr(DirectoryStore, "objects", objects_later)
    report = verify(folder)
    assert report.findings == []
    assert report.checked == COUNT + 2


def test_a_file_that_is_replaced_while_it_is_compared_is_compared_again(folder, monkeypatch):
    """The first look finds the new file and the old record."""
    real, looks = DirectoryStore.compare, []

    def compare(self, place):
        if not looks:
            store(folder, [0], text="something new", resume=True)
        looks.append(place.object)
        return real(self, place)

    monkeypatch.setattr(DirectoryStore, "compare", compare)
    report = verify(folder, workers=1)
    assert report.findings == []
    assert looks.count("0.txt") == 2


def test_tensors_are_stored_again_as_they_were(tmp_path):
    """A .pt file that was damaged holds its tensor again, and the others are not touched."""
    values = torch.arange(20.0).reshape(4, 5)
    for resume in (False, True):
        with BackgroundWriter("tensor", tmp_path, resume=resume, run=Run(numbered=True)) as writer:
            todo = list(pending(range(4), tmp_path)) if resume else list(range(4))
            writer.submit_batch([str(i) for i in todo], values[todo], origin=Origin(todo))
        if not resume:
            before = {path.name: os.stat(path).st_ino for path in tmp_path.glob("*.pt")}
            flip_a_bit(tmp_path / "2.pt")
            assert drop(verify(tmp_path)) == []
    assert todo == [2]
    assert torch.equal(torch.stack([torch.load(tmp_path / f"{i}.pt") for i in range(4)]), values)
    assert all(before[f"{i}.pt"] == os.stat(tmp_path / f"{i}.pt").st_ino for i in (0, 1, 3))


def test_pending_warns_of_results_that_were_removed(tmp_path):
    """They count as done, since the manifest decides, but hardly anybody means that."""
    with BackgroundWriter("text", tmp_path, backend="thread") as writer:
        writer.submit_batch(["a", "b"], ["1", "2"], origin=Origin([0, 1]))
    assert list(pending(range(3), tmp_path, names="abc")) == [2]
    (tmp_path / "b.txt").unlink()
    told = rf"1 of 2 files that were looked at are gone from '{tmp_path}', such as 'b\.txt', .* {tmp_path} --repair "
    with pytest.warns(UserWarning, match=told) as found:
        assert list(pending(range(3), tmp_path, names="abc")) == [2]
    assert found[0].filename == __file__
    (tmp_path / "a.txt").unlink()
    with pytest.warns(UserWarning, match="2 of 2 files that were looked at are gone"):
        pending(range(3), tmp_path, names="abc")


# Several directories


@pytest.fixture
def above(tmp_path):
    """Two directories of results, one of which is damaged, below a folder that has none of its own."""
    above = tmp_path / "all"
    store(above / "masks", range(2))
    store(above / "deep" / "scores", range(3))
    (above / "deep" / "scores" / "1.txt").unlink()
    (above / "notes").mkdir()
    (above / "notes" / "mine.md").write_text("mine")
    return above


def test_several_directories_are_compared_in_one_call(above, capsys):
    """Each with its own report, then how many are sound; the status is the worst one."""
    masks, scores = above / "masks", above / "deep" / "scores"
    assert main(["verify", str(masks), str(scores)]) == 1
    out = capsys.readouterr().out
    assert f"{masks}: 2 files, " in out
    assert f"{scores}: 3 files, " in out
    assert out.endswith(f"2 directories: 1 sound, 1 DAMAGED\n  DAMAGED: {scores}\n")
    assert main(["verify", str(masks), str(masks), str(above / "nothing")]) == 2
    told = capsys.readouterr()
    assert told.out.endswith(f"2 directories: 1 sound, 1 not compared\n  not compared: {above / 'nothing'}\n")
    assert "there is no directory" in told.err


def test_below_a_folder_without_results_they_are_found(above, capsys):
    """And named, by their paths; they can be repaired together."""
    assert main(["verify", str(above)]) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"{above} has no manifest; 2 directories of results (deep/scores, masks) below it:\n")
    assert f"{above / 'masks'}: 2 files, " in out
    assert f"  DAMAGED: {above / 'deep' / 'scores'}\n" in out
    assert main(["verify", str(above), "--repair"]) == 0
    assert capsys.readouterr().out.endswith("2 directories: 2 sound or repaired\n")
    assert main(["verify", str(above)]) == 0


def test_several_directories_are_a_list_in_json(above, capsys):
    """Of one it is an object; one that cannot be compared says why."""
    assert main(["verify", str(above), str(above / "nothing"), "--json"]) == 2
    reports = json.loads(capsys.readouterr().out)
    assert [(one["directory"], one["sound"]) for one in reports] == [
        (str(above / "deep" / "scores"), False),
        (str(above / "masks"), True),
        (str(above / "nothing"), False),
    ]
    assert reports[0]["counts"] == {"missing": 1}
    assert "there is no directory" in reports[2]["error"]


def test_results_below_a_directory_of_results_are_told_of(above, capsys):
    """They were not compared."""
    store(above, [0])
    status, report = report_of(capsys, above)
    assert (status, report["checked"]) == (0, 1)
    assert report["below"] == [str(above / "deep" / "scores"), str(above / "masks")]
    assert main(["verify", str(above)]) == 0
    told = "  2 directories of results (deep/scores, masks) below were not compared; name them, too\n"
    assert told in capsys.readouterr().out


def test_a_folder_without_any_results_says_so(tmp_path, capsys):
    """As before there were several."""
    assert main(["verify", str(tmp_path)]) == 2
    assert "has no manifest" in capsys.readouterr().err


def test_a_repair_says_the_same_of_what_is_wrong_and_what_it_has_done(folder, capsys):
    """In the words of what it would do."""
    (folder / "1.txt").unlink()
    shorten(folder / "2.txt")
    assert main(["verify", str(folder)]) == 1
    before = capsys.readouterr().out.splitlines()
    assert before[-2:] == [
        "DAMAGED: 1 missing, 1 wrong size",
        "--repair drops what is damaged: run again with resume=True, and it is computed again",
    ]
    assert main(["verify", str(folder), "--repair"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        *before[:-1],
        "dropped 2: run again with resume=True, and they are computed again",
    ]
