"""The command line, and the judgement of what held a run back."""

import ast
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import stats_of

import lighter_async
from lighter_async import BackgroundWriter, read_manifest
from lighter_async.advice import judge
from lighter_async.cli import main
from lighter_async.options import meaning_of

PACKAGE = Path(lighter_async.__file__).parent


def test_help_lists_the_commands(capsys):
    """Asking for help succeeds."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "demo" in capsys.readouterr().out


def test_version_is_the_packages(capsys):
    """It says which program it is, too."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"lighter-async {lighter_async.__version__}\n"


def test_without_a_command_the_help_is_an_error(capsys):
    """Nothing was done, so the exit code is that of wrong usage."""
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "demo" in captured.err


def test_the_demos_help_tells_every_option(capsys):
    """A reader of the help need not look into the source."""
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in ("--output", "--patches", "--quick", "--batch-size", "--max-workers", "--queue-size"):
        assert option in text


@pytest.mark.parametrize("option", ["--patches", "--batch-size", "--max-workers", "--queue-size"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_counts_below_one_are_wrong_usage(option, value, capsys):
    """They are refused before anything is loaded."""
    with pytest.raises(SystemExit) as ended:
        main(["demo", f"{option}={value}"])
    assert ended.value.code == 2
    assert f"'{value}' is not a whole number of at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        (["rich"], "rich, which is not installed"),
        (["skimage"], "scikit-image, which is not installed"),
        (["pytorch_lightning", "lightning"], "pytorch-lightning, which is not installed"),
        (["rich", "skimage"], "rich and scikit-image, which are not installed"),
    ],
)
def test_a_missing_package_is_one_line_with_the_remedy(missing, named, monkeypatch, capsys, tmp_path):
    """No traceback, nothing written, and the exit code of what cannot run."""
    for package in missing:
        monkeypatch.setitem(sys.modules, package, None)
    assert main(["demo", "--output", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"lighter-async: the demo needs {named}: pip install 'lighter-async[demo]'\n"
    assert not (tmp_path / "out").exists()


def test_ctrl_c_ends_with_the_shells_code_for_it(monkeypatch, capsys):
    """One line instead of a traceback."""

    def interrupt(options):
        raise KeyboardInterrupt

    monkeypatch.setattr("lighter_async.cli.parser._run_demo", interrupt)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "lighter-async: interrupted\n"


def test_the_command_line_starts_without_torch():
    """Help and version are there at once, also as a module."""
    code = (
        "import runpy, sys\n"
        "sys.argv = ['lighter-async', '--version']\n"
        "try:\n    runpy.run_module('lighter_async.cli', run_name='__main__')\n"
        "except SystemExit as ended:\n    assert not ended.code\n"
        "loaded = {'torch', 'numpy', 'rich', 'skimage', 'lightning', 'pytorch_lightning'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert lighter_async.__version__ in result.stdout


def printed_help(command, capsys, monkeypatch):
    """The help of a command, on as few lines as it has sentences."""
    monkeypatch.setenv("COLUMNS", "10000")
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("demo", {"--max-workers": "max_workers", "--queue-size": "queue_size"}),
        ("bench", {"--backends": "backend", "--max-workers": "max_workers", "--queue-sizes": "queue_size"}),
    ],
)
def test_help_says_of_a_writers_option_what_its_docstring_says(command, arguments, capsys, monkeypatch):
    """Each sentence is written once, so the two cannot differ."""
    lines = printed_help(command, capsys, monkeypatch).splitlines()
    documented = BackgroundWriter.__doc__.replace("`", "")
    for argument, option in arguments.items():
        meaning = meaning_of(option).replace("`", "")
        (line,) = (line for line in lines if line.strip().startswith(argument))
        assert f" {meaning}" in line
        assert f"{option}: {meaning}" in " ".join(documented.split())


@pytest.mark.parametrize("module", ["lighter_async", "lighter_async.cli"])
def test_the_package_is_the_command(module):
    """Also where the console script is not on the path."""
    command = [sys.executable, "-m", module]
    told = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60)
    assert (told.returncode, told.stdout) == (0, f"lighter-async {lighter_async.__version__}\n")
    assert subprocess.run([*command, "verify"], capture_output=True, timeout=60).returncode == 2


