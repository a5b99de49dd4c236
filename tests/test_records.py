"""Records by the unit, read as columns: the same as a plain reading of one line after the other."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from lighter_async import Record, Run, pending, read_manifest
from lighter_async.manifest import ManifestLog, Stored
from lighter_async.manifest.columns import record_lines
from lighter_async.manifest.indices import IndexSet
from lighter_async.names import Numbers, with_suffix
from lighter_async.types import Origin

NAMES = ["a", "b", "a.pt", "0", "7", "7.pt", "07", "sub/c", "sub/7", "\u00fc\u65e5", "\udcff", '"quoted"\\', "x\ny"]


class Model:
    """What a reader has to find: by file, the latest entry of each manifest, and of these the latest run's."""

    def __init__(self, sequences):
        self.sequences = sequences
        self.of_ranks = {}

    def note(self, rank, file, run, entry):
        self.of_ranks.setdefault(rank, {})[file] = (self.sequences[run], rank, entry)

    def found(self):
        latest = {}
        for _, entries in sorted(self.of_ranks.items()):
            for file, entry in entries.items():
                if file not in latest or latest[file][0] <= entry[0]:
                    latest[file] = entry
        return {file: entry[2] for file, entry in latest.items() if entry[2] is not None}


@pytest.mark.parametrize("seed", range(40))
def test_the_latest_record_of_each_file_is_found(tmp_path, seed):
    """Whatever was stored, overwritten and taken back, by names and numbers, in two runs on two ranks."""
    chance = random.Random(seed)
    logs, sequences = [], {}
    for name in ("first", "second"):
        for rank in range(2):
            log = ManifestLog(tmp_path, Run(id=name, rank=rank, world_size=2), writer="tensor", suffix=".pt")
            sequences[name] = log.begin(0).sequence
            logs.append(log)
    model, checks = Model(sequences), iter(range(1, 10_000))
    for _ in range(30):
        log = chance.choice(logs)
        count = chance.randint(1, 4)
        if chance.random() < 0.5:
            names = Numbers(range(chance.randint(0, 5), 30, chance.randint(1, 3))[:count])
        else:
            names = chance.sample(NAMES, count)
        files = [with_suffix(name, ".pt") for name in names]
        if len(set(files)) < len(files):
            continue
        stored = [
            Stored(place, file, chance.choice([5, 6]), f"{next(checks):016x}") for place, file in enumerate(files)
        ]
        origin = chance.choice(
            [None, Origin(range(3, 3 + len(stored)), loader=1, batch=2), Origin([9, 4, 7, 1][: len(stored)])]
        )
        kind = chance.choice([None, ("float32", (2, 3))])
        log.append(stored, names, [kind] * len(stored), origin)
        for place, one in enumerate(stored):
            index = None if origin is None else origin.indices[place]
            model.note(log.run.rank, one.file, log.run.id, (names[place], one.nbytes, one.xxh3, index, kind))
        if chance.random() < 0.3:
            record = chance.choice(list(read_manifest(tmp_path).records))
            log.drop([(record, None)])
            model.note(log.run.rank, record.file, record.run, None)
    for log in logs:
        log.close()
    manifest = read_manifest(tmp_path)
    found = {
        one.file: (one.name, one.bytes, one.xxh3, one.index, one.dtype and (one.dtype, one.shape))
        for one in manifest.records
    }
    assert found == model.found()
    assert manifest.torn == 0
    assert len(manifest.records) == len(found) == len(list(manifest.records.names()))
    assert set(manifest.records.files()) == found.keys()
    assert {record.file for record in manifest.records.of_files(list(found)[:3])} == set(list(found)[:3])
    some = {record.name for record in manifest.records[:3]}
    of_names = [record for record in manifest.records if record.name in some]
    assert sorted(map(repr, manifest.records.named([*some, "", "no"]))) == sorted(map(repr, of_names))
    assert list(manifest.records.ordered_names()) == [record.name for record in manifest.records]
    assert manifest.records.leave_out([0, 2]) == [manifest.records[1], *manifest.records[3:]]
    assert list(manifest.records.without([*found, "other"], str)) == ["other"]
    ordered = [(one.loader, one.index is None, one.index or 0) for one in manifest.records]
    assert ordered == sorted(ordered)
    for record in manifest.records:
        if record.index is not None:
            assert manifest.records.names_at(record.loader, [record.index, -5])[1] is None
    assert [manifest.records[place] for place in range(len(found))] == list(manifest.records)


