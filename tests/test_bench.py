"""The bench: tiny real runs, its rule on made-up figures, and what it refuses."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter, namedtuple

import numpy as np
import pytest
import torch
from harness import stats_of
from PIL import Image

from lighter_async import write_image_2d
from lighter_async.cli import main
from lighter_async.cli.bench import loops, runs
from lighter_async.cli.bench import workload as workload_module
from lighter_async.cli.bench.choice import choose
from lighter_async.cli.bench.figures import Figures, Inline, Spread, baseline_of, figures_of, inline_of
from lighter_async.cli.bench.folders import fresh_folder, insist
from lighter_async.cli.bench.grid import INLINE, Setting, rounds
from lighter_async.cli.bench.loops import make_step
from lighter_async.cli.bench.plan import Cost, make_plan
from lighter_async.cli.bench.runs import Run
from lighter_async.cli.bench.workload import Workload, make_batches
from lighter_async.limits import DEFAULT_QUEUE_SIZE

TINY = ["--steps=2", "--repeats=1", "--step-ms=0.5", "--shape=3,16,16", "--batch-size=3", "--queue-sizes=4"]
ONE = [*TINY, "--backends=thread", "--max-workers=1"]


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    """The workers need no time to start where nothing is measured."""
    monkeypatch.setattr(runs, "WARM_UP_SECONDS", 0)


@pytest.fixture
def disk(tmp_path):
    """The folder to write to, which must be empty afterwards."""
    folder = tmp_path / "disk"
    folder.mkdir()
    yield folder
    assert not [*folder.glob("[!.]*")]


def bench(disk, *arguments):
    return main(["bench", f"--directory={disk}", *arguments])


def refused(capsys, *arguments):
    """What is complained of as wrong usage."""
    with pytest.raises(SystemExit) as ended:
        main(["bench", *arguments])
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


# Runs


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("device", ["--format=tensor"]),
        ("launch", ["--format=tensor", "--dtype=int64", "--shape=7"]),
        ("device", ["--format=image_2d", "--dtype=bfloat16"]),
        ("device", ["--format=image_3d", "--shape=1,2,16,16", "--dtype=bool"]),
        ("launch", ["--format=text", "--shape=40"]),
    ],
)
def test_a_run_ends_with_a_table_and_a_line_for_the_code(kind, arguments, disk, capsys):
    """For every format and both kinds of loop, and nothing stays on the disk."""
    assert bench(disk, *ONE, f"--kind={kind}", *arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "slow-down" in captured.out
    assert "Without writing the loop took" in captured.out
    lines = captured.out.splitlines()
    assert len([line for line in lines if line.startswith("inline ")]) == 1
    line = lines.index('FileWriter(..., backend="thread", max_workers=1, queue_size=4)')
    assert lines[line + 1].startswith("It is the only setting that was run")
    assert lines[line + 2].startswith("Written inline, a long job would take ")


def test_every_backend_is_compared_unless_some_are_named(disk, tmp_path, capsys):
    """Those that there are, each with every number of workers and every queue size."""
    figures = tmp_path / "figures.json"
    assert bench(disk, *TINY, "--max-workers=1,2", "--queue-sizes=3,6", f"--json={figures}") == 0
    found = [tuple(one["setting"].values()) for one in json.loads(figures.read_text())["settings"]]
    backends = {backend for backend, *_ in found}
    assert "thread" in backends
    assert found == [(b, w, q) for b in ("thread", "process") if b in backends for w in (1, 2) for q in (3, 6)]


def test_the_json_file_holds_machine_workload_and_every_run(disk, tmp_path, capsys):
    """The settings' figures are the medians of the runs that stand there."""
    file = tmp_path / "figures.json"
    assert bench(disk, *ONE, "--repeats=3", "--max-workers=1,2", "--kind=launch", f"--json={file}") == 0
    record = json.loads(file.read_text())
    assert set(record) == {
        "lighter_async",
        "date",
        "machine",
        "versions",
        "workload",
        "baseline",
        "settings",
        "inline",
        "runs",
        "recommendation",
    }
    assert set(record["machine"]) == {"platform", "processor", "cores", "memory_bytes"}
    assert record["versions"]["torch"] == torch.__version__
    assert record["workload"]["calls_per_step"] >= 1
    expected = {"kind": "launch", "shape": [3, 16, 16], "dtype": "float32", "batch_size": 3, "format": "tensor"}
    assert expected.items() <= {**record["workload"]}.items()
    written = [run for run in record["runs"] if run["setting"]]
    assert len(written) == 2 * 3
    inline = [run for run in record["runs"] if run["inline"]]
    assert len(inline) == 3
    assert len(record["runs"]) == len(written) + len(inline) + 2 * 3
    for run in written:
        assert run["total_seconds"] >= run["loop_seconds"] > 0
        assert run["stats"]["accepted"] == run["stats"]["written"] == 6
        assert run["stored_bytes"] == run["stats"]["bytes_written"] > 6 * 3 * 16 * 16 * 4
    for one in record["settings"]:
        speeds = sorted(6 / run["total_seconds"] for run in written if run["setting"] == one["setting"])
        assert one["samples_per_second"] == pytest.approx({"least": speeds[0], "median": speeds[1], "most": speeds[2]})
    assert {run["stored_bytes"] for run in inline} == {run["stored_bytes"] for run in written}
    speeds = sorted(6 / run["total_seconds"] for run in inline)
    assert list(record["inline"]["samples_per_second"].values()) == pytest.approx([speeds[1], speeds[0], speeds[2]])
    chosen = Setting(**record["recommendation"]["setting"])
    assert record["recommendation"]["line"] == f"FileWriter(..., {chosen})"


