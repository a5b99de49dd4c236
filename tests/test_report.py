"""The report: what it says of results, and that it says so in a real browser, whatever their names are."""

import json
import re

import numpy as np
import pytest
import torch
from browser import CHROMIUM, Browser

from lighter_async import ArrayTarget, BackgroundWriter, Origin, TableTarget, TarShards, WriteError, encoder
from lighter_async.cli import main
from lighter_async.report import facts_of, page_of

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")

HOSTILE = [
    "<script>document.title = 'hacked'<\\script>",
    "<img src=x onerror=\"document.title='hacked'\">",
    "'\"&amp;&lt;",
    "two\nlines\ttab",
    "]]> --> <!-- </SCRIPT ",
    "{{data}}{{style}}",
    "bytes \udcff\udc80",
    "\u202egnp.exe\u200b",
    "a%2Fb #?é漢😀",
    "javascript:alert(1)",
]


def data_of(page):
    """What a page's script reads."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(text)


def images(count, size=8):
    return torch.arange(count, dtype=torch.uint8).reshape(count, 1, 1, 1).expand(count, 3, size, size)


@pytest.fixture
def results(tmp_path):
    """Two runs of a writer with two outputs, and the values of a third run that failed."""
    directory = tmp_path / "results"
    for numbers, resume in ((range(6), False), (range(6, 10), True)):
        outputs = {"mask": "image_2d", "scores": "tensor"}
        with BackgroundWriter(outputs, directory, resume=resume, backend="thread") as writer:
            values = {"mask": images(len(numbers)), "scores": torch.rand(len(numbers), 3)}
            writer.submit_batch([f"case {number}" for number in numbers], values, origin=Origin(numbers))

    def refuse(value):
        raise ValueError(f"cannot encode <b>{value}</b>")

    writer = BackgroundWriter(
        encoder(suffix=".x")(refuse), directory, resume=True, backend="thread", on_error="continue"
    )
    for name in ("one", "two", "three"):
        writer.submit(name, "v" if name == "one" else "w")
    with pytest.raises(WriteError):
        writer.close()
    return directory


def test_the_facts_are_those_of_the_records(results):
    """Samples, outputs, runs, ranks and failures with their causes."""
    facts = facts_of(results)
    assert facts.samples == 10
    assert [(run.sequence, run.samples, run.resume, run.at_work) for run in facts.runs] == [
        (1, 6, False, False),
        (2, 4, True, False),
        (3, 0, True, False),
    ]
    stored = {output.key: output for output in facts.outputs}
    files = {key: list(results.glob(f"*.{key}.*")) for key in ("mask", "scores")}
    for key, paths in files.items():
        sizes = sorted(path.stat().st_size for path in paths)
        assert (stored[key].count, stored[key].objects, stored[key].bytes) == (10, 10, sum(sizes))
        assert (stored[key].least, stored[key].most) == (sizes[0], sizes[-1])
        assert sum(count for _, count in stored[key].sizes) == 10
        assert all(2**power <= sizes[-1] for power, _ in stored[key].sizes)
    assert stored["mask"].suffix == ".mask.png"
    assert stored["mask"].kinds == (["uint8 3 x 8 x 8"], 0)
    for run in facts.runs[:2]:
        assert sum(run.rate.samples) == run.samples
        assert sum(run.rate.bytes) == run.bytes == run.ranks[0].bytes
        assert run.began <= run.ranks[0].first <= run.last
    assert [(cause.text, cause.count) for cause in facts.causes] == [
        ("ValueError: cannot encode <b>w</b>", 2),
        ("ValueError: cannot encode <b>v</b>", 1),
    ]
    assert "in refuse" in facts.causes[0].traceback
    assert {failure.name: facts.causes[failure.cause].count for failure in facts.failures} == {
        "one": 1,
        "two": 2,
        "three": 2,
    }
    assert facts.failed == 3
    assert not any(failure.stored_later for failure in facts.failures)


def test_what_a_run_that_began_anew_has_superseded_is_not_listed(tmp_path):
    """It is told how much that is."""
    for names in (["a", "b"], ["c"]):
        with BackgroundWriter("text", tmp_path, backend="thread") as writer:
            writer.submit_batch(names, names)
    facts = facts_of(tmp_path)
    assert (facts.samples, facts.superseded, facts.listing.names) == (1, 2, ["c"])
    assert [run.counts for run in facts.runs] == [False, True]


@pytest.mark.parametrize(
    ("target", "lies"),
    [
        (lambda folder: TarShards(folder / "shards"), "shards"),
        (lambda folder: ArrayTarget(folder / "rows.npy", 4), "array"),
        (lambda folder: TableTarget(folder / "table.csv"), "table"),
    ],
    ids=["shards", "array", "table"],
)
def test_samples_that_lie_together_are_listed(target, lies, tmp_path):
    """Of shards, an array or a table, given by its path or as the target."""
    opened = target(tmp_path)
    values = {"a": torch.arange(4)} if lies == "table" else images(4).contiguous()
    writers = ["image_2d"] if lies == "shards" else []
    with BackgroundWriter(*writers, target=opened, backend="thread") as writer:
        writer.submit_batch(list("abcd"), values, origin=Origin(range(4)))
    (path,) = (path for path in tmp_path.iterdir() if not path.name.startswith("."))
    for where in (path, opened):
        facts = facts_of(where)
        assert [output.lies for output in facts.outputs] == [lies]
        assert facts.samples == len(facts.listing.sample) == 4
    assert main(["report", str(path)]) == 0
    listing = data_of((tmp_path / f"{path.name}-report.html").read_text())["listing"]
    embedded = listing["embedded"]
    assert sorted(embedded) == (["0", "1", "2", "3"] if lies == "shards" else [])
    assert all(one.startswith("data:image/png;base64,") for one in embedded.values())


def test_nothing_that_is_recorded_is_wrong_usage(tmp_path, capsys):
    """With the reason, and without a page."""
    assert main(["report", str(tmp_path / "missing")]) == 2
    assert "there is no directory" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 2
    assert "has no manifest" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_hostile_names_end_no_block_and_fill_no_place(tmp_path):
    """The page is ASCII, and its script reads the very names."""
    with BackgroundWriter("text", tmp_path / "results", backend="thread") as writer:
        writer.submit_batch(HOSTILE, ["x"] * len(HOSTILE), origin=Origin(range(len(HOSTILE))))
    page = page_of(facts_of(tmp_path / "results"), tmp_path / "page.html")
    assert page.isascii()
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img" not in page
    assert data_of(page)["listing"]["names"] == HOSTILE


def test_a_page_is_made_of_whatever_a_manifest_says(tmp_path):
    """Numbers that no run has, and words that are markup: they are passed on, and every number is one of JSON."""
    run = {"format": 2, "run": "</script>", "writer": "<b>", "key": "\ud800", "suffix": ".png", "rank": 0}
    run |= {"world_size": 1 << 60, "resume": False, "numbered": False, "since": 1, "boot": "b", "time": 9e18}
    run |= {"sequence": 1 << 40, "beside": [], "durability": "rename", "config": {"nan": float("nan")}}
    output = {"writer": "<b>", "key": "\ud800", "suffix": ".png", "bytes": (1 << 63) - 1, "xxh3": "0" * 16}
    output |= {"shape": [1 << 62] * 200, "dtype": "<b>"}
    lines = [run]
    for name, time in (("a", 1e300), ("b", -1e300), ("c", 0.0)):
        about = {"index": [-(1 << 63)], "rank": 999_999_999, "loader": 1 << 62, "batch": None, "run": "</script>"}
        lines.append({"samples": 1, "names": [name], "outputs": [output], **about, "time": time})
    (tmp_path / ".lighter-async").mkdir()
    manifest = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / ".lighter-async/manifest-0.jsonl").write_text(manifest)
    page = page_of(facts_of(tmp_path), tmp_path / "page.html")
    assert page.count("</script>") == 2
    assert sorted(data_of(page)["listing"]["names"]) == ["a", "b", "c"]


def test_the_listing_gives_each_name_once_and_the_first_outputs_of_very_many(tmp_path, monkeypatch):
    """It says how many there are in all, and counts them all."""
    monkeypatch.setattr("lighter_async.report.listing.MOST", 6)
    outputs = {"mask": "image_2d", "text": "text"}
    with BackgroundWriter(outputs, tmp_path, backend="thread") as writer:
        writer.submit_batch(list("abcde"), {"mask": images(5), "text": list("vwxyz")}, origin=Origin(range(5)))
    facts = facts_of(tmp_path)
    listing = facts.listing
    assert (facts.samples, listing.total, listing.names) == (5, 10, ["a", "b", "c"])
    assert listing.sample == [0, 0, 1, 1, 2, 2]
    assert [listing.alike[place].image for place in listing.of] == ["file", "", "file", "", "file", ""]


@needs_chromium
def test_a_browser_shows_hostile_names_as_text_and_finds_their_images(tmp_path):
    """No script of theirs runs, nothing is complained of, and each image is loaded from its file."""
    directory = tmp_path / "results # 100%"
    # A file's name cannot hold every hostile text's slash, and one is a path of two folders.
    with BackgroundWriter("image_2d", directory, backend="thread") as writer:
        writer.submit_batch(HOSTILE, images(len(HOSTILE)), origin=Origin(range(len(HOSTILE))))
    assert main(["report", str(directory), "-o", str(tmp_path / "page.html")]) == 0
    with Browser(tmp_path / "profile") as browser:
        browser.open(f"{(tmp_path / 'page.html').as_uri()}#samples")
        browser.evaluate("Promise.all([...document.images].map((one) => one.complete || one.decode()))")
        assert browser.evaluate("[...document.images].map((one) => one.naturalWidth)") == [8] * len(HOSTILE)
        labels = browser.evaluate("[...document.querySelectorAll('.cell .name')].map((one) => one.title)")
        assert labels[0] == HOSTILE[0]
        assert labels[3] == r"two\u000alines\u0009tab"
        assert labels[6] == r"bytes \udcff\udc80"
        assert labels[7] == r"\u202egnp.exe\u200b"
        assert browser.evaluate("document.title").endswith("results # 100% - lighter-async report")
        assert browser.messages == []


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_page_is_searched_and_walked_through_with_the_keyboard(results, tmp_path, dark):
    """Slash searches, arrows move, Enter opens, Esc closes; it is light or dark as the system is, or as is chosen."""
    assert main(["report", str(results), "-o", str(tmp_path / "page.html")]) == 0
    with Browser(tmp_path / "profile", dark=dark, width=700) as browser:
        browser.open((tmp_path / "page.html").as_uri())
        assert "10" in browser.evaluate("document.querySelector('.tile').innerText")
        assert browser.evaluate("document.querySelector('svg .area').getBoundingClientRect().width") > 100
        scheme = "getComputedStyle(document.documentElement).colorScheme"
        assert browser.evaluate(scheme) == ("dark" if dark else "light")
        browser.evaluate("byId('theme').click()")
        assert browser.evaluate(scheme) == ("light" if dark else "dark")
        browser.press("/")
        assert browser.evaluate("document.activeElement.id") == "search"
        browser.press("c", "a", "s", "e", " ", "7")
        browser.press("Enter")
        assert browser.evaluate("byId('found').textContent") == "1 image"
        browser.press("Enter")
        assert "case 7.mask.png" in browser.evaluate("byId('detail').innerText")
        assert "scores (tensor)" in browser.evaluate("byId('detail').innerText")
        browser.press("Escape")
        assert browser.evaluate("byId('detail').open") is False
        browser.press("/", "Escape")
        assert browser.evaluate("byId('found').textContent") == "10 images"
        browser.press("ArrowRight", "ArrowDown", "Enter")
        across = browser.evaluate("samples.across")
        assert f"case {1 + across}" in browser.evaluate("byId('detail').innerText")
        browser.press("ArrowRight")
        assert f"case {2 + across}" in browser.evaluate("byId('detail').innerText")
        browser.press("Escape")
        browser.evaluate("byId('tab-failures').click()")
        assert "ValueError: cannot encode <b>w</b>" in browser.evaluate("byId('failures').innerText")
        assert browser.messages == []


@needs_chromium
def test_of_many_samples_only_those_in_sight_are_drawn(tmp_path):
    """However far one scrolls."""
    with BackgroundWriter("npy", tmp_path / "results", backend="thread") as writer:
        writer.submit_batch([f"{n:05}" for n in range(3000)], np.zeros((3000, 1)), origin=Origin(range(3000)))
    assert main(["report", str(tmp_path / "results"), "-o", str(tmp_path / "page.html")]) == 0
    with Browser(tmp_path / "profile") as browser:
        browser.open(f"{(tmp_path / 'page.html').as_uri()}#samples")
        browser.evaluate("samples.scroll.focus()")
        browser.press("End")
        drawn = browser.evaluate(
            "[...document.querySelectorAll('.item bdi:first-child')].map((one) => one.textContent)"
        )
        assert "02999" in drawn
        assert len(drawn) < 100
        assert browser.messages == []