def test_records_written_anew_are_the_same(tmp_path):
    """As when a removed manifest is restored."""
    with ManifestLogOf(tmp_path) as log:
        log.append(
            [Stored(place, f"{name}.pt", place, 16 * "a") for place, name in enumerate("abc")], "abc", [None] * 3, None
        )
        log.append([Stored(0, None, None, None)], ["a"], [("int8", ())], Origin([4]))
    records = list(read_manifest(tmp_path).records)
    (tmp_path / "again" / ".lighter-async").mkdir(parents=True)
    (tmp_path / "again" / ".lighter-async" / "manifest-0.jsonl").write_bytes(b"".join(record_lines(records)))
    assert sorted(map(repr, read_manifest(tmp_path / "again").records)) == sorted(map(repr, records))


class ManifestLogOf(ManifestLog):
    """Open for the length of a ``with``."""

    def __init__(self, folder):
        super().__init__(folder, Run(), writer="tensor", suffix=".pt")

    def __enter__(self):
        self.begin(0)
        return self

    def __exit__(self, *_):
        self.close()


def test_a_line_is_never_longer_than_readers_take(tmp_path):
    """However many samples are stored together, and however long their names are."""
    names = [f"{number:05}" + "n" * 240 for number in range(9000)]
    with ManifestLogOf(tmp_path) as log:
        log.append(
            [Stored(place, "x", 1, 16 * "0") for place in range(9000)], names, [None] * 9000, Origin(range(9000))
        )
        lines = Path(log.path).read_bytes().splitlines()
    assert max(map(len, lines)) < 1 << 20
    manifest = read_manifest(tmp_path)
    assert (len(manifest.records), manifest.torn, manifest.done()) == (9000, 0, set(range(9000)))


def test_the_first_format_is_still_read(tmp_path):
    """A line for each sample, with samples of both formats in one manifest."""
    line = {
        "name": "old", "file": "old.pt", "bytes": 3, "xxh3": "00ff00ff00ff00ff", "index": 1, "shape": [2],
        "dtype": "int8",
        "rank": 0, "loader": 0, "batch": 0, "time": 1.5, "run": "r", "writer": "tensor", "key": "",
    }  # fmt: skip
    with ManifestLogOf(tmp_path) as log:
        log.append([Stored(0, "new.pt", 4, 16 * "1")], ["new"], [None], Origin([2]))
        with open(log.path, "a") as file:
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
    old, new = read_manifest(tmp_path).records
    assert {name: getattr(old, name) for name in line} == line | {"shape": (2,)}
    assert (new.name, new.file, old.offset) == ("new", "new.pt", 0)


LINE = {
    "samples": 2, "names": ["a", "b"], "index": [0, 1], "rank": 0, "loader": 0, "batch": 0, "time": 1.0, "run": "r",
    "outputs": [{"writer": "w", "key": "", "suffix": ".pt", "bytes": 3, "xxh3": 32 * "0"}],
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"samples": 3}, {"samples": 0}, {"samples": 1 << 40}, {"names": ["a"]}, {"names": ["a", 5]},
        {"names": ["../a", "b"]}, {"names": ["/a", "b"]}, {"names": {"start": -1, "step": 1}},
        {"names": {"start": 5, "step": -5, "x": 0}, "index": {"start": 1 << 62, "step": 1 << 62}},
        {"index": [0]}, {"index": [0, 1 << 70]}, {"rank": -1}, {"time": 1e400}, {"outputs": []}, {"run": None},
        *({"outputs": [LINE["outputs"][0] | other]} for other in (
            {"xxh3": 31 * "0"}, {"xxh3": 32 * "g"}, {"xxh3": 30 * "0" + "  "}, {"bytes": [1]}, {"bytes": -1},
            {"suffix": "/../x"}, {"suffix": None}, {"object": "shard"}, {"suffix": None, "object": "shard"},
            {"suffix": None, "object": "../shard", "offset": [0, 3]}, {"shape": [-1]}, {"shape": [1] * 300},
        )),
    ],
)  # fmt: skip
def test_a_line_that_no_writer_writes_is_torn(tmp_path, change):
    """And what others say holds."""
    with ManifestLogOf(tmp_path) as log:
        log.append([Stored(0, "new.pt", 4, 16 * "1")], ["new"], [None], Origin([2]))
        with open(log.path, "a") as file:
            file.write(json.dumps(LINE | change, separators=(",", ":")) + "\n")
    manifest = read_manifest(tmp_path)
    assert ([one.name for one in manifest.records], manifest.torn) == (["new"], 1)