def test_the_plot_is_a_png(disk, tmp_path, capsys):
    """Whatever its name ends in; lines and the ring are drawn."""
    file = tmp_path / "plot"
    assert bench(disk, *ONE, "--max-workers=1,2", f"--plot={file}") == 0
    assert f"plot: {file}" in capsys.readouterr().out
    with Image.open(file) as plot:
        assert plot.format == "PNG"
        pixels = np.asarray(plot.convert("RGB")).astype(int)
    assert min(pixels.shape[:2]) > 600
    orange = (pixels[..., 0] - pixels[..., 2] > 100).any(axis=1)
    for half in np.array_split(orange, 2):
        assert half.any()


def test_quick_has_a_small_grid(disk, tmp_path, capsys):
    """The writer's own queue size, and the least and the most workers."""
    file = tmp_path / "figures.json"
    assert bench(disk, *ONE[:5], "--backends=thread", "--quick", f"--json={file}") == 0
    settings = [one["setting"] for one in json.loads(file.read_text())["settings"]]
    assert {setting["queue_size"] for setting in settings} == {DEFAULT_QUEUE_SIZE}
    assert settings[0]["max_workers"] == 1
    assert len(settings) <= 2


def test_progress_is_shown_on_a_terminal(disk, monkeypatch, capsys):
    """A bar counts the runs; where there is no terminal there are no control codes."""
    assert bench(disk, *ONE) == 0
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert bench(disk, *ONE) == 0
    assert "4/4" in capsys.readouterr().out


def test_the_table_fits_a_terminal_of_80_columns(disk, monkeypatch, capsys):
    """No heading is cut off."""
    monkeypatch.setenv("COLUMNS", "80")
    assert bench(disk, *ONE) == 0
    told = capsys.readouterr().out
    assert "…" not in told
    for heading in ("backend", "workers", "slow-down", "samples/s", "MB/s", "waited"):
        assert heading in told


# Writers of the user's own


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's in the working folder."""
    module = """
        from lighter_async import encoder

        @encoder(suffix=".raw")
        def raw(value):
            return value.numpy().tobytes()

        def plain(path, value):
            path.write_bytes(value.numpy().tobytes())

        def late(path, value):
            if path.name.startswith("000001"):
                raise ValueError("no more of this")

        async def asynchronous(path, value):
            path.write_bytes(value.numpy().tobytes())

        late_names = []
        nothing = 3
    """
    (tmp_path / "own_writers.py").write_text(textwrap.dedent(module))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("own_writers", None)


@pytest.mark.parametrize("name", ["raw", "plain"])
def test_a_writer_of_the_users_is_found_in_the_working_folder(name, own, disk, tmp_path, capsys):
    """An encoder or a function (path, value), and its bytes are counted on the disk."""
    file = tmp_path / "figures.json"
    assert bench(disk, *ONE, f"--format=own_writers:{name}", f"--json={file}") == 0
    (run,) = [run for run in json.loads(file.read_text())["runs"] if run["setting"]]
    assert run["stored_bytes"] == 6 * 3 * 16 * 16 * 4


