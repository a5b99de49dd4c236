"""What others may have left in quarantine: nothing of it runs, hangs a reader, or reaches outside of the directory."""

import fcntl
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lighter_async import BackgroundWriter, LighterAsyncError, Origin, pending, read_manifest
from lighter_async.cli import main
from lighter_async.locks import alone, boot_id
from lighter_async.manifest import reader
from lighter_async.manifest.parsing import parse
from lighter_async.manifest.verify import drop as drop_damaged
from lighter_async.manifest.verify import verify
from lighter_async.without_links import walk_below
from lighter_async.workers.plain_values import from_plain, to_plain
from lighter_async.workers.quarantine import NeedsTrustError, kept_in

ABOUT = {
    "name": "a", "writer": "tensor", "attempts": 1, "error": "e", "traceback": "", "key": "", "rank": 0, "run": "r",
    "loader": 0, "batch": None, "index": None, "time": 1.0,
}  # fmt: skip
QUARANTINE = ".lighter-async/quarantine"


class Touches:
    """Makes a folder as it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def drop(directory, folder, value, **about):
    place = directory / QUARANTINE / folder
    place.mkdir(parents=True)
    torch.save(value, place / "value.pt")
    (place / "error.json").write_text(json.dumps({**ABOUT, **about}))
    return place


@pytest.mark.parametrize("plain", [{}, {"plain": True}])
def test_a_pickle_does_not_run_and_holds_no_other_up(tmp_path, capsys, plain):
    """It is told, with the way out, and stays."""
    out, proof = tmp_path / "out", tmp_path / "proof"
    drop(out, "1", Touches(proof), **plain)
    drop(out, "2", torch.ones(2), name="b")
    assert main(["replay", str(out)]) == 1
    assert not proof.exists()
    assert "lighter-async: a: " in capsys.readouterr().err
    assert torch.load(out / "b.pt").tolist() == [1, 1]
    assert [one.about["name"] for one in kept_in(out)] == ["a"]
    if not plain:
        main(["replay", str(out), "--trust"])
        assert proof.exists()


def test_a_module_that_an_error_names_is_not_imported(tmp_path, monkeypatch):
    """Though it lies in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "innocent.py").write_text("open('proof', 'w')\ndef write(path, value): pass\n")
    drop(tmp_path / "out", "1", torch.ones(1), writer="innocent:write")
    assert main(["replay", "out"]) == 2
    assert main(["replay", "out", "--trust"]) == 2
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    "about",
    [
        {"name": "../b"}, {"name": 3}, {"writer": None}, {"rank": -1}, {"rank": True}, {"time": float("nan")},
        {"time": float("inf")}, {"time": 10**400}, {"index": "1"}, {"loader": 1 << 70}, {"durability": "never"},
        {"key": []}, {"traceback": "x" * (1 << 20)},
    ],
    ids=lambda value: repr(value)[:60],
)  # fmt: skip
def test_an_error_that_is_not_valid_is_told_and_left_out(tmp_path, capsys, about):
    """The others are written."""
    place = drop(tmp_path, "1", torch.ones(1), **about)
    drop(tmp_path, "2", torch.ones(1), name="good")
    assert main(["replay", str(tmp_path)]) == 1
    assert f"{place} is left out" in capsys.readouterr().err
    assert (tmp_path / "good.pt").is_file()
    assert sorted(path.name for path in place.iterdir()) == ["error.json", "value.pt"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names")
def test_pipes_links_and_depth_hang_and_break_nothing(tmp_path):
    """In a process of its own, which would wait for ever."""
    out, outside = tmp_path / "out", tmp_path / "outside"
    pipe = drop(out, "1", 0)
    (pipe / "error.json").unlink()
    os.mkfifo(pipe / "error.json")
    value = drop(out, "2", 0)
    (value / "value.pt").unlink()
    os.mkfifo(value / "value.pt")
    (drop(out, "3", 0) / "error.json").write_text("[" * 100_000)
    elsewhere = drop(outside, "4", torch.ones(1), name="linked")
    (out / QUARANTINE / "4").symlink_to(elsewhere)
    drop(out, "5", torch.ones(1), name="good")
    command = [sys.executable, "-m", "lighter_async.cli", "replay", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert (out / "good.pt").is_file()
    assert not (out / "linked.pt").exists()
    assert sorted(path.name for path in elsewhere.iterdir()) == ["error.json", "value.pt"]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*ABOUT, "x"]), inner, max_size=8),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=64) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_an_error_or_a_line_says_breaks_no_reader(tmp_path_factory, content):
    """Random bytes and random JSON."""
    directory = tmp_path_factory.mktemp("any")
    place = directory / QUARANTINE / "1"
    place.mkdir(parents=True)
    (place / "error.json").write_bytes(content)
    told = []
    assert len(list(kept_in(directory, skipped=told.append))) + len(told) == 1
    parse(content)