def single(number, *, writer="w", xxh3=None, **other):
    """A line of one sample, as they are written where samples are handed over one by one."""
    output = {
        "writer": writer, "key": "", "suffix": f".{writer}", "bytes": number, "shape": [3], "dtype": "int8",
        "xxh3": f"{number:016x}" if xxh3 is None else xxh3,
    }  # fmt: skip
    line = {
        "samples": 1, "names": [f"n{number}"], "outputs": [output], "index": [number], "rank": 0, "loader": 0,
        "batch": number, "time": number / 8, "run": "r",
    }  # fmt: skip
    return json.dumps(line | other, separators=(",", ":")) + "\n"


@pytest.mark.parametrize(
    "bad",
    [
        [],
        [{"xxh3": 15 * "0"}, {"xxh3": 17 * "0"}],  # together as long as two
        [{"xxh3": 14 * "0" + "  "}],
        [{"names": ["../up"]}, {"names": ["a\0b"]}, {"names": [".lighter-async"]}],
        [{"time": 1e400}],
        [{"rank": 10**10}],
        [{"index": [1, 2]}, {"index": []}, {"names": ["a", "b"]}, {"names": []}],
    ],
)
def test_lines_of_one_sample_are_read_each_by_itself(tmp_path, bad):
    """Though alike ones are taken together: one that no writer writes takes no other one with it."""
    lines = [single(number, writer="vw"[number % 2]) for number in range(2500)]
    for place, change in enumerate(bad):
        lines.insert(1100 + place, single(9999, **change))
    with ManifestLogOf(tmp_path) as log, open(log.path, "a") as file:
        file.writelines(lines)
    manifest = read_manifest(tmp_path)
    assert manifest.torn == len(bad)
    assert list(manifest.records) == [
        Record(
            name=f"n{number}", file=f"n{number}.{'vw'[number % 2]}", bytes=number, xxh3=f"{number:016x}", index=number,
            shape=(3,), dtype="int8", rank=0, loader=0, batch=number, time=number / 8, run="r",
            writer="vw"[number % 2], key="",
        )
        for number in range(2500)
    ]  # fmt: skip


def test_of_a_sample_that_is_recorded_alone_twice_the_later_line_holds(tmp_path):
    """Also where one of the two is in a line with others, whichever comes first."""
    suffix = {"outputs": [LINE["outputs"][0] | {"suffix": ".w"}]}
    both = json.dumps(LINE | {"names": ["n1", "n2"]} | suffix, separators=(",", ":")) + "\n"
    for folder, lines, checksums in (
        ("alone", [single(1), single(2), single(1, xxh3=16 * "a")], {"n1": 16 * "a", "n2": f"{2:016x}"}),
        ("last", [both, single(1)], {"n1": f"{1:016x}", "n2": 16 * "0"}),
        ("first", [single(1), single(2), both], {"n1": 16 * "0", "n2": 16 * "0"}),
    ):
        with ManifestLogOf(tmp_path / folder) as log, open(log.path, "a") as file:
            file.writelines(lines)
        assert {one.name: one.xxh3 for one in read_manifest(tmp_path / folder).records} == checksums


def test_a_name_that_no_writer_gives_does_not_hide_others(tmp_path):
    """Of functions' samples nothing is recorded but their names, which nobody has checked."""
    with ManifestLogOf(tmp_path) as log, open(log.path, "a") as file:
        file.write(json.dumps(LINE | {"names": ["", "b"], "outputs": [{"writer": "w", "key": ""}]}) + "\n")
    records = read_manifest(tmp_path).records
    assert (len(records), records.number(""), records.number("b"), records.number("c")) == (2, 0, 1, None)
    assert [one.name for one in records.named({"b", "", "c"})] == ["", "b"]
    assert [records.numbers_at(index, 0) for index in (1, 2)] == [range(1, 2), range(2, 2)]


