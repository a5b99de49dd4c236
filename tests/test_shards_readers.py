"""Shards as those read them who know nothing of this package: webdataset, wids, Hugging Face datasets, tar, tarfile."""

import json
import os
import re
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import pytest

from lighter_async import BackgroundWriter, TarShards, encoder, open_results
from lighter_async.targets.shards.header import BLOCK, END, Headers
from lighter_async.targets.shards.keys import encoded_name, member_name, name_of_key
from lighter_async.targets.shards.walk import samples_in

PLAIN = ["0", "case.1", "case.2", "case.2.txt", "two words", "50%", "%2E", "a/b.c/d", "CASE", "...x", "x.", "'\"", "-z"]
RESERVED = ["__x__", "__x__/y", "_x_", "a/__meta__", "__"]
FOREIGN = ["ä", "übung/größe.1", "日本語", "日本語/名前.2"]
LONG = ["l" * 120, "ordner/" + "ü" * 90 + "/datei", "/".join(["f" * 40] * 5)]
NAMES = [*PLAIN, *RESERVED, *FOREIGN, *LONG]


@encoder(suffix=".BIN", decode=bytes)
def encode_mask(value):
    """The text and more, so that sizes are no multiples of anything."""
    return f"mask of {value}".encode()


@encoder(suffix=".txt", decode=bytes.decode)
def encode_text(value):
    """The text itself."""
    return value.encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Samples with all sorts of names and two outputs each, in several shards."""
    folder = tmp_path_factory.mktemp("shards")
    target = TarShards(folder, shard_samples=7)
    with BackgroundWriter({"Mask": encode_mask, "text": encode_text}, target=target, max_workers=2) as writer:
        for start in range(0, len(NAMES), 4):
            names = NAMES[start : start + 4]
            writer.submit_batch(names, [{"Mask": name, "text": name} for name in names])
    return folder


def shards_of(folder):
    return sorted(str(path) for path in folder.glob("*.tar"))


def check(samples, names=NAMES):
    """Each sample was found once, whole, and its key gives its name."""
    found = {}
    for key, mask, text in samples:
        assert key not in found
        found[key] = mask, text
    assert sorted(map(name_of_key, found)) == sorted(names)
    assert found == {encoded_name(name): (f"mask of {name}".encode(), name.encode()) for name in names}


WEBDATASET = """
    import webdataset
    for one in webdataset.WebDataset(sys.argv[1:], shardshuffle=False):
        tell(one["__key__"], one["mask.bin"], one["text.txt"])
"""

DATASETS = """
    import datasets
    cache, *shards = sys.argv[1:]
    for one in datasets.load_dataset("webdataset", data_files={"train": shards}, split="train", cache_dir=cache):
        tell(one["__key__"], one["mask.bin"], one["text.txt"].encode())
"""

WIDS = """
    import wids
    folder, cache = sys.argv[1:]
    found = wids.ShardListDataset(f"{folder}/shards.json", base=folder, cache_dir=cache)
    for number in range(len(found)):
        one = found[number]
        tell(one["__key__"], one[".mask.bin"].read(), one[".text.txt"].encode())
"""

TELL = """
import json, sys

def tell(key, *fields):
    print("READ", json.dumps([key, *(field.decode() for field in fields)]))