def test_a_sample_that_is_not_written_ends_the_bench(own, disk, monkeypatch, capsys):
    """With the writer's own words and the exit code of a failure, and nothing stays on the disk."""
    monkeypatch.setattr("lighter_async.cli.bench.job.try_out", lambda *_: Cost(0.001, 1000))
    assert bench(disk, *ONE, "--format=own_writers:late") == 1
    assert "no more of this" in capsys.readouterr().err


def test_an_async_function_has_no_inline_row(own, disk, capsys):
    """It cannot be called by a plain loop."""
    assert bench(disk, *ONE, "--format=own_writers:asynchronous") == 0
    assert "inline" not in capsys.readouterr().out


def test_a_sample_that_is_not_written_inline_ends_the_bench(own, disk, monkeypatch, capsys):
    """In the same way."""
    monkeypatch.setattr("lighter_async.cli.bench.job.try_out", lambda *_: Cost(0.001, 1000))
    monkeypatch.setattr("lighter_async.cli.bench.job.rounds", lambda *_, **__: [[INLINE]])
    assert bench(disk, *ONE, "--format=own_writers:late") == 1
    assert "writer 'own_writers:late' failed inline: ValueError: no more of this" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("jpegxl", "Writer with name 'jpegxl' is not registered"),
        ("own_writers:missing", "has no 'missing'"),
        ("own_writers:nothing", "not int"),
        ("no_such_module:write", "no module 'no_such_module' can be imported"),
    ],
)
def test_a_format_that_is_none_is_refused(name, reason, own, disk, capsys):
    """With the names that there are, and how to give one of one's own."""
    told = refused(capsys, f"--directory={disk}", f"--format={name}")
    assert f"--format: {name!r} is no writer here" in told
    assert reason in told
    assert "module:name" in told


# Wrong usage


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--kind=gpu"], "argument --kind: invalid choice: 'gpu'"),
        (["--step-ms=0"], "argument --step-ms: '0' is not a number above 0"),
        (["--step-ms=nan"], "argument --step-ms: 'nan' is not a number above 0"),
        (["--seconds=long"], "argument --seconds: 'long' is not a number above 0"),
        (["--steps=2", "--seconds=2"], "not allowed with argument"),
        (["--batch-size=0"], "argument --batch-size: '0' is not a whole number of at least 1"),
        (["--shape=3,x"], "argument --shape: 'x' is not a whole number of at least 1"),
        (["--max-workers=1,,2"], "argument --max-workers: '' is not a whole number of at least 1"),
        (["--queue-sizes=-4"], "argument --queue-sizes: '-4' is not a whole number of at least 1"),
        (["--repeats=0"], "argument --repeats: '0' is not a whole number of at least 1"),
        (["--backends=thread,gpu"], "argument --backends: 'gpu' is neither 'thread' nor 'process'"),
        (["--dtype=float31"], "argument --dtype: invalid choice: 'float31'"),
        (["--format=text", "--dtype=uint8"], "--dtype: a text has none; leave the option out"),
        (["--shape=100000,100000,100"], "--shape, --batch-size: a batch of 32000.0 GB is more than an eighth"),
        (["--format=image_2d", "--shape=5,8,8"], "--format, --shape, --dtype: 'image_2d' cannot write a sample of"),
        (["--format=image_2d", "--dtype=int64"], "could mean labels or intensities"),
        (["--quick", "--step-ms=5000", "--shape=4"], "--quick: 24 runs of 2 steps would take"),
    ],
)
def test_wrong_options_are_named_with_the_way_out(arguments, complaint, disk, monkeypatch, capsys):
    """As argparse does it, before anything is run."""
    monkeypatch.setattr("lighter_async.cli.bench.grid.usable_cores", lambda: 2)
    monkeypatch.setattr(
        "lighter_async.cli.bench.job.settings_of", lambda *_: [Setting("thread", 1, 9 + n) for n in range(4)]
    )
    assert complaint in refused(capsys, f"--directory={disk}", *arguments)


