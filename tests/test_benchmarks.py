"""That the benchmark suite runs and reports; what it measures is no test's business."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from harness import DEADLINE

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
    """Made once more from the JSON file it is the same: results first, a table for each part, targets last."""
    first, again = smoke / "smoke.md", smoke / "again" / "smoke.md"
    report = [sys.executable, str(BENCHMARKS / "report.py"), str(smoke / "smoke.json"), str(again)]
    subprocess.run(report, check=True, timeout=60)
    page = again.read_text()
    assert page == first.read_text()
    _, *sections = page.split("\n## ")
    assert [one.splitlines()[0] for one in sections[:3]] == ["In short", "The machine", "The loop's slow-down"]
    assert sections[-1].startswith("Targets\n")
    of_target = dict(one.split("\n", 1) for one in sections[-1].split("\n### ")[1:])
    for target, workload in (
        ("Loop's slow-down, process, at most 1.03", "launch/embeddings"),
        ("Callback at most 1.2 copies + 60 us", "embeddings, process, names"),
        (".pt at least 4 times as fast as torch.save", "64 B"),
        ("Helper at work within 0.3 s", "embeddings, 1 workers"),
    ):
        assert f"\n| {workload} |" in of_target[target], target
    for row in (
        "| Embeddings a second, a file each, in memory, one worker | helpers: ",
        "| loop's slow-down, process, at most 1.03 | ",
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


def test_the_page_says_that_nothing_was_run_on_a_gpu(tmp_path: Path) -> None:
    """Where there are no such figures, and how they come about."""
    file = tmp_path / "page.md"
    report = [sys.executable, str(BENCHMARKS / "report.py"), str(tmp_path / "none.json"), str(file)]
    subprocess.run(report, check=True, timeout=60)
    page = file.read_text()
    assert "## On a GPU\n\nNever run" in page
    assert "`make gpu`" in page


def test_what_is_for_a_gpu_runs_on_the_cpu_and_becomes_a_section(tmp_path: Path) -> None:
    """All models, by all ways that there are, and copies of several sizes; added to the figures of another run."""
    file, page, kept = tmp_path / "gpu.json", tmp_path / "page.md", tmp_path / "figures.json"
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--smoke", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    cases = json.loads(file.read_text())["cases"]
    assert set(cases) == {"gpu/bus", "gpu/resnet50", "gpu/minilm", "gpu/unet"}
    assert {"lighter_async, process", "lighter_async, thread", "inline", "thread pool of 4"} <= set(
        cases["gpu/unet"]["ways"]
    )
    assert "lighter_async, process, shards" in cases["gpu/minilm"]["ways"]
    report = [sys.executable, str(BENCHMARKS / "report.py"), str(kept), str(page), "--add", str(file)]
    subprocess.run(report, check=True, timeout=60)
    assert json.loads(kept.read_text())["cases"] == cases
    text = page.read_text()
    for row in ("## On a GPU", "On the CPU, which shows that everything runs", "| 4,096 B | lighter_async, process |"):
        assert row in text, row
    assert "Never run" not in text


def test_the_script_for_a_gpu_says_what_it_lacks(tmp_path: Path) -> None:
    """An interpreter without a device, and one without torch."""
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    script = [str(BENCHMARKS / "gpu.sh"), str(tmp_path / "out")]
    done = subprocess.run(
        script, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHON": sys.executable}
    )
    assert done.returncode == 1
    assert "sees no CUDA device" in done.stderr


@pytest.mark.parametrize(
    ("spans", "share"),
    [
        ([], None),
        ([(0.0, 10.0)], 0.0),
        ([(0.0, 4.0), (6.0, 10.0)], 0.2),
        ([(0.0, 6.0), (1.0, 2.0), (4.0, 8.0), (9.0, 10.0)], 0.1),
    ],
)
def test_the_idle_share_is_what_no_kernel_covers(
    monkeypatch: pytest.MonkeyPatch, spans: list[tuple[float, float]], share: float | None
) -> None:
    """Kernels of several streams lie over each other."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    found = importlib.import_module("gpu_loop").idle_share(spans)
    assert found == share if share is None else found == pytest.approx(share)


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


MOUNTING = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from measure import folder_in, journaled
with journaled("16M", Path(sys.argv[2])) as mounted, folder_in(mounted) as folder, open(folder / "file", "wb") as file:
    file.write(bytes(1000))
    print("mounted", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_nothing_stays_mounted_where_a_benchmark_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    """In the middle of a run, with a file open there."""
    command = [sys.executable, "-c", MOUNTING, str(BENCHMARKS), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "mounted\n":
            pytest.skip("mounting is not allowed")
        assert str(tmp_path) in Path("/proc/mounts").read_text()
        process.send_signal(number)
        assert process.wait(DEADLINE) == 128 + number
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    assert list(tmp_path.iterdir()) == []
