"""That the benchmark suite runs and reports; what it measures is no test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
PARTS = {
    *("loops", "handover", "saturated", "waits", "encoders", "minilm", "memory", "scale", "records", "helpers"),
    *("formats", "shards", "arrays", "tables", "slowdown", "first_second", "by_name", "after_kill"),
}

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it looks at processes through /proc"),
]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a short run of everything has left its figures and its page."""
    folder = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--smoke", "--json", str(folder / "smoke.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_smoke_run_has_figures_of_every_part_and_names_what_it_left_out(smoke: Path) -> None:
    """Both of our backends stand beside the loop without writing; peers that are not installed are told."""
    figures = json.loads((smoke / "smoke.json").read_text())
    assert {case.partition("/")[0] for case in figures["cases"]} == PARTS
    loops = figures["cases"]["loops/launch/embeddings"]
    assert {"lighter_async, process", "lighter_async, thread", "inline", "thread pool"} <= set(loops["peers"])
    assert {"median", "least", "most", "n"} <= set(loops["peers"]["inline"]["loop"])
    assert set(loops["left_out"]).isdisjoint(loops["peers"])
    assert {case["on"] for case in figures["cases"].values()} == set(figures["environments"])


def test_a_page_is_made_of_the_figures_alone(smoke: Path) -> None:
    """Made once more from the JSON file it is the same, with a row for each target and a table for each part."""
    first, again = smoke / "smoke.md", smoke / "again" / "smoke.md"
    report = [sys.executable, str(BENCHMARKS / "report.py"), str(smoke / "smoke.json"), str(again)]
    subprocess.run(report, check=True, timeout=60)
    page = again.read_text()
    assert page == first.read_text()
    for row in (
        "| loop's slow-down, process, at most 1.03 | launch/embeddings |",
        "| callback at most 1.2 copies + 60 us | embeddings, process, names |",
        "| .pt at least 4 times as fast as torch.save | 64 B |",
        "| helper at work within 0.3 s |",
        "| nothing |",
        "| floor, 2 |",
        "| Pillow, level 6 |",
        "| webp, method=0 |",
        "| TarShards, process, rename |",
        "| ArrayTarget, process, 1 |",
        "| array, thread |",
        "| results[name] |",
        "| numpy memmap inline |",
    ):
        assert row in page, row
    assert {path.name for path in (smoke / "again" / "smoke").iterdir()} >= {"loops.png", "scale.png", "shards.png"}


def test_a_part_by_itself_adds_to_a_file_that_a_page_can_be_made_of(tmp_path: Path) -> None:
    """It says what it measured on, and prints the tables that the page has."""
    file, page = tmp_path / "figures.json", tmp_path / "page.md"
    for size in ("128", "256"):
        command = [sys.executable, str(BENCHMARKS / "shards.py"), "--samples", size, "--rounds", "1"]
        command += ["--folder", str(tmp_path), "--only", "thread, rename", "tarfile", "--json", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
    (case,) = json.loads(file.read_text())["cases"].values()
    assert case["title"].startswith("256 tensors of 384 float32 as .pt")
    assert set(case["ways"]) == {"files, thread, rename", "TarShards, thread, rename", "tarfile"}
    subprocess.run([sys.executable, str(BENCHMARKS / "report.py"), str(file), str(page)], check=True, timeout=60)
    assert done.stdout.strip() in page.read_text().replace("![Files and shards](page/shards.png)\n\n", "")
