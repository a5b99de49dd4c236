"""The demo: a real predict over photographs, run quickly, and each of its parts."""

import contextlib
import io
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress as RichProgress
from scipy import ndimage
from skimage import data

from lighter_async import BackgroundWriter
from lighter_async.callback.progress import Progress
from lighter_async.cli import main
from lighter_async.cli.demo import job
from lighter_async.cli.demo.check import differing_files
from lighter_async.cli.demo.folders import files_below, prepare_folder
from lighter_async.cli.demo.model import EdgesAndTextures
from lighter_async.cli.demo.photographs import PATCH_PIXELS, Patches, load_photographs

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def photographs():
    return load_photographs()


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The quick demo's exit code, output and folder."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    told, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(complained):
        code = main(["demo", "--quick", "--output", str(folder)])
    return code, told.getvalue(), complained.getvalue(), folder


def test_the_quick_demo_succeeds_and_says_that_every_file_is_right(quick):
    """Three hundred patches, two files each."""
    code, told, _, _ = quick
    assert code == 0
    assert "300 patches of 96 x 96 pixels from 18 photographs" in told
    assert "all 600 files equal the synchronous run" in told


def test_the_demo_writes_two_files_a_patch_and_nothing_else(quick, photographs):
    """They are named by photograph and position."""
    *_, folder = quick
    names = Patches(photographs, 300).names()
    assert files_below(folder / "edges") == {f"{name}.png" for name in names}
    assert files_below(folder / "textures") == {f"{name}.pt" for name in names}
    assert {entry.name for entry in folder.glob("[!.]*")} == {"edges", "textures", "contact-sheet.png"}


def test_the_demos_table_tells_what_was_written_and_what_held_it_back(quick):
    """Samples, files, MB, seconds, waiting, the queue's peak, a sentence, and the runs side by side."""
    _, told, _, folder = quick
    for heading in ("samples", "files", "MB", "seconds", "loop waited", "peak queue"):
        assert heading in told
    row = next(line for line in told.splitlines() if line.startswith("│ edges"))
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    megabytes = sum(path.stat().st_size for path in (folder / "edges").rglob("*.png")) / 1e6
    assert cells[:4] == ["edges", "300", "300", f"{megabytes:.1f}"]
    assert "held it back" in told or "set the pace" in told or "fell behind" in told
    for run in ("nothing written", "written in the background", "written inline"):
        assert run in told


def test_the_demo_is_calm_where_there_is_no_terminal(quick):
    """A log keeps no bars, control codes or advice of other packages."""
    _, told, complained, _ = quick
    assert complained == ""
    assert "\x1b" not in told
    assert "\r" not in told
    assert len(told.splitlines()) < 40
    for noise in ("GPU", "TPU", "Tip", "num_workers", "Predicting"):
        assert noise not in told


