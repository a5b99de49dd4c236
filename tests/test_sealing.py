"""Samples that share a file: settled first, sealed later, and read, verified and repaired by their places."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from lighter_async import (
    BackgroundWriter,
    Origin,
    Run,
    WorkerDiedError,
    WriteError,
    encoder,
    open_results,
    pending,
    read_manifest,
)
from lighter_async.manifest import ManifestLog
from lighter_async.manifest.verify import drop, verify
from lighter_async.store import DirectoryStore
from lighter_async.target_and_record import Session
from lighter_async.types import Batch, Unit
from lighter_async.workers.worker_job import Job
from lighter_async.workers.writing import fail_unit
from tests.sent_to_helpers import encode_text_and_die_once
from tests.volumes import ENDING, HEADER, SmallVolumes, UnsealableVolumes, VolumeLane, Volumes


@encoder(suffix=".txt", decode=bytes.decode)
def encode_text(value):
    """The text itself."""
    return value.encode()


@pytest.fixture(params=["thread", "process"])
def backend(request):
    return request.param


def names_of(folder, ending=ENDING):
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(ending))


def check_whole(folder, values):
    """Each sample is stored once, and a volume holds nothing else."""
    records = list(read_manifest(folder).records)
    assert sorted(record.name for record in records) == sorted(values)
    results = open_results(folder, decode=encode_text)
    assert {name: results[name] for name in results} == values
    assert verify(folder).is_sound
    assert [finding for finding in verify(folder).findings if finding.trouble == "extra"] == []
    for name in {record.file for record in records}:
        there = folder / name if (folder / name).exists() else folder / f"{name}.part"
        places = sorted((record.offset, record.bytes) for record in records if record.file == name)
        ends = [len(HEADER), *(offset + size for offset, size in places)]
        assert [offset for offset, _ in places] == ends[:-1]
        assert there.stat().st_size == ends[-1]


def test_samples_are_sealed_at_the_end(tmp_path, backend):
    """Until then they lie in parts, and are read from there."""
    values = {f"s{number}": f"value {number}" for number in range(20)}
    with BackgroundWriter(encode_text, target=Volumes(tmp_path), backend=backend, max_workers=2) as writer:
        writer.submit_batch(list(values), list(values.values()))
        writer.flush()
        assert names_of(tmp_path) == []
        check_whole(tmp_path, values)
    assert names_of(tmp_path, ".part") == []
    assert set(names_of(tmp_path)) == set(read_manifest(tmp_path).sealed) != set()
    check_whole(tmp_path, values)


def test_flush_seals_where_it_is_told_to(tmp_path, backend):
    """All that was stored until then; what comes later goes into new objects."""
    with BackgroundWriter(encode_text, target=Volumes(tmp_path), backend=backend, max_workers=2) as writer:
        for turn in range(3):
            writer.submit_batch([f"{turn}-{number}" for number in range(8)], ["x" * number for number in range(1, 9)])
            writer.flush(seal=True)
            assert names_of(tmp_path, ".part") == []
            assert len(read_manifest(tmp_path)) == 8 * (turn + 1)
        sealed = names_of(tmp_path)
    assert names_of(tmp_path) == sealed
    values = {f"{turn}-{number}": "x" * (number + 1) for turn in range(3) for number in range(8)}
    check_whole(tmp_path, values)


def test_a_wait_for_seals_ends_when_the_helpers_are_stopped_meanwhile(tmp_path):
    """Whoever waits returns, though what it waits on was closed under it."""
    with BackgroundWriter(encode_text, target=Volumes(tmp_path), backend="process", max_workers=1) as writer:
        writer.submit("a", "one")
        writer.flush()
        backend = writer._lifecycle.backend
        (member,) = backend._helpers.members
        os.kill(member.process.popen.pid, signal.SIGSTOP)  # so that it seals nothing before the wait
        events = backend._transport.events

        class StoppedMeanwhile:
            """Closes the events between the look whether there is something to wait for, and the wait."""

            def poll(self, seconds):
                backend._transport.events = events
                os.kill(member.process.popen.pid, signal.SIGCONT)
                backend.stop()
                return events.poll(seconds)

            def __getattr__(self, name):
                return getattr(events, name)

        backend._transport.events = StoppedMeanwhile()
        backend.seal()
    check_whole(tmp_path, {"a": "one"})


def test_an_object_that_is_full_is_sealed_by_its_worker(tmp_path, backend):
    """Between two units; no sample waits for that."""
    values = {f"s{number}": f"value {number}" * 10 for number in range(40)}
    with BackgroundWriter(encode_text, target=SmallVolumes(tmp_path), backend=backend, max_workers=2) as writer:
        for name, value in values.items():
            writer.submit(name, value)
    assert len(names_of(tmp_path)) >= 10
    check_whole(tmp_path, values)


def test_a_helper_that_dies_leaves_no_sample_out_and_none_twice(tmp_path):
    """The one in its place cuts off what it had not recorded, and does it again."""
    marker = tmp_path / "killed"
    out = tmp_path / "out"
    values = {f"s{number}": f"value {number}" for number in range(60)}
    writer = BackgroundWriter(encode_text_and_die_once, target=Volumes(out), backend="process", max_workers=2)
    with writer:
        for start in range(0, 60, 6):
            batch = list(values)[start : start + 6]
            fatal = f"|{marker}" if start == 30 else ""
            writer.submit_batch(batch, [values[name] + (fatal if name == "s33" else "") for name in batch])
    assert marker.exists()
    assert names_of(out, ".part") == []
    check_whole(out, values)


KILLED = """
    import os, signal, sys
    from lighter_async import BackgroundWriter, Origin
    from tests.test_sealing import encode_text
    from tests.volumes import Volumes
    writer = BackgroundWriter(encode_text, target=Volumes(sys.argv[1]), backend="thread", max_workers=1)
    writer.submit_batch(["a", "b"], ["one", "two"], origin=Origin([0, 1]))
    writer.flush()
    part = next(name for name in os.listdir(sys.argv[1]) if name.endswith(".part"))
    with open(os.path.join(sys.argv[1], part), "ab") as file:
        file.write(b"half of a unit that was never recorded")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_job_has_settled_counts(tmp_path):
    """It is read as it lies, and the next writer cuts off what was not recorded, and seals it."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert names_of(tmp_path) == []
    results = open_results(tmp_path, decode=encode_text)
    assert dict(results) == {"a": "one", "b": "two"}
    assert verify(tmp_path).is_sound
    assert list(pending(range(3), tmp_path, names=["a", "b", "c"])) == [2]
    with BackgroundWriter(encode_text, target=Volumes(tmp_path), resume=True, max_workers=1) as writer:
        writer.submit("c", "three", origin=Origin([2]))
    assert len(names_of(tmp_path)) == 2
    check_whole(tmp_path, {"a": "one", "b": "two", "c": "three"})


def writer_that_cannot_record_b(folder, monkeypatch):
    whole = ManifestLog.append

    def refuse(log, stored, names, *rest, **others):
        if "b" in names:
            raise PermissionError(13, "no more lines here")
        whole(log, stored, names, *rest, **others)

    monkeypatch.setattr(ManifestLog, "append", refuse)
    return BackgroundWriter(encode_text, target=Volumes(folder), backend="thread", max_workers=1, on_error="continue")


def test_what_cannot_be_recorded_is_cut_off(tmp_path, monkeypatch):
    """It has failed, so it lies nowhere; and the worker goes on."""
    writer = writer_that_cannot_record_b(tmp_path, monkeypatch)
    writer.submit("a", "one")
    writer.submit_batch(["b", "c"], ["two", "three"])
    writer.submit("d", "four")
    with pytest.raises(WriteError, match=r"2 samples were not written: .*no more lines here"):
        writer.close()
    assert (writer.stats().written, writer.stats().failed) == (2, 2)
    check_whole(tmp_path, {"a": "one", "d": "four"})


def test_what_can_neither_be_recorded_nor_cut_off_ends_no_worker(tmp_path, monkeypatch, capfd):
    """It has failed, and is told of; what comes after it is stored."""
    writer = writer_that_cannot_record_b(tmp_path, monkeypatch)
    writer.submit("a", "one")
    writer.flush()
    monkeypatch.setattr(VolumeLane, "recover", refuse_to_recover)
    writer.submit("b", "two")
    writer.submit("c", "three")
    with pytest.raises(WriteError, match=r"1 sample was not written: .*no more lines here"):
        writer.close()
    assert (writer.stats().written, writer.stats().failed) == (2, 1)
    assert "cannot be cut off (PermissionError: [Errno 13] nothing is cut here)" in capfd.readouterr().err
    assert dict(open_results(tmp_path, decode=encode_text)) == {"a": "one", "c": "three"}
    assert verify(tmp_path).is_sound


def refuse_to_recover(lane, ends):
    raise PermissionError(13, "nothing is cut here")


def test_a_unit_of_a_worker_that_died_is_failed_without_its_manifest(tmp_path, monkeypatch):
    """Failing a unit happens under locks, where nothing is read."""

    def refuse(log, names):
        raise AssertionError("the manifest was read")

    monkeypatch.setattr(ManifestLog, "recorded", refuse)
    session = Session(Volumes(tmp_path), ManifestLog(tmp_path, Run(), writer="text", suffix=".txt"))
    job = Job(encode_text, session)
    unit = Unit(Batch(["a", "b"], None, 0, 2), 0, 2, redelivered=True)
    result = fail_unit(job, unit, WorkerDiedError("it died"), 3)
    assert [failure.name for failure in result.failures] == ["a", "b"]


def test_what_cannot_be_sealed_costs_no_sample(tmp_path, backend, capfd):
    """It is said, and all of it is read from where it lies."""
    with BackgroundWriter(encode_text, target=UnsealableVolumes(tmp_path), backend=backend) as writer:
        writer.submit("a", "one")
    assert writer.stats().written == 1
    assert "cannot be sealed yet (PermissionError: [Errno 13] no new names here)" in capfd.readouterr().err
    check_whole(tmp_path, {"a": "one"})
    with BackgroundWriter(encode_text, target=Volumes(tmp_path), resume=True) as writer:
        writer.submit("b", "two")
    assert names_of(tmp_path, ".part") == []
    check_whole(tmp_path, {"a": "one", "b": "two"})


def test_a_job_that_is_about_to_be_killed_does_not_wait_for_sealing(tmp_path, backend):
    """Everything is stored, and the next writer seals it."""
    writer = BackgroundWriter(encode_text, target=Volumes(tmp_path), backend=backend, max_workers=1)
    writer.submit_batch(["a", "b"], ["one", "two"])
    assert writer.close_by(60) == 0
    assert names_of(tmp_path) == []
    check_whole(tmp_path, {"a": "one", "b": "two"})


def test_repair_drops_one_sample_and_leaves_the_others_of_its_file(tmp_path):
    """A line takes it back, so that it is computed again; the file is not touched."""
    values = {f"s{number}": f"value {number}" for number in range(5)}
    with BackgroundWriter(encode_text, target=Volumes(tmp_path), max_workers=1) as writer:
        writer.submit_batch(list(values), list(values.values()), origin=Origin(range(5)))
    (volume,) = names_of(tmp_path)
    record = open_results(tmp_path).record("s3")
    data = bytearray((tmp_path / volume).read_bytes())
    data[record.offset] ^= 1
    (tmp_path / volume).write_bytes(data)
    report = verify(tmp_path)
    assert [(one.record.name, one.trouble) for one in report.damaged] == [("s3", "wrong checksum")]
    assert drop(report) == []
    assert (tmp_path / volume).read_bytes() == data
    results = open_results(tmp_path, decode=encode_text)
    assert {name: results[name] for name in results} == {name: one for name, one in values.items() if name != "s3"}
    assert list(pending(range(5), tmp_path, names=list(values))) == [3]
    with BackgroundWriter(encode_text, target=Volumes(tmp_path), resume=True, max_workers=1) as writer:
        writer.submit("s3", values["s3"], origin=Origin([3]))
    results = open_results(tmp_path, decode=encode_text)
    assert {name: results[name] for name in results} == values
    assert verify(tmp_path).is_sound


def test_a_file_that_ends_before_its_samples_is_told_for_each_of_them(tmp_path):
    """Those that lie before its end are sound."""
    with BackgroundWriter(encode_text, target=Volumes(tmp_path), max_workers=1) as writer:
        writer.submit_batch(["a", "b", "c"], ["one", "two", "three"])
    (volume,) = names_of(tmp_path)
    os.truncate(tmp_path / volume, len(HEADER) + 5)
    report = verify(tmp_path)
    assert sorted((one.record.name, one.trouble) for one in report.damaged) == [
        ("b", "wrong size"),
        ("c", "wrong size"),
    ]
    assert "it ends at byte 13" in report.damaged[0].detail
    (tmp_path / volume).unlink()
    assert {one.trouble for one in verify(tmp_path).damaged} == {"missing"}


def test_a_file_that_holds_other_samples_is_never_removed(tmp_path):
    """Whatever else a record says of it, under its own name or the one that it has until it is sealed."""
    with BackgroundWriter(encode_text, target=Volumes(tmp_path), max_workers=1) as writer:
        writer.submit_batch(["a", "b"], ["one", "two"])
    (volume,) = names_of(tmp_path)
    data = (tmp_path / volume).read_bytes()
    (tmp_path / f"{volume}.part").write_bytes(data)
    manifest = tmp_path / ".lighter-async" / "manifest-0.jsonl"
    run = read_manifest(tmp_path).runs[0].run
    for name, file in (("c", volume), ("d", f"{volume}.part")):
        about = {"writer": "encode_text", "key": "", "object": file, "bytes": 5, "xxh3": 16 * "0"}
        line = {"samples": 1, "names": [name], "outputs": [about], "index": None, "rank": 0, "loader": 0}
        with open(manifest, "a") as lines:
            lines.write(json.dumps(line | {"batch": None, "time": 0.0, "run": run}) + "\n")
    report = verify(tmp_path)
    assert {one.record.name for one in report.damaged} >= {"c", "d"}
    assert drop(report) == []
    assert (tmp_path / volume).read_bytes() == data
    assert (tmp_path / f"{volume}.part").read_bytes() == data
    results = open_results(tmp_path, decode=encode_text)
    assert {name: results[name] for name in results} == {"a": "one", "b": "two"}


def test_an_offset_of_nothing_is_no_offset(tmp_path):
    """An object that holds several samples begins with a header, so such a line is none that a writer wrote."""
    with BackgroundWriter(encode_text, target=Volumes(tmp_path), max_workers=1) as writer:
        writer.submit_batch(["a", "b"], ["one", "two"])
    manifest = tmp_path / ".lighter-async" / "manifest-0.jsonl"
    manifest.write_text(manifest.read_text().replace(f'"offset":[{len(HEADER)},', '"offset":[0,'))
    found = read_manifest(tmp_path)
    assert (len(found), found.torn) == (0, 1)


def test_an_object_that_is_sealed_between_two_looks_is_there(tmp_path, monkeypatch):
    """Who asks whether it is looks for its name first, and then for that of its part."""
    part, real = tmp_path / "a.vol.part", os.path.lexists
    part.write_bytes(b"x")

    def sealing(path):
        found = real(path)
        if part.exists():
            part.rename(tmp_path / "a.vol")
        return found

    monkeypatch.setattr(os.path, "lexists", sealing)
    assert DirectoryStore(tmp_path).has("a.vol")
    assert not DirectoryStore(tmp_path).has("b.vol")