@pytest.mark.parametrize(
    "value", [1 << 80, -(1 << 70), 1 + 2j, bytearray(b"x"), b"", "", {}, [], ((),), {1: {None: "x"}}]
)
def test_plain_values_come_back(value):
    """With their types."""
    back = from_plain(to_plain(value))
    assert (type(back), back) == (type(value), value)


@pytest.mark.parametrize("sequence", [2**63, 2**63 - 1, 2**40, -5, 0])
def test_a_sequence_number_that_no_run_has_had_costs_no_later_run_its_samples(tmp_path, sequence):
    """In the list of runs, or in a header: what is stored then counts, or the writer says why it cannot."""
    with BackgroundWriter("text", tmp_path, backend="thread") as writer:
        writer.submit("0", "x", origin=Origin((0,)))
    own = tmp_path / ".lighter-async"
    with open(own / "runs.jsonl", "a") as file:
        file.write(json.dumps({"run": "h", "sequence": sequence, "since": 0, "beside": []}) + "\n")
    with BackgroundWriter("text", tmp_path, backend="thread", resume=True) as writer:
        writer.submit("1", "x", origin=Origin((1,)))
    assert list(pending(range(3), tmp_path)) == [2]
    (own / "runs.jsonl").unlink()
    header = json.loads((own / "manifest-0.jsonl").read_text().splitlines()[0])
    with open(own / "manifest-0.jsonl", "a") as file:
        file.write(json.dumps({**header, "run": "h", "sequence": sequence, "resume": True}) + "\n")
    try:
        with BackgroundWriter("text", tmp_path, backend="thread", resume=True) as writer:
            writer.submit("2", "x", origin=Origin((2,)))
    except OSError as error:
        assert "remove it" in str(error)  # noqa: PT017
    else:
        assert list(pending(range(3), tmp_path)) == []


def test_a_copy_made_of_links_is_not_written_to(tmp_path):
    """As ``cp -al`` makes one."""
    folder, copy = tmp_path / "out", tmp_path / "copy"
    with BackgroundWriter("text", folder, backend="thread") as writer:
        writer.submit("0", "x", origin=Origin((0,)))
    shutil.copytree(folder, copy, copy_function=os.link)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with BackgroundWriter("text", folder, backend="thread", resume=True) as writer:
        writer.submit("1", "x", origin=Origin((1,)))
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    assert list(pending(range(2), folder)) == []
    assert list(pending(range(2), copy)) == [1]


HEADER = {
    "format": 1, "run": "h", "writer": "text", "key": "", "suffix": ".txt", "rank": 0, "world_size": 1, "resume": False,
    "numbered": True, "since": 0, "boot": "", "time": 1.0, "sequence": 1, "beside": [], "durability": "rename",
    "config": None,
}  # fmt: skip


def store(directory, count=3, **options):
    with BackgroundWriter("text", directory, backend="thread", **options) as writer:
        writer.submit_batch([str(index) for index in range(count)], ["x"] * count, origin=Origin(range(count)))