def nobody_reads(command, *, errors=False):
    """Run a command whose output nobody reads; returns its exit status and what it says on standard error."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "lighter_async", *map(str, command)],
            stdout=write,
            stderr=write if errors else subprocess.PIPE,
            text=True,
            timeout=60,
        )
    finally:
        os.close(write)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["verify", "DIR"], 1),
        (["verify", "DIR", "--json"], 1),
        (["manifest", "DIR"], 0),
        pytest.param(["report", "DIR", "-o", "DIR/page.html"], 0, marks=pytest.mark.long),
        pytest.param(["watch", "DIR"], 0, marks=pytest.mark.long),
        pytest.param(["replay", "DIR", "--list"], 0, marks=pytest.mark.long),
        pytest.param(["unpack", "DIR", "DIR-files"], 2, marks=pytest.mark.long),
        pytest.param(["compact", "DIR"], 2, marks=pytest.mark.long),
        pytest.param(["info"], 0, marks=pytest.mark.long),
        (["--help"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_whose_reader_has_left_ends_with_its_own_status_and_no_traceback(tmp_path, command, status):
    """As `head` leaves; also where both outputs go there."""
    folder = tmp_path / "out"
    with BackgroundWriter("text", folder, backend="thread") as writer:
        writer.submit_batch(["a", "b"], ["1", "2"])
    (folder / "a.txt").unlink()
    command = [word.replace("DIR", str(folder)) for word in command]
    told, errors = nobody_reads(command)
    assert told == status
    assert "Traceback" not in errors
    assert "Broken" not in errors
    assert nobody_reads(command, errors=True)[0] == status


def test_a_repair_whose_reader_has_left_is_done_all_the_same(tmp_path):
    """The next run computes what was damaged."""
    with BackgroundWriter("text", tmp_path, backend="thread") as writer:
        writer.submit_batch(["a", "b"], ["1", "2"])
    (tmp_path / "a.txt").unlink()
    assert nobody_reads(["verify", tmp_path, "--repair"])[0] == 0
    assert read_manifest(tmp_path).names() == {"b"}


def test_help_starts_without_numpy_and_torch():
    """Only the help of a command with a writer's options loads what says what they mean, and that needs no PyTorch."""
    code = (
        "import sys\n"
        "from lighter_async.cli import main\n"
        "for command, allowed in (([], set()), (['verify'], set()), (['demo'], {'numpy'})):\n"
        "    try:\n        main([*command, '--help'])\n"
        "    except SystemExit as ended:\n        assert not ended.code\n"
        "    loaded = {'torch', 'numpy', 'lightning', 'pytorch_lightning'} & set(sys.modules)\n"
        "    assert loaded <= allowed, (command, loaded)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def test_nothing_else_imports_the_command_line():
    """Imports point one way."""
    for source in PACKAGE.rglob("*.py"):
        if (PACKAGE / "cli") in source.parents:
            continue
        if source == PACKAGE / "__main__.py":
            continue
        for node in ast.walk(ast.parse(source.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("lighter_async.cli") for name in names), source


# What held a run back: ten seconds with two workers, and what is different about each run.
RUN = stats_of(
    accepted=1000,
    written=1000,
    peak_pending=256,
    peak_pending_bytes=10_000_000,
    bytes_written=5_000_000,
    encode_seconds=8.0,
    store_seconds=1.0,
    open_seconds=10.0,
    max_workers=2,
    queue_size=256,
    queue_bytes=100_000_000,
)


def run(**changes):
    return dataclasses.replace(RUN, **changes)


def test_a_loop_that_never_waited_needs_no_change():
    """The model set the pace."""
    verdict = judge({"masks": run()}, cores=4)
    assert verdict.bound == "model"
    assert "no option needs a change" in verdict.sentence


def test_a_moment_of_waiting_is_not_worth_a_change():
    """A fiftieth of the run does not count."""
    assert judge({"masks": run(waits=3, waited_seconds=0.1)}, cores=4).bound == "model"


def test_a_loop_that_shares_its_cores_is_told_apart_from_one_that_keeps_its_pace():
    """Not waiting is not enough where the loop is known to have run faster alone."""
    verdict = judge({"masks": run()}, cores=2, slowdown=1.8)
    assert verdict.bound == "cores"
    assert "1.8 times as long" in verdict.sentence
    assert "2 cores with 2 workers" in verdict.sentence
    assert "2 cores with 1 worker;" in judge({"masks": run(max_workers=1)}, cores=2, slowdown=1.8).sentence
    assert judge({"masks": run()}, cores=2, slowdown=1.1).bound == "model"


def test_busy_workers_with_cores_to_spare_should_be_more():
    """Encoding can be spread over further cores."""
    verdict = judge({"masks": run(waited_seconds=4.0, encode_seconds=18.0)}, cores=8)
    assert verdict.bound == "workers"
    assert "waited 4.0 of 10.0 s" in verdict.sentence
    assert "raise max_workers" in verdict.sentence


def test_busy_workers_on_all_cores_need_a_cheaper_format():
    """More workers would only share the cores."""
    verdict = judge({"masks": run(waited_seconds=4.0, encode_seconds=18.0)}, cores=2)
    assert verdict.bound == "format"
    assert "cheaper format" in verdict.sentence
    assert "raise" not in verdict.sentence


def test_the_workers_of_all_writers_count_against_the_cores():
    """Two writers with two workers each leave nothing of four cores."""
    slow = run(waited_seconds=4.0, encode_seconds=18.0)
    assert judge({"masks": slow}, cores=4).bound == "workers"
    assert judge({"masks": slow, "features": run()}, cores=4).bound == "format"


def test_the_writer_that_was_waited_for_is_named():
    """The other one needs no change."""
    slow = run(waited_seconds=4.0, encode_seconds=18.0)
    sentence = judge({"features": run(waited_seconds=0.1), "masks": slow}, cores=2).sentence
    assert "masks" in sentence
    assert "features" not in sentence
    assert "4.1 of 10.0 s" in sentence


def test_storing_above_encoding_is_the_disk():
    """A cheaper format would not help."""
    verdict = judge({"masks": run(waited_seconds=4.0, encode_seconds=3.0, store_seconds=15.0)}, cores=8)
    assert verdict.bound == "disk"
    assert "storing was 83%" in verdict.sentence


def test_a_path_function_is_not_taken_for_the_disk():
    """What a function (path, value) does is known as a whole only."""
    verdict = judge({"masks": run(waited_seconds=4.0, encode_seconds=0.0, store_seconds=18.0)}, cores=8)
    assert verdict.bound == "function"


def test_idle_workers_behind_a_waiting_loop_mean_a_small_queue():
    """The bound that is nearer to being full is the option to raise."""
    idle = {"waited_seconds": 4.0, "encode_seconds": 2.0}
    verdict = judge({"masks": run(**idle, peak_pending=32, queue_size=32)}, cores=8)
    assert verdict.bound == "queue"
    assert "raise queue_size" in verdict.sentence
    verdict = judge({"masks": run(**idle, peak_pending=32, peak_pending_bytes=99_000_000)}, cores=8)
    assert verdict.bound == "queue"
    assert "raise queue_bytes" in verdict.sentence


def test_a_queue_that_hid_slow_workers_is_no_sign_that_they_kept_up():
    """What was left after the loop is told, with the option that a longer run needs."""
    verdict = judge({"masks": run(encode_seconds=18.0)}, cores=8, left_seconds=3.0)
    assert verdict.bound == "workers"
    assert "3.0 of 10.0 s" in verdict.sentence
    assert judge({"masks": run(encode_seconds=2.0)}, cores=8, left_seconds=3.0).bound == "backlog"


def test_a_run_without_writers_has_nothing_to_judge():
    """That is a mistake of the caller's."""
    with pytest.raises(ValueError, match="at least one writer"):
        judge({}, cores=2)