def test_samples_may_share_an_object(tmp_path):
    """Each lies at its offset, and they are known by their names."""
    line = LINE | {
        "outputs": [{"writer": "w", "key": "", "object": "s.tar", "offset": [512, 1536], "bytes": 3, "xxh3": 32 * "0"}]
    }
    with ManifestLogOf(tmp_path) as log, open(log.path, "a") as file:
        file.write(json.dumps(line, separators=(",", ":")) + "\n")
    records = read_manifest(tmp_path).records
    assert [(one.name, one.file, one.offset, one.bytes) for one in records] == [
        ("a", "s.tar", 512, 3),
        ("b", "s.tar", 1536, 3),
    ]


def test_a_sample_may_have_several_parts(tmp_path):
    """Recorded by one line, each part is of a series of its own."""
    outputs = [
        LINE["outputs"][0],
        LINE["outputs"][0] | {"writer": "v", "key": "logits", "suffix": ".npy", "bytes": [1, 2]},
    ]
    with ManifestLogOf(tmp_path) as log, open(log.path, "a") as file:
        file.write(json.dumps(LINE | {"outputs": outputs}, separators=(",", ":")) + "\n")
    assert sorted((one.file, one.bytes, one.series) for one in read_manifest(tmp_path).records) == [
        ("a.npy", 1, ("v", "logits")), ("a.pt", 3, ("w", "")), ("b.npy", 2, ("v", "logits")), ("b.pt", 3, ("w", "")),
    ]  # fmt: skip


def test_names_that_hold_the_texts_of_others_are_told_apart(tmp_path):
    """When one file is looked for in another rank's manifest."""
    run = Run(id="r", rank=1, world_size=2)
    mine = ManifestLog(tmp_path, Run(id="r", rank=0, world_size=2), writer="tensor", suffix=".pt")
    mine.begin(0)
    log = ManifestLog(tmp_path, run, writer="tensor", suffix=".pt")
    log.begin(0)
    for names in (["a", "b"], Numbers(range(4, 20, 3)), ['"', "\u00fc", "\udcff"]):
        log.append(
            [Stored(place, "x", 1, 16 * "0") for place in range(len(names))],
            names,
            [None] * len(names),
            None,
        )
    for file in ("a.pt", "4.pt", "19.pt", '".pt', "\u00fc.pt", "\udcff.pt"):
        assert mine.other_ranks.find(file, seconds=0).file == file
    for file in ("c.pt", "5.pt", "22.pt", "a", "04.pt", "x.pt"):
        assert mine.other_ranks.find(file, seconds=0) is None
    log.close()
    mine.close()


def test_a_named_sample_is_pending_while_its_name_is_not_stored(tmp_path):
    """By columns, for names given as a list and as a function."""
    names = [f"case-{number}" for number in range(100)]
    with ManifestLogOf(tmp_path) as log:
        some = names[::3]
        log.append(
            [Stored(place, "x", 1, 16 * "0") for place in range(len(some))],
            some,
            [None] * len(some),
            None,
        )
    missing = [number for number in range(100) if number % 3]
    with pytest.warns(UserWarning, match="are gone"):
        assert list(pending(range(100), tmp_path, names=names)) == missing
    with pytest.warns(UserWarning, match="are gone"):
        assert list(pending(range(100), tmp_path, names=lambda index: names[index])) == missing


@pytest.mark.parametrize("numbers", [[], [0], [3, 1, 3], [-2, 5], [1 << 60, 2], list(range(1000))])
def test_an_index_set_is_a_set(numbers):
    """With the operators and the methods of one."""
    found, plain = IndexSet(numbers), set(numbers)
    assert (found == plain, plain == found, len(found), set(found)) == (True, True, len(plain), plain)
    assert hash(found) == hash(IndexSet(reversed(numbers)))
    other = {1, 2, 5, 1 << 60}
    for operator in ("__and__", "__or__", "__sub__", "__xor__"):
        assert getattr(found, operator)(other) == getattr(plain, operator)(other)
    assert (other & found, other - found, other | found) == (other & plain, other - plain, other | plain)
    assert found & IndexSet(other) == plain & other
    for method in (
        "union",
        "intersection",
        "difference",
        "symmetric_difference",
        "issubset",
        "issuperset",
        "isdisjoint",
    ):
        assert getattr(found, method)(other) == getattr(plain, method)(other)
    assert found.flags(6).tolist() == [number in plain for number in range(6)]
    assert ("x" in found, 2.5 in found, 3 in found) == (False, False, 3 in plain)