@pytest.fixture
def deep(tmp_path):
    """A directory with results, and folders in it that lie deeper than a path may be long."""
    out = tmp_path / "out"
    store(out)
    descriptor = os.open(out, os.O_RDONLY)
    for _ in range(2100):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    yield out
    subprocess.run(["rm", "-rf", str(out)], check=True)


@pytest.mark.long
def test_a_tree_as_deep_as_it_likes_holds_nobody_up(deep, capsys):
    """Neither what compares files, nor what clears up; what a path reaches is looked at."""
    place = deep.joinpath(*["d"] * 1500)
    (place / "file").touch()
    (place / ".lighter-async-0123456789ab-1-1.part").touch()
    (deep / ".lighter-async/0123456789ab.lock").touch()
    assert main(["verify", str(deep)]) == 0
    assert "extra: d/d/" in capsys.readouterr().out
    store(deep, resume=True)
    assert os.listdir(place) in (["d", "file"], ["file", "d"])
    assert len(list(walk_below(deep))) > 2000


def test_a_link_to_a_folder_is_not_walked_into(tmp_path):
    """It is told of as what lies there."""
    (tmp_path / "out/a").mkdir(parents=True)
    (tmp_path / "elsewhere/b").mkdir(parents=True)
    (tmp_path / "out/a/link").symlink_to(tmp_path / "elsewhere")
    assert sorted(walk_below(tmp_path / "out")) == [("", []), ("a", ["link"])]