def test_the_contact_sheet_shows_every_photograph(quick):
    """It is named in the output, and each third of its columns holds something else than background."""
    _, told, _, folder = quick
    assert f"to look at: {folder / 'contact-sheet.png'}" in told
    with Image.open(folder / "contact-sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    drawn = (np.abs(pixels - pixels[0, 0]).sum(axis=2) > 60).mean()
    assert drawn > 0.6
    for third in np.array_split(pixels, 3, axis=1):
        assert third.std() > 40


def test_the_edges_are_those_of_another_implementation(quick, photographs):
    """SciPy's binomial smoothing and Sobel gradient give the same pixels, to the rounding of one level."""
    *_, folder = quick
    patches = Patches(photographs, 300)
    for index in range(0, 300, 37):
        patch = patches[index]
        found = []
        for channel in patch["image"].double().numpy():
            for axis in (0, 1):
                channel = ndimage.correlate1d(channel, np.array([1, 4, 6, 4, 1]) / 16, axis=axis, mode="mirror")
            across, down = (ndimage.sobel(channel, axis=axis, mode="mirror") / 8 for axis in (1, 0))
            found.append(np.clip(4 * np.hypot(across, down), 0, 1) * 255)
        with Image.open(folder / f"edges/{patch['name']}.png") as png:
            stored = np.asarray(png).astype(float)
        assert np.abs(stored - np.floor(np.stack(found, axis=-1))).max() <= 1


def test_the_textures_tell_the_orientation(quick):
    """Stripes answer in the channel of their own direction and wavelength, and a flat patch in none."""
    model = EdgesAndTextures()
    x = torch.arange(PATCH_PIXELS).expand(PATCH_PIXELS, PATCH_PIXELS)
    for image, channel in [(x, 0), (x.T, 4), (x / 2, 8), (x.T / 2, 12)]:
        stripes = 0.5 + 0.5 * torch.sin(2 * torch.pi / 6 * image)
        _, textures = model(stripes.expand(1, 3, -1, -1))
        assert textures.mean(dim=(0, 2, 3)).argmax() == channel
    _, flat = model(torch.full((1, 3, PATCH_PIXELS, PATCH_PIXELS), 0.7))
    assert flat.abs().max() < 1e-6
    *_, folder = quick
    stored = torch.load(next((folder / "textures").rglob("*.pt")), weights_only=True)
    assert stored.shape == (16, 16, 16)
    assert stored.dtype == torch.float32


def test_patches_cover_each_photograph_and_overlap(photographs):
    """Every pixel is in a patch, and the patches hold the photograph's own pixels."""
    coffee = torch.tensor(data.coffee()).movedim(-1, 0)
    assert torch.equal(photographs["coffee"], coffee)
    patches = Patches({"coffee": coffee})
    seen = torch.zeros(coffee.shape[1:])
    for index, name in enumerate(patches.names()):
        y, x = (int(part[1:]) for part in name.removeprefix("coffee/").split("_"))
        image = patches[index]["image"]
        assert torch.equal(image, coffee[:, y : y + 96, x : x + 96].float() / 255)
        seen[y : y + 96, x : x + 96] += 1
    assert seen.min() == 1
    assert seen.max() >= 4


def test_there_are_thousands_of_patches_and_a_few_come_from_everywhere(photographs):
    """A limit leaves patches out evenly instead of photographs."""
    names = Patches(photographs).names()
    assert len(names) > 2000
    assert len(set(names)) == len(names)
    few = Patches(photographs, 60).names()
    assert len(few) == 60
    assert {name.split("/")[0] for name in few} >= set(photographs) - {"page", "text"}
    assert len(Patches(photographs, 10**6)) == len(names)


def test_a_wrong_and_a_missing_file_fail_the_demo_by_name(tmp_path, monkeypatch, capsys, photographs):
    """The check looks at what is on disk, and other folders' files are left alone."""
    folder = tmp_path / "out"
    names = Patches(photographs, 12).names()
    (folder / "edges").mkdir(parents=True)
    (folder / "edges/mine.txt").write_text("not the demo's")
    run_inline = job.run_inline

    def spoil_and_run(*args):
        Image.new("RGB", (96, 96), "red").save(folder / f"edges/{names[3]}.png")
        (folder / f"textures/{names[5]}.pt").unlink()
        return run_inline(*args)

    monkeypatch.setattr(job, "run_inline", spoil_and_run)
    with pytest.warns(UserWarning, match="already exists, existing predictions will be overwritten"):
        code = main(["demo", "--patches", "12", "--batch-size", "5", "--output", str(folder)])
    told = capsys.readouterr().out
    assert code == 1
    assert "2 of 24 files differ from the synchronous run" in told
    assert f"edges/{names[3]}.png: it holds something else" in told
    assert f"textures/{names[5]}.pt: it is missing" in told
    assert (folder / "edges/mine.txt").read_text() == "not the demo's"


def test_running_the_demo_again_replaces_what_it_wrote(tmp_path, capsys):
    """No warning, and nothing of the larger first run is left."""
    for patches in ("9", "4"):
        assert main(["demo", "--patches", patches, "--max-workers=1", "--queue-size=2", f"--output={tmp_path}"]) == 0
    captured = capsys.readouterr()
    assert "all 8 files equal" in captured.out
    assert captured.err == ""
    assert len(files_below(tmp_path / "edges")) == 4


def test_the_demo_shows_progress_on_a_terminal(tmp_path, monkeypatch, capsys):
    """Lightning's bar, with the queue beside it, and a bar for each comparison."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setattr("lighter_async.callback.progress._SECONDS_BETWEEN", 0)
    assert main(["demo", "--patches", "40", "--batch-size", "4", f"--output={tmp_path}"]) == 0
    told = capsys.readouterr().out
    assert "Predicting (queue " in told
    assert "10/10" in told  # batches
    assert "80/80" in told  # files read back


def test_an_output_that_cannot_be_made_is_one_line(tmp_path, capsys):
    """A file in the way is told by name, without a traceback."""
    (tmp_path / "out").write_text("a file")
    assert main(["demo", "--patches", "4", "--output", str(tmp_path / "out")]) == 2
    complained = capsys.readouterr().err
    assert complained.startswith(f"lighter-async: the demo cannot write to {str(tmp_path / 'out')!r}")
    assert len(complained.splitlines()) == 1


def test_ctrl_c_ends_the_demo_cleanly(tmp_path):
    """Exit code 130, one line, and only whole files of the samples that were handed over."""
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which a shell in the background ignores
        "from lighter_async.cli import main\n"
        f"sys.exit(main(['demo', '--output', {str(tmp_path)!r}]))\n"
    )
    demo = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not any((tmp_path / "textures").rglob("*.pt")):
            assert demo.poll() is None, demo.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        demo.send_signal(2)
        _, complained = demo.communicate(timeout=60)
    finally:
        demo.kill()
        demo.wait()
    assert demo.returncode == 130
    assert complained.splitlines()[-1] == "lighter-async: interrupted"
    assert "Traceback" not in complained
    files = files_below(tmp_path / "edges")
    textures = {name.replace(".pt", ".png") for name in files_below(tmp_path / "textures")}
    # Ctrl-C may come after the one writer was handed a batch, and before the other.
    assert textures <= files
    assert len(files - textures) in (0, 32)
    for name in files:
        with Image.open(tmp_path / "edges" / name) as png:
            png.load()
    assert {entry.name for entry in tmp_path.glob("[!.]*")} == {"edges", "textures"}


def test_only_the_demos_own_folder_is_emptied(tmp_path):
    """A folder that held something before is left as it is, also the next time."""
    mine, demos = tmp_path / "mine", tmp_path / "demos"
    mine.mkdir()
    (mine / "a.png").write_bytes(b"")
    for _ in range(2):
        prepare_folder(mine)
        assert files_below(mine) == {"a.png"}
        prepare_folder(demos)
        assert files_below(demos) == set()
        (demos / "b.png").write_bytes(b"")


def test_the_check_tells_each_way_in_which_a_file_can_be_wrong(tmp_path):
    """Equal, other content, another dtype, unreadable, missing, and unexpected."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
        torch.save(torch.ones(3), folder / "equal.pt")
        Image.new("L", (4, 4), 7).save(folder / "equal.png", compress_level=1 if folder is ours else 9)
    torch.save(torch.ones(3), ours / "other.pt")
    torch.save(torch.zeros(3), theirs / "other.pt")
    torch.save(torch.ones(3, dtype=torch.float64), ours / "dtype.pt")
    torch.save(torch.ones(3), theirs / "dtype.pt")
    (ours / "broken.png").write_bytes(b"no image")
    Image.new("L", (4, 4)).save(theirs / "broken.png")
    Image.new("L", (4, 4)).save(theirs / "missing.png")
    torch.save(torch.ones(3), ours / "unexpected.pt")
    ticks = []
    names = files_below(ours) | files_below(theirs)
    found = differing_files(ours, theirs, names, lambda: ticks.append(1))
    assert len(ticks) == len(names) == 7
    assert [line.split(" (")[0] for line in found] == [
        "broken.png: it cannot be read back",
        "dtype.pt: it holds something else",
        "missing.png: it is missing",
        "other.pt: it holds something else",
        "unexpected.pt: the synchronous run has no such file",
    ]


class RichBar:
    """What `Progress` uses of Lightning's rich bar."""

    predict_description = "Predicting"

    def __init__(self, screen):
        self.progress = RichProgress(console=Console(file=screen, force_terminal=True, width=120), auto_refresh=False)
        self.predict_progress_bar_id = self.progress.add_task("Predicting", total=3)


def test_a_rich_bar_shows_the_queue_and_then_what_is_left(tmp_path, monkeypatch):
    """Both on lines that rich redraws; a second writer's callback does not overwrite the first one's."""
    monkeypatch.setattr("lighter_async.callback.progress._SECONDS_BETWEEN", 0)
    gate, entered = threading.Event(), threading.Event()

    def write(path, value):
        entered.set()
        gate.wait(60)

    screen = io.StringIO()
    bar = RichBar(screen)
    add_task = bar.progress.add_task

    def add_and_release(description, **fields):
        task = add_task(description, **fields)
        gate.set()
        return task

    with bar.progress, BackgroundWriter(write, tmp_path, max_workers=1, queue_size=8) as writer:
        for name in "abc":
            writer.submit(name, 1)
        assert entered.wait(60)
        Progress(bar, [writer]).update()
        Progress(bar, []).update()
        bar.progress.refresh()
        assert "Predicting (queue 3/8, writing 0/s in threads)" in screen.getvalue()
        monkeypatch.setattr(bar.progress, "add_task", add_and_release)
        Progress(bar, [writer]).flush(writer)
        assert writer.stats().written == 3
        assert "Writing" in screen.getvalue()
        assert [task.description for task in bar.progress.tasks] == ["Predicting"]