@pytest.mark.parametrize("option", ["--directory", "--json", "--plot"])
def test_a_folder_that_does_not_exist_is_named(option, tmp_path, capsys):
    """Now, and not when the results are there."""
    told = refused(capsys, f"{option}={tmp_path / 'missing' / 'x'}")
    assert f"{option}: there is no folder" in told
    assert str(tmp_path / "missing") in told


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_a_folder_is_no_file_for_results(option, tmp_path, capsys):
    """The remedy is to name a file."""
    assert f"{option}: {str(tmp_path)!r} is a folder; name a file" in refused(capsys, f"{option}={tmp_path}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_named(tmp_path, capsys):
    """The same for the files and for the results."""
    tmp_path.chmod(0o500)
    assert "--directory" in refused(capsys, f"--directory={tmp_path}")
    assert "--json" in refused(capsys, f"--json={tmp_path / 'x'}")


def test_a_disk_that_is_too_small_is_refused_up_front(disk, monkeypatch, capsys):
    """With what a run takes, what there is, and what to change."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 200_000))
    told = refused(capsys, f"--directory={disk}", *ONE, "--steps=50")
    assert "--directory: a run's files take 0.00 GB" in told
    assert "--steps" in told


def test_a_backend_that_cannot_be_had_is_refused_only_if_asked_for(disk, tmp_path, monkeypatch, capsys):
    """Without being asked for it is left out."""
    monkeypatch.setattr(
        "lighter_async.cli.bench.backends.refusal",
        lambda backend, writer: "it needs another system" if backend == "process" else None,
    )
    told = refused(capsys, f"--directory={disk}", *TINY, "--backends=process,thread")
    assert "--backends: 'process' cannot be had here: it needs another system" in told
    file = tmp_path / "figures.json"
    assert bench(disk, *TINY, "--max-workers=1", f"--json={file}") == 0
    assert {one["setting"]["backend"] for one in json.loads(file.read_text())["settings"]} == {"thread"}


@pytest.mark.parametrize(
    ("missing", "arguments", "named"),
    [
        (["rich"], [], "rich, which is not installed"),
        (["matplotlib"], ["--plot=plot.png"], "matplotlib, which is not installed"),
        (["rich", "matplotlib"], ["--plot=plot.png"], "rich and matplotlib, which are not installed"),
    ],
)
def test_a_missing_package_is_one_line_with_the_remedy(missing, arguments, named, disk, monkeypatch, capsys):
    """Before anything is run."""
    for package in missing:
        monkeypatch.setitem(sys.modules, package, None)
    assert bench(disk, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"lighter-async: the bench needs {named}: pip install 'lighter-async[bench]'\n"


def test_the_plots_package_is_needed_for_plots_only(disk, monkeypatch, capsys):
    """The table does without."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert bench(disk, *ONE) == 0


def test_the_help_tells_every_option(capsys):
    """A reader of the help need not look into the source."""
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in (
        *("--kind", "--step-ms", "--batch-size", "--shape", "--dtype", "--format", "--directory"),
        *("--backends", "--max-workers", "--queue-sizes", "--steps", "--seconds", "--repeats", "--quick"),
        *("--json", "--plot"),
    ):
        assert option in text


# Ctrl-C


@pytest.mark.long
def test_ctrl_c_removes_the_files(tmp_path):
    """Exit code 130 and one line, in the middle of a run that would take minutes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    arguments = ["bench", f"--directory={disk}", "--steps=100000", "--shape=64", "--max-workers=1"]
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which a shell in the background ignores
        "from lighter_async.cli import main\n"
        f"sys.exit(main({arguments!r}))\n"
    )
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not any(disk.iterdir()):
            assert program.poll() is None, program.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        program.send_signal(signal.SIGINT)
        _, complained = program.communicate(timeout=60)
    finally:
        program.kill()
        program.wait()
    assert program.returncode == 130
    assert complained == "lighter-async: interrupted\n"
    assert not [*disk.iterdir()]


def test_a_second_ctrl_c_does_not_keep_the_files(tmp_path, monkeypatch):
    """The removal that it interrupts is done all the same."""
    remove, calls = shutil.rmtree, []

    def interrupted_once(folder):
        calls.append(folder)
        if len(calls) == 1:
            raise KeyboardInterrupt
        remove(folder)

    monkeypatch.setattr(shutil, "rmtree", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        with fresh_folder(tmp_path) as folder:
            (folder / "large").write_bytes(b"")
    assert len(calls) == 2
    assert not [*tmp_path.glob("[!.]*")]


def test_insisting_calls_once_where_nothing_interrupts():
    """And other errors come through."""
    calls = []
    insist(lambda: calls.append(1))
    assert calls == [1]
    with pytest.raises(ValueError, match="broken"):
        insist(lambda: (_ for _ in ()).throw(ValueError("broken")).__next__())


# What is handed over


def workload(**changes):
    return Workload(
        **{
            "kind": "device",
            "step_seconds": 0.01,
            "shape": (3, 64, 64),
            "dtype": "float32",
            "batch_size": 2,
            "format": "tensor",
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("dtype", "bound"), [("float32", 1), ("float16", 1), ("bfloat16", 1), ("uint8", 255), ("bool", 1), ("int16", 100)]
)
def test_batches_are_of_the_shape_and_dtype_asked_for(dtype, bound):
    """They differ from each other, use their range, and are the same every time."""
    batches = make_batches(workload(dtype=dtype))
    assert len(batches) > 1
    for batch, again in zip(batches, make_batches(workload(dtype=dtype)), strict=True):
        assert batch.shape == (2, 3, 64, 64)
        assert batch.dtype is getattr(torch, dtype)
        assert torch.equal(batch, again)
        assert 0 <= batch.min() < 0.3 * bound <= 0.7 * bound < batch.max() <= bound
    assert not torch.equal(batches[0], batches[1])


def test_images_compress_as_photographs_do():
    """Neither as constants nor as pure noise would."""
    batch, *_ = make_batches(workload(shape=(3, 224, 224)))
    size = sum(part.nbytes for part in write_image_2d.encode(batch[0]))
    assert 0.4 < size / batch[0].numel() < 0.7


def test_small_shapes_are_no_images():
    """Embeddings of any length, also of one."""
    for shape in ((384,), (1,), (2, 3), (4, 5, 6)):
        assert make_batches(workload(shape=shape))[0].shape == (2, *shape)


def test_texts_are_as_long_as_asked_for():
    """In words."""
    for batch in make_batches(workload(format="text", shape=(40,), dtype="str")):
        assert [len(text) for text in batch] == [40, 40]
        assert " " in batch[0]


def test_large_batches_are_fewer(monkeypatch):
    """One of a gigabyte is enough to hand over again and again; here, of a megabyte."""
    monkeypatch.setattr(workload_module, "_MOST_BYTES", 1 << 20)
    assert len(make_batches(workload(shape=(1, 256, 256), batch_size=4, dtype="uint8"))) == 4
    assert len(make_batches(workload(shape=(1, 256, 256), batch_size=5, dtype="float32"))) == 1


def test_a_launching_step_makes_the_same_calls_each_time(monkeypatch):
    """So that what delays them makes the loop longer."""
    monkeypatch.setattr(loops, "_seconds_a_call", lambda: 3e-6)
    made = []
    monkeypatch.setattr(loops, "_launch", made.append)
    step = make_step("launch", 0.003)
    step.run()
    step.run()
    assert made == [1000, 1000]
    assert step.calls == 1000
    assert make_step("launch", 1e-9).calls == 1


def test_a_waiting_step_ends_at_its_deadline(monkeypatch):
    """Also when it is woken early."""
    now, slept = [10.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds / 2 if len(slept) < 3 else seconds

    monkeypatch.setattr(loops, "perf_counter", lambda: now[0])
    monkeypatch.setattr(loops, "sleep", sleep)
    make_step("device", 4.0).run()
    assert slept == [4.0, 2.0, 1.0]
    assert now == [14.0]


# The order and length of the runs

GRID = [Setting(backend, workers, size) for backend in ("thread", "process") for workers in (1, 2) for size in (8, 64)]


def test_every_round_has_every_setting_and_inline_writing_between_runs_without_writing():
    """At both ends and after three at most; rounds differ in their order."""
    found = rounds(GRID, 3)
    assert len(found) == 3
    assert found == rounds(GRID, 3)
    assert found[0] != found[1]
    for order in found:
        assert Counter(one for one in order if one is not None) == Counter([*GRID, INLINE])
        assert order[0] is order[-1] is None
        gaps = "".join("-" if one is None else "x" for one in order)
        assert max(map(len, gaps.split("-"))) <= 3
        assert "--" not in gaps
    assert all(INLINE not in order for order in rounds(GRID, 3, inline=False))


def options(**changes):
    """As far as a plan looks at them."""
    plain = {"step_seconds": 0.02, "steps": None, "seconds": None, "quick": False, **changes}
    return namedtuple("options", plain)(**plain)


def test_a_run_lasts_about_as_long_as_asked_for():
    """In steps of the loop, or of the writing where that takes longer."""
    order = [None, *GRID, None]
    assert make_plan(options(seconds=2.0), Cost(0.001, 10), GRID, order).steps == 100
    assert make_plan(options(seconds=2.0), Cost(0.1, 10), GRID, order).steps == 20
    assert make_plan(options(seconds=0.01), Cost(0.1, 10), GRID, order).steps == 2
    assert make_plan(options(steps=7), Cost(0.1, 10), GRID, order).steps == 7


def test_writing_inline_is_expected_to_take_the_loops_time_and_its_own():
    """One after the other."""
    assert make_plan(options(steps=7), Cost(0.1, 10), GRID, [None, INLINE]).seconds == pytest.approx(7 * (0.02 + 0.12))


def test_the_plan_counts_what_the_largest_run_stores():
    """What is written before the loop starts counts too."""
    assert make_plan(options(steps=7), Cost(0.1, 10), GRID, [None, *GRID]).stored_bytes == (7 + 4) * 10


def test_quick_shortens_the_runs_to_fit():
    """Until they cannot be shorter, which is an error that another test looks at."""
    order = 3 * [None, *GRID, None]
    plan = make_plan(options(quick=True), Cost(0.05, 10), GRID, order)
    assert 2 <= plan.steps < 20
    assert plan.seconds < 45


# What runs come to

STATS = stats_of(
    accepted=80,
    written=80,
    peak_pending=16,
    peak_pending_bytes=1000,
    bytes_written=8000,
    waited_seconds=0.5,
    encode_seconds=1.0,
    store_seconds=1.0,
    open_seconds=2.0,
    max_workers=1,
    queue_size=64,
    queue_bytes=10**6,
)
SETTING = Setting("thread", 1, 64)


def written(number, loop, total, left=0, **stats):
    return Run(
        setting=SETTING,
        round=number,
        loop_seconds=loop,
        total_seconds=total,
        left=left,
        stored_bytes=8_000_000,
        stats=dataclasses.replace(STATS, **stats),
    )


def alone(number, loop):
    return Run(setting=None, round=number, loop_seconds=loop, total_seconds=loop)


def test_slow_downs_are_relative_to_the_same_round():
    """What the machine does in one round falls on both."""
    found = [
        *(alone(0, 2.0), written(0, 2.2, 4.0), alone(0, 2.0)),
        *(alone(1, 4.0), written(1, 4.8, 5.0, peak_pending_bytes=3000), alone(1, 4.4), alone(1, 3.9)),
        *(alone(2, 2.0), written(2, 2.0, 2.5)),
    ]
    (one,) = figures_of(found, workload(batch_size=8), steps=10)
    assert one.slowdown == Spread(pytest.approx(1.1), pytest.approx(1.0), pytest.approx(1.2))
    assert one.samples_per_second == Spread(pytest.approx(20), pytest.approx(16), pytest.approx(32))
    assert one.megabytes_per_second.median == pytest.approx(2.0)
    assert one.waited_seconds.median == 0.5
    assert one.peak_bytes == 3000
    assert baseline_of(found).noise == pytest.approx(0.5 / 4.0)
    assert baseline_of(found).loop_seconds == Spread(2.95, 2.0, 4.4)


def test_inline_writing_is_compared_with_the_same_round():
    """As the settings are; without such runs there is nothing to compare."""
    inline = dataclasses.replace(alone(0, 3.0), stored_bytes=6_000_000, inline=True)
    found = [alone(0, 2.0), inline, alone(0, 2.0), alone(1, 4.0), dataclasses.replace(inline, round=1)]
    assert inline_of(found, workload(batch_size=8), steps=10) == Inline(
        Spread(1.125, 0.75, 1.5), Spread(*[pytest.approx(80 / 3)] * 3), Spread(2.0, 2.0, 2.0)
    )
    assert baseline_of(found).loop_seconds == Spread(2.0, 2.0, 4.0)
    assert inline_of(found[:1], workload(batch_size=8), steps=10) is None


def test_a_backlog_counts_as_slow_down_in_a_long_job():
    """A queue hides from a short loop what a long one would have to wait for; two batches are always on their way."""
    (kept_up,) = figures_of([alone(0, 2.0), written(0, 2.0, 3.0, left=16)], workload(batch_size=8), steps=10)
    assert kept_up.long_slowdown.median == 1.0
    (fell_behind,) = figures_of([alone(0, 2.0), written(0, 2.0, 3.0, left=17)], workload(batch_size=8), steps=10)
    assert fell_behind.slowdown.median == 1.0
    assert fell_behind.long_slowdown.median == 1.5


# The recommendation


def figures(setting, slowdown, speed, *, spread=0.0, speed_spread=0.0):
    around = Spread(slowdown, slowdown - spread, slowdown + spread)
    return Figures(
        setting=Setting(*setting),
        slowdown=around,
        long_slowdown=around,
        samples_per_second=Spread(speed, speed - speed_spread, speed + speed_spread),
        megabytes_per_second=Spread(1, 1, 1),
        waited_seconds=Spread(0, 0, 0),
        peak_bytes=1,
        stats=STATS,
        left_seconds=0.0,
    )


SMALL, LARGE = ("thread", 1, 64), ("process", 2, 256)


def chosen(*found, noise=0.0):
    return choose(found, noise=noise).setting


def test_the_lowest_slow_down_is_chosen_where_it_is_clear():
    """Throughput and size come after it."""
    assert chosen(figures(SMALL, 1.5, 900), figures(LARGE, 1.0, 400)) == Setting(*LARGE)


def test_of_equal_slow_downs_the_highest_throughput_is_chosen():
    """Where it is clear."""
    assert chosen(figures(SMALL, 1.01, 400), figures(LARGE, 1.0, 600)) == Setting(*LARGE)


def test_of_equals_the_smallest_is_chosen():
    """Two percent are noise everywhere."""
    assert chosen(figures(SMALL, 1.019, 392), figures(LARGE, 1.0, 399)) == Setting(*SMALL)
    assert chosen(figures(SMALL, 1.03, 392), figures(LARGE, 1.0, 399)) == Setting(*LARGE)


def test_what_the_best_one_varies_by_is_noise():
    """In slow-down and in throughput."""
    assert chosen(figures(SMALL, 1.09, 380), figures(LARGE, 1.0, 400, spread=0.1, speed_spread=30)) == Setting(*SMALL)
    assert chosen(figures(SMALL, 1.09, 360), figures(LARGE, 1.0, 400, spread=0.1, speed_spread=30)) == Setting(*LARGE)


def test_what_the_loop_alone_varies_by_is_noise_within_limits():
    """A machine that does something else tells less, but never nothing."""
    assert chosen(figures(SMALL, 1.09, 380), figures(LARGE, 1.0, 400), noise=0.1) == Setting(*SMALL)
    assert chosen(figures(SMALL, 1.4, 380), figures(LARGE, 1.0, 400), noise=3.0) == Setting(*LARGE)


def test_fewer_workers_are_smaller_than_a_smaller_queue_and_threads_than_processes():
    """The order of what equal settings cost."""
    equal = [figures(one, 1.0, 400) for one in (("thread", 2, 8), ("process", 1, 256), ("thread", 1, 256))]
    assert chosen(*equal) == Setting("thread", 1, 256)
    assert chosen(*equal[:2]) == Setting("process", 1, 256)
    assert chosen(*equal[:2], figures(("process", 1, 64), 1.0, 400)) == Setting("process", 1, 64)


def test_the_reason_tells_the_figures_and_the_rivals():
    """A sentence; of the best ones only where they are others."""
    choice = choose([figures(SMALL, 1.01, 392), figures(LARGE, 1.0, 399)], noise=0.0)
    assert choice.line == 'FileWriter(..., backend="thread", max_workers=1, queue_size=64)'
    assert "Of 2 settings" in choice.reason
    assert "1.01 times as long" in choice.reason
    assert "(the lowest: 1.00)" in choice.reason
    assert "(the most: 399)" in choice.reason
    clear = choose([figures(SMALL, 1.5, 392), figures(LARGE, 1.0, 399)], noise=0.0)
    assert "the lowest:" not in clear.reason
    assert "the most:" not in clear.reason


def test_the_line_is_code():
    """It can be pasted as it stands."""
    line = choose([figures(LARGE, 1.0, 399)], noise=0.0).line
    found = eval(line, {"FileWriter": lambda *args, **options: options})
    assert found == {"backend": "process", "max_workers": 2, "queue_size": 256}