@pytest.fixture
def held(tmp_path):
    """A list of runs that somebody else has locked."""
    store(tmp_path)
    descriptor = os.open(tmp_path / ".lighter-async/runs.jsonl", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield tmp_path / ".lighter-async/runs.jsonl"
    os.close(descriptor)


@pytest.mark.timeout(30)  # half of what it waits by default
@pytest.mark.parametrize("copied", [False, True])
def test_a_lock_that_a_reader_holds_is_told_and_not_waited_for_without_end(tmp_path, held, monkeypatch, capfd, copied):
    """With the file, and the way out; also where the file has a second name."""
    monkeypatch.setattr(alone, "_SECONDS_ALONE", 0.4)
    monkeypatch.setattr(alone, "_SECONDS_UNTOLD", 0.1)
    if copied:
        os.link(held, tmp_path / "copy")
    with pytest.raises(TimeoutError, match="fuser -v") as raised:
        store(tmp_path, resume=True)
    assert str(held) in str(raised.value)
    assert f"waiting for whoever has locked {str(held)!r}" in capfd.readouterr().err
    assert read_manifest(tmp_path).done() == {0, 1, 2}


def test_signals_come_through_while_a_lock_is_waited_for(tmp_path, held):
    """Ctrl-C ends the wait."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            store(tmp_path, resume=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_whoever_lets_go_of_a_lock_lets_the_next_one_in(held):
    """Soon, and without a word."""
    descriptor = os.open(held, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
    code = (
        f"import fcntl; file = open({str(held) + '2'!r}, 'w'); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print(flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code + "\n"], **pipes) as holder:
        holder.stdout.readline()
        let_go = []

        def waiting():
            if not let_go:  # only once we wait for it
                let_go.append(holder.stdin.write(b"\n"))
                holder.stdin.flush()

        with alone.alone_in(f"{held}2", waiting=waiting):
            assert let_go
            assert holder.wait(10) == 0


def test_a_manifest_is_read_in_pieces(tmp_path, monkeypatch):
    """The same records are found, wherever the pieces end, and lines that are too long are none."""
    store(tmp_path, 10)
    path = tmp_path / ".lighter-async/manifest-0.jsonl"
    line = next(line for line in path.read_text().splitlines() if '"7"' in line)
    long = line.replace('"writer":"text"', '"writer":"' + "x" * 2000 + '"')
    path.write_text(path.read_text() + f"{long}\n" + path.read_text() + line[:-5])
    for size in (len(line) + 1, 1200, 1 << 20):
        monkeypatch.setattr(reader, "LONGEST_LINE", size)
        assert [one.file for one in reader.records_of(path, "7.txt", ".txt")] == ["7.txt"] * (3 if size > 2000 else 2)


@pytest.mark.long
def test_a_manifest_of_any_size_takes_little_memory(tmp_path):
    """Of nothing but one line, 3 GB long, that takes no room on the disk."""
    store(tmp_path)
    path = tmp_path / ".lighter-async/manifest-1.jsonl"
    path.touch()
    os.truncate(path, 3 << 30)
    code = (
        "import resource; from pathlib import Path; from lighter_async.manifest.reader import records_of\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        f"assert list(records_of(Path({str(path)!r}), '0.txt', '.txt')) == []"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_manifest_that_was_removed_is_restored_in_pieces(tmp_path):
    """What it said of files that are there, and no line that is none of ours."""
    with BackgroundWriter("text", tmp_path, backend="thread") as writer:
        writer.submit_batch(["0", "1"], ["x", "x"], origin=Origin([0, 1]))
        writer.flush()
        path = tmp_path / ".lighter-async/manifest-0.jsonl"
        with open(path, "a") as file:
            file.write("x" * (3 << 20) + "\n")
        path.unlink()
        (tmp_path / "1.txt").unlink()
    assert read_manifest(tmp_path).done() == {0}
    assert path.stat().st_size < 10_000


def test_a_chain_of_runs_is_followed_once(tmp_path):
    """Each of which says that the one before was open."""
    (tmp_path / ".lighter-async").mkdir()
    lines = [{**HEADER, "run": f"r{i}", "sequence": i + 1, "beside": [f"r{i - 1}"]} for i in range(6000)]
    (tmp_path / ".lighter-async/manifest-0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    manifest = read_manifest(tmp_path)
    assert len(manifest.current_runs()["text", ""]) == 6000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nonsense\n", "has a manifest whose one line is not valid"),
        ("nonsense\n{}\n", "has a manifest none of whose 2 lines is valid"),
        ("", "has a manifest that tells of no run and no sample"),
        (None, "has no manifest"),
    ],
)
@pytest.mark.parametrize("command", ["verify", "manifest"])
def test_a_manifest_that_says_nothing_is_told_from_none(tmp_path, capsys, command, content, message):
    """With the status of what cannot run."""
    (tmp_path / ".lighter-async").mkdir()
    if content is not None:
        (tmp_path / ".lighter-async/manifest-0.jsonl").write_text(content)
    assert main([command, str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_one_writer_that_is_not_known_holds_no_other_up(tmp_path, capsys):
    """Its value is told, and stays."""
    drop(tmp_path, "1", torch.ones(1), writer="nobody's")
    drop(tmp_path, "2", torch.ones(1), name="good")
    assert main(["replay", str(tmp_path)]) == 1
    assert '"nobody\'s" is none that is registered here; its values stay' in capsys.readouterr().err
    assert (tmp_path / "good.pt").is_file()
    assert [one.about["writer"] for one in kept_in(tmp_path)] == ["nobody's"]


def deflated(value):
    """As `torch.save` writes it, but compressed."""
    stored, packed = io.BytesIO(), io.BytesIO()
    torch.save(value, stored)
    with zipfile.ZipFile(stored) as old, zipfile.ZipFile(packed, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info), zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def claiming(count):
    """A tensor of one element, whose file says that its storage has more of them."""
    stored, changed = io.BytesIO(saved(torch.zeros(65, dtype=torch.uint8))), io.BytesIO()
    with zipfile.ZipFile(stored) as old, zipfile.ZipFile(changed, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            new.writestr(info.filename, data.replace(b"KA", b"J" + count.to_bytes(4, "little")))
    return changed.getvalue()


def nested(depth):
    value = ["list", []]
    for _ in range(depth):
        value = ["list", [value, value]]
    return value


WIDE = torch.zeros(1, dtype=torch.uint8).expand(1 << 40)
LARGE = torch.zeros(1 << 16, dtype=torch.uint8)
ARRAY = io.BytesIO()
np.lib.format.write_array_header_1_0(ARRAY, {"descr": "|V0", "fortran_order": False, "shape": (1 << 40,)})
GROWING = {
    "expanded": (lambda: saved(WIDE), False),
    "expanded bytes": (lambda: saved(["bytes", WIDE]), True),
    "overlapping": (lambda: saved(torch.zeros(1 << 16).as_strided((1 << 15, 1 << 15), (1, 1))), False),
    "compressed": (lambda: deflated(LARGE), False),
    "more than it has": (lambda: claiming(1 << 30), False),
    "bytes again and again": (lambda: saved(["list", [["bytes", LARGE]] * 10_000]), True),
    "lists of lists": (lambda: saved(nested(60)), True),
    "keys of tuples": (lambda: saved(["dict", [[["tuple", [nested(60)]], 1]]]), True),
    "array of nothings": (lambda: saved(["array", torch.frombuffer(ARRAY.getbuffer(), dtype=torch.uint8)]), True),
    "not an archive": (lambda: b"x" * 100, True),
    "bytearray": (lambda: saved(bytearray(10)), False),
    "empty": (lambda: b"", False),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", GROWING)
def test_a_value_takes_no_more_memory_than_its_file(tmp_path, capsys, kind):
    """What would is told, with the way out, and stays; in a process that has little memory."""
    make, plain = GROWING[kind]
    place = drop(tmp_path, "1", 0, plain=plain)
    (place / "value.pt").write_bytes(make())
    assert main(["replay", str(tmp_path)]) == 1
    assert "give --trust" in capsys.readouterr().err
    assert len(list(kept_in(tmp_path))) == 1


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(1).expand(5),
        torch.arange(4.0).unfold(0, 2, 1),
        torch.eye(3).to_sparse(),
        torch.ones(2, dtype=torch.complex64).conj(),
        torch.nn.Parameter(torch.ones(2)),
        torch.ones(2, requires_grad=True),
        torch.zeros(3, dtype=torch.uint16),
        torch.arange(12).reshape(3, 4).t(),
        torch.zeros(0, 3),
        torch.tensor(True),
        torch.ones(2, dtype=torch.bfloat16),
        [torch.ones(1)] * 3,
    ],
    ids=str,
)
def test_values_of_ours_come_back_without_trust(tmp_path, value):
    """Also those that repeat their elements, which are stored in full."""
    place = drop(tmp_path, "1", 0, plain=True)
    torch.save(to_plain(value), place / "value.pt")
    (back,) = [one.value() for one in kept_in(tmp_path)]
    ours, backs = ([one] if torch.is_tensor(one) else one for one in (value, back))
    for one, other in zip(ours, backs, strict=True):
        assert (type(one), one.dtype, one.requires_grad) == (type(other), other.dtype, other.requires_grad)
        assert torch.equal(one.detach().to_dense(), other.detach().to_dense())


def test_a_value_that_is_larger_than_half_of_the_memory_needs_trust(tmp_path):
    """Though it takes no room on the disk."""
    place = drop(tmp_path, "1", 0)
    os.truncate(place / "value.pt", 1 << 42)
    (one,) = kept_in(tmp_path)
    with pytest.raises(NeedsTrustError) as raised:
        one.value()
    assert "half of the memory" in str(raised.value.__cause__)


def tree(folder):
    """What lies in a folder, and when it was changed."""
    return {
        path.relative_to(folder): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def outside(tmp_path):
    """A folder beside the directory of results, of which nothing may be touched."""
    folder = tmp_path / "outside"
    store(folder / "out")
    (folder / "sub").mkdir()
    (folder / "sub/0.txt").write_text("precious")
    before = tree(folder)
    yield folder
    assert tree(folder) == before


def mutated(content, mine):
    """A file's content with a few changes, by bytes or by what its lines say."""
    for _ in range(mine.randint(1, 4)):
        place = mine.randrange(len(content) + 1)
        way = mine.randrange(6)
        if way == 0:
            content = content[:place]
        elif way == 1:
            content = content[:place] + mine.randbytes(mine.randint(1, 8)) + content[place + mine.randint(0, 8) :]
        elif way == 2:
            content += content
        else:
            lines = content.split(b"\n")
            number = mine.randrange(len(lines))
            try:
                about = json.loads(lines[number])
                about[mine.choice(list(about))] = mine.choice(ODD)
                lines[number] = json.dumps(about, separators=(",", ":")).encode()
            except (ValueError, TypeError, IndexError, RecursionError):
                lines[number : number + 1] = mine.choices(lines, k=mine.randint(0, 2))
            content = b"\n".join(lines)
    return content


ODD = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, 1.5, float("nan"), float("inf"), "", "x", "\0", "/",
    "..", "../outside/sub/0.txt", "/etc/passwd", ".lighter-async/runs.jsonl", "sub/0.txt", "link/0.txt", "\ud800",
    "x" * 5000, [], [[]], ["h"], [None], {}, {"a": {}}, [1, 2, 3], [2**64] * 3, [1] * 1000, "fsync", "0.txt", "text",
]  # fmt: skip