"""


def read_with(script, *arguments, cwd):
    """What a reader finds, in a process of its own: some leave files open, or warn of themselves."""
    done = subprocess.run(
        [sys.executable, "-c", TELL + textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(cwd),
            "PYTHONIOENCODING": "utf-8",
        },
    )
    assert done.returncode == 0, done.stderr
    lines = [line.removeprefix("READ ") for line in done.stdout.splitlines() if line.startswith("READ ")]
    return [(key, mask.encode(), text.encode()) for key, mask, text in map(json.loads, lines)]


def test_webdataset_reads_them(folder, tmp_path):
    """All fields of a sample together, and no two samples as one."""
    check(read_with(WEBDATASET, *shards_of(folder), cwd=tmp_path))


@pytest.mark.long
def test_hugging_face_datasets_reads_them(folder, tmp_path):
    """As a table with a column for each field."""
    check(read_with(DATASETS, str(tmp_path / "cache"), *shards_of(folder), cwd=tmp_path))


def test_wids_reads_them_by_index(tmp_path):
    """By the list of shards. It knows no pax headers, which names of over a hundred bytes need."""
    short = [name for name in NAMES if len(member_name(name, ".text.txt").encode()) <= 100]
    assert len(short) >= 20
    out = tmp_path / "short"
    with BackgroundWriter({"mask": encode_mask, "text": encode_text}, target=TarShards(out, shard_samples=7)) as writer:
        writer.submit_batch(short, [{"mask": name, "text": name} for name in short])
    check(read_with(WIDS, str(out), str(tmp_path / "cache"), cwd=tmp_path), short)


@pytest.mark.long
@pytest.mark.parametrize("name", ["shards.md", pytest.param("training_from_shards.md", marks=pytest.mark.long)])
def test_the_examples_of_a_page_run(name, tmp_path):
    """One after the other, in one folder that is empty before, and each as a program of its own."""
    page = Path(__file__).parents[1] / "docs" / name
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        assert read_with(code, cwd=tmp_path) == []


def test_tar_and_tarfile_read_them(folder, tmp_path):
    """As files, under their encoded names."""
    expected = {}
    for name in NAMES:
        expected[member_name(name, ".mask.bin")] = f"mask of {name}".encode()
        expected[member_name(name, ".text.txt")] = name.encode()
    found = {}
    for shard in shards_of(folder):
        done = subprocess.run(["tar", "-xvf", shard, "-C", tmp_path], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        with tarfile.open(shard) as tar:
            for member in tar:
                assert member.isreg()
                found[member.name] = tar.extractfile(member).read()
    assert found == expected
    unpacked = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in unpacked.items()} == expected


def test_outputs_of_a_sample_are_neighbours(folder):
    """One behind the other, in the order of the outputs."""
    for shard in shards_of(folder):
        with tarfile.open(shard) as tar:
            names = tar.getnames()
        assert [name.removesuffix(".mask.bin") for name in names[::2]] == [
            name.removesuffix(".text.txt") for name in names[1::2]
        ]


def test_the_index_says_where_each_member_lies(folder):
    """In the format of DALI: a line for a sample, with the field, the offset, the size and the name of each member."""
    for shard in shards_of(folder):
        first, *lines = Path(shard.removesuffix(".tar") + ".idx").read_text().splitlines()
        assert first == f"v1.2 {len(lines)}"
        with tarfile.open(shard) as tar:
            members = [(one.name, one.offset_data, one.size) for one in tar]
        found = []
        for line in lines:
            words = line.split()
            assert len(words) == 8
            for field, offset, size, name in zip(*(words[start::4] for start in range(4)), strict=True):
                assert name.endswith(f".{field}")
                found.append((name, int(offset), int(size)))
        assert found == members


def test_the_list_says_how_many_samples_there_are(folder):
    """In each shard, which lie beside it."""
    listing = json.loads((folder / "shards.json").read_text())
    assert (listing["wids_version"], listing["__kind__"]) == (1, "wids-shard-index-v1")
    assert [str(folder / one["url"]) for one in listing["shardlist"]] == shards_of(folder)
    assert [one["filesize"] for one in listing["shardlist"]] == [os.path.getsize(one) for one in shards_of(folder)]
    assert sum(one["nsamples"] for one in listing["shardlist"]) == len(NAMES)
    assert max(one["nsamples"] for one in listing["shardlist"]) == 7


def test_results_are_read_by_their_own_names(folder):
    """Whatever they are called in the shards."""
    results = open_results(folder, writer="encode_text", decode=encode_text)
    assert {name: results[name] for name in results} == {name: name for name in NAMES}


# Headers


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 8**11 - 1])
@pytest.mark.parametrize("name", ["a.txt", "a/b%2E1.txt", "é.bin", "n" * 100])
def test_a_header_is_as_tarfile_writes_it(name, size):
    """But for the fields of devices, which say something else here, and so for the checksum."""
    ours = Headers(1234567890, is_recorded=True).make(name, size, following=3)
    info = tarfile.TarInfo(name)
    info.size, info.mtime = size, 1234567890
    theirs = info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    assert ours[329:345] == b"0000001\0" + b"0000003\0"
    assert ours[:148] + ours[156:329] + ours[345:] == theirs[:148] + theirs[156:329] + theirs[345:]
    assert tarfile.TarInfo.frombuf(ours, "utf-8", "strict").name == name


@pytest.mark.parametrize("size", [8**11, 8**11 + 5, 1 << 40])
@pytest.mark.parametrize("name", ["a.bin", "é" * 80 + ".bin"])
def test_sizes_over_eight_gibibytes_and_long_names_are_said_in_pax_records(name, size, tmp_path):
    """All readers jump over as many bytes: the member behind it is found, in a file that is a hole but for headers."""
    path = tmp_path / "large.tar"
    headers = Headers(1, is_recorded=False)
    first, second = headers.make(name, size), headers.make("b.bin", 3)
    behind = len(first) + size + -size % BLOCK
    with open(path, "wb") as file:
        file.write(first)
        file.seek(behind)
        file.write(second + b"abc".ljust(BLOCK, b"\0") + END)
    with tarfile.open(path) as tar:
        members = [(one.name, one.size, one.offset_data) for one in tar]
    assert members == [(name, size, len(first)), ("b.bin", 3, behind + BLOCK)]
    listed = subprocess.run(["tar", "-tvf", path, "--quoting-style=literal"], capture_output=True, timeout=60)
    assert (listed.returncode, listed.stderr) == (0, b"")
    lines = listed.stdout.decode().splitlines()
    assert [(line.split()[2], line.split()[5]) for line in lines] == [(str(size), name), ("3", "b.bin")]
    with open(path, "rb") as file:
        found = [sample.members[0] for sample in samples_in(file.fileno())]
    assert [(one.name, one.size, one.offset) for one in found] == members


def test_names_have_different_keys_and_come_back():
    """Whatever is in them; keys have no dot, no blank, and no leading __."""
    names = [*NAMES, "a\tb", "a\nb", "a b", "a%20b", "\x7f", "\udcff", "_", "___", "a/_/__b", "%", "%%41"]
    keys = {encoded_name(name) for name in names}
    assert len(keys) == len(names)
    assert {name_of_key(key) for key in keys} == set(names)
    for key in keys:
        assert not any(one in key for one in ". \t\n\x7f")
        assert not any(part.startswith("__") for part in key.split("/"))
    assert member_name("a.b", "") == "a%2Eb.data"
    assert member_name("a.b", "_mask.PNG") == "a%2Eb_mask.png"
    assert member_name("a", ".nii.gz") == "a.nii.gz"
    assert member_name("a", ".__x") == "a.%5F_x"