@pytest.mark.long
@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32))
@pytest.mark.filterwarnings("ignore")
def test_whatever_a_folder_of_ours_holds_there_is_an_answer_or_an_error_of_ours(tmp_path_factory, seed):
    """Soon, and nothing beside the directory is touched: lock files, the list of runs and manifests of any making."""
    mine = random.Random(seed)
    folder = tmp_path_factory.mktemp("any")
    outside = folder / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "sub/0.txt").write_text("precious")
    before = tree(folder)
    out = folder / "out"
    store(out)
    (out / "link").symlink_to(outside / "sub")
    own = out / ".lighter-async"
    owner = json.dumps({"process": 1, "started": "1", "boot": boot_id(), "namespace": "", "run": "h", "program": ""})
    (own / "0123456789ab.lock").write_text(owner)
    for path in sorted(own.iterdir()):
        if mine.random() < 0.7:
            path.write_bytes(mutated(path.read_bytes(), mine))
    calls = [
        lambda: read_manifest(out),
        lambda: list(pending(range(5), out)),
        lambda: drop_damaged(verify(out)),
        lambda: store(out, 5, resume=True),
        lambda: main(["manifest", str(out), "--output", str(folder / "out/table.csv")]),
        lambda: store(out, 5),
    ]
    for call in calls:
        try:
            call()
        except (LighterAsyncError, OSError):
            pass
    assert {path: what for path, what in tree(folder).items() if path.parts[0] != "out"} == before


@pytest.mark.filterwarnings("ignore")
def test_links_in_every_place_of_ours_lead_nowhere(tmp_path, outside):
    """Each file of ours, our folder, and a sample, in turn is a link to one of somebody else's."""
    theirs = outside / "out/.lighter-async"
    for number, name in enumerate(["runs.jsonl", "manifest-0.jsonl", "", "../0.txt", "replacing", "recording"]):
        out = tmp_path / f"out-{number}"
        store(out)
        place = out / ".lighter-async" / name if name else out / ".lighter-async"
        if place.is_dir():
            shutil.rmtree(place)
        elif place.exists():
            place.unlink()
        place.symlink_to({"": theirs, "../0.txt": outside / "sub/0.txt"}.get(name, theirs / name))
        for call in (lambda: store(out, 5, resume=True), lambda: store(out), lambda: verify(out)):  # noqa: B023
            try:
                call()
            except (LighterAsyncError, OSError):
                pass
