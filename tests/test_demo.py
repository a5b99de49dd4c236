"""The demo: a real predict over photographs, run quickly, and each of its parts."""

import contextlib
import dataclasses
import io
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from harness import stats_of
from PIL import Image
from rich.console import Console
from rich.progress import Progress as RichProgress
from scipy import ndimage
from skimage import data

from lighter_async import BackgroundWriter, read_manifest
from lighter_async.callback.progress import Progress
from lighter_async.cli import main
from lighter_async.cli.demo import checked, job, killed, rounds
from lighter_async.cli.demo.differences import differing_files
from lighter_async.cli.demo.folders import files_below, prepare_folder
from lighter_async.cli.demo.killed import kill_and_resume
from lighter_async.cli.demo.loops import Loop, make_loops
from lighter_async.cli.demo.model import EdgesAndTextures
from lighter_async.cli.demo.others import Others
from lighter_async.cli.demo.photographs import PATCH_PIXELS, Patches, load_photographs
from lighter_async.cli.demo.rounds import Compared, Taken, compare
from lighter_async.cli.demo.runs import Clock
from lighter_async.cli.demo.verdict import verdict
from lighter_async.cli.demo.ways import BACKGROUND, BY_HAND, INLINE, NOTHING, WriterOptions, ways
from lighter_async.manifest.verify import verify
from lighter_async.other_programs import CoresInUse, Look

pytestmark = pytest.mark.long

SMALL = 120  # patches
WAYS = (NOTHING, BACKGROUND, INLINE, BY_HAND)
WRITER = WriterOptions(max_workers=None, queue_size=64)


@pytest.fixture(scope="module")
def photographs():
    return load_photographs()


def be_brief(patch):
    """Have one round of each way to write; the workers need no time to start where nothing is measured."""
    patch.setattr(rounds, "_START_SECONDS", 0)
    for module in (job, rounds):
        patch.setattr(module, "ROUNDS", 1)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The exit code, output and folder of a demo of few patches, all of which the job has that is killed."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    told, complained = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        be_brief(patch)
        patch.setattr(job, "_KILLED_SHARE", 1)
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(complained):
            code = main(["demo", f"--patches={SMALL}", "--batch-size=8", "--output", str(folder)])
    return code, told.getvalue(), complained.getvalue(), folder


def test_the_demo_succeeds_and_says_that_every_file_is_right(small):
    """Two files of each patch."""
    code, told, _, _ = small
    assert code == 0
    assert "120 patches of 96 x 96 pixels from 18 photographs" in told
    assert "all 240 files equal the synchronous run" in told


def test_the_quick_demo_takes_three_hundred_patches(monkeypatch):
    """Unless it is told how many."""
    taken = []
    monkeypatch.setattr("lighter_async.cli.demo.run_demo", lambda options: taken.append(options.patches))
    for arguments in ([], ["--quick"], ["--quick", "--patches=7"]):
        main(["demo", *arguments])
    assert taken == [1000, 300, 7]


def test_the_demo_writes_two_files_a_patch_and_nothing_else(small, photographs):
    """They are named by photograph and position."""
    *_, folder = small
    names = Patches(photographs, SMALL).names()
    assert files_below(folder / "edges") == {f"{name}.png" for name in names}
    assert files_below(folder / "textures") == {f"{name}.pt" for name in names}
    assert {entry.name for entry in folder.iterdir()} == {"edges", "textures", "killed", "contact-sheet.png"}


def test_the_demos_table_tells_what_was_written(small):
    """Samples, files, MB, seconds, waiting and the queue's peak."""
    _, told, _, folder = small
    for heading in ("samples", "files", "MB", "seconds", "loop waited", "peak queue"):
        assert heading in told
    row = next(line for line in told.splitlines() if line.strip().startswith("edges "))
    megabytes = sum(path.stat().st_size for path in (folder / "edges").rglob("*.png")) / 1e6
    assert row.split()[:4] == ["edges", "120", "120", f"{megabytes:.1f}"]


def test_the_demo_compares_four_ways_to_write_in_two_loops(small):
    """With the seconds of each, and its ratio to the loop that writes nothing; such short runs advise nothing."""
    _, told, _, _ = small
    rows = {title: next(line for line in told.splitlines() if title in line) for title in WAYS}
    for title, row in rows.items():
        figures = [float(cell) for cell in row.partition(title)[2].split()]
        assert len(figures) == 4
        assert (figures[1::2] == [1.0, 1.0]) == (title == NOTHING)
    assert "torch.set_num_threads(1)" in told
    assert "sleeps 40 ms a batch" in told
    assert "too short to tell" in told or "do not trust this run" in told


def test_the_demo_kills_a_job_that_then_goes_on_with_what_is_missing(small):
    """The same command twice, and what is there in the end is whole."""
    _, told, _, folder = small
    lines = told.splitlines()
    commands = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    assert lines[commands[0]] == lines[commands[1]]
    assert lines[commands[0] + 1] == "killed with SIGKILL as soon as 40 of 120 patches were seen to be stored"
    said = re.match(r"(\d+) of 120 .*; predicted (\d+), none of them a second time$", lines[commands[1] + 1])
    stored, predicted = said.groups()
    assert int(stored) >= 40
    assert int(predicted) > 0
    assert int(stored) + int(predicted) == 120
    assert lines[commands[2]] == f"$ lighter-async verify {folder / 'killed'}"
    assert "sound: everything that was recorded is there, whole and unchanged" in lines
    report = verify(folder / "killed")
    assert report.is_sound
    assert report.files == 240


def test_the_demo_is_calm_where_there_is_no_terminal(small):
    """A log keeps no bars, control codes or advice of other packages."""
    _, told, complained, _ = small
    assert complained == ""
    assert "\x1b" not in told
    assert "\r" not in told
    assert len(told.splitlines()) < 70
    for noise in ("GPU", "TPU", "Tip", "num_workers", "Predicting"):
        assert noise not in told


def test_the_contact_sheet_shows_every_photograph(small):
    """It is named in the output, and each third of its columns holds something else than background."""
    _, told, _, folder = small
    assert str(folder / "contact-sheet.png") in told
    with Image.open(folder / "contact-sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    drawn = (np.abs(pixels - pixels[0, 0]).sum(axis=2) > 60).mean()
    assert drawn > 0.6
    for third in np.array_split(pixels, 3, axis=1):
        assert third.std() > 40


def test_the_edges_are_those_of_another_implementation(small, photographs):
    """SciPy's binomial smoothing and Sobel gradient give the same pixels, to the rounding of one level."""
    *_, folder = small
    patches = Patches(photographs, SMALL)
    for index in range(0, SMALL, 13):
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


def test_the_textures_tell_the_orientation(small):
    """Stripes answer in the channel of their own direction and wavelength, and a flat patch in none."""
    model = EdgesAndTextures()
    x = torch.arange(PATCH_PIXELS).expand(PATCH_PIXELS, PATCH_PIXELS)
    for image, channel in [(x, 0), (x.T, 4), (x / 2, 8), (x.T / 2, 12)]:
        stripes = 0.5 + 0.5 * torch.sin(2 * torch.pi / 6 * image)
        _, textures = model(stripes.expand(1, 3, -1, -1))
        assert textures.mean(dim=(0, 2, 3)).argmax() == channel
    _, flat = model(torch.full((1, 3, PATCH_PIXELS, PATCH_PIXELS), 0.7))
    assert flat.abs().max() < 1e-6
    *_, folder = small
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
    run_inline = checked.run_inline

    def spoil_and_run(*args):
        Image.new("RGB", (96, 96), "red").save(folder / f"edges/{names[3]}.png")
        (folder / f"textures/{names[5]}.pt").unlink()
        return run_inline(*args)

    monkeypatch.setattr(checked, "run_inline", spoil_and_run)
    with pytest.warns(UserWarning, match="already exists, existing predictions will be overwritten"):
        code = main(["demo", "--patches", "12", "--batch-size", "5", "--output", str(folder)])
    told = capsys.readouterr().out
    assert code == 1
    assert "2 of 24 files differ from the synchronous run" in told
    assert f"edges/{names[3]}.png: it holds something else" in told
    assert f"textures/{names[5]}.pt: it is missing" in told
    assert (folder / "edges/mine.txt").read_text() == "not the demo's"


def test_the_demo_shows_progress_on_a_terminal_until_it_is_interrupted(tmp_path, monkeypatch, capsys):
    """Lightning's bar, with the queue beside it, and a bar for each comparison; nothing is left of an earlier demo.

    Ctrl-C ends the job that is to be killed, and its helpers once they have stored what they were handed.
    """
    for folder in ("edges", "textures", "killed"):
        prepare_folder(tmp_path / folder)
        (tmp_path / folder / "earlier.png").write_bytes(b"")

    def interrupted(seconds):
        time.sleep(seconds)
        if read_manifest(tmp_path / "killed").names():
            raise KeyboardInterrupt

    be_brief(monkeypatch)
    monkeypatch.setattr(job, "_KILLED_SHARE", 1)
    monkeypatch.setattr(killed, "sleep", interrupted)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setattr("lighter_async.callback.progress._SECONDS_BETWEEN", 0)
    options = ["--patches=40", "--batch-size=4", "--max-workers=1", "--queue-size=6"]
    assert main(["demo", *options, f"--output={tmp_path}"]) == 130
    captured = capsys.readouterr()
    assert captured.err == "lighter-async: interrupted\n"
    assert "Predicting (queue " in captured.out
    assert "10/10" in captured.out  # batches
    assert "80/80" in captured.out  # files read back
    assert "8/8" in captured.out  # runs that are compared
    assert len(files_below(tmp_path / "edges")) == 40
    assert not [*tmp_path.rglob("earlier.png")]
    assert verify(tmp_path / "killed").is_sound
    with BackgroundWriter("text", tmp_path / "killed"):
        pass  # removes the lock of the job that was ended


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
        while not any((tmp_path / "textures").glob("[!.]*/*.pt")):
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
    assert {entry.name for entry in tmp_path.iterdir()} == {"edges", "killed", "textures"}


def test_a_job_that_fails_by_itself_fails_the_demo(tmp_path, monkeypatch, capsys):
    """With the last line that it said."""
    monkeypatch.setattr(killed, "_JOB", "lighter_async.no_such_job")
    assert not kill_and_resume(Console(), tmp_path, patches=3, batch_size=2, writer=WRITER)
    complained = capsys.readouterr().err
    assert "the job that was to be killed ended by itself with status 1: " in complained
    assert "No module named lighter_async.no_such_job" in complained


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


# What is compared, and what is said of it


def test_inline_ways_write_the_same(tmp_path, photographs):
    """Files of the same pixels and elements, so that only how they are written differs."""
    (loop, _) = make_loops(EdgesAndTextures(), Patches(photographs, 40), 4, cores=2)
    together = ways(WRITER)
    for title in (INLINE, BY_HAND):
        rounds._run(loop, together[title], 4, tmp_path / "removed")
    assert not [*tmp_path.iterdir()]
    batch = {"image": torch.stack([loop.patches[0]["image"]]), "name": ["a/b"]}
    prediction = loop.model.predict_step(batch, 0)
    for title in (INLINE, BY_HAND):
        (tmp_path / title / "a").mkdir(parents=True)
        together[title](tmp_path / title).on_predict_batch_end(None, None, prediction, batch, 0)
    names = files_below(tmp_path / INLINE)
    assert names == {"a/b.png", "a/b.pt"}
    assert differing_files(tmp_path / BY_HAND, tmp_path / INLINE, names, lambda: None) == []


def test_the_loops_are_a_part_of_the_job(photographs):
    """The one computes what the job does, in one thread; the other waits, and returns predictions as large."""
    patches, threads = Patches(photographs, 80), torch.get_num_threads()
    computing, waiting = make_loops(EdgesAndTextures(), patches, 4, cores=2)
    assert 1 <= len(computing.patches) <= len(waiting.patches) == 40
    with computing.threads():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == threads
    batch = {"image": torch.zeros(3, 3, 96, 96), "name": ["a", "b", "c"]}
    one, other = (loop.model.predict_step(batch, 5) for loop in (computing, waiting))
    assert one["name"] == other["name"] == ["a", "b", "c"]
    assert one["edges"].shape == other["edges"].shape
    assert one["textures"].shape == other["textures"].shape
    assert "leaves a core free" not in make_loops(EdgesAndTextures(), patches, 4, cores=1)[0].sentence


STATS = stats_of(
    accepted=80,
    written=80,
    peak_pending=16,
    peak_pending_bytes=1000,
    bytes_written=8000,
    encode_seconds=1.0,
    store_seconds=0.5,
    open_seconds=2.0,
    max_workers=2,
    queue_size=64,
    queue_bytes=10**6,
)
QUIET = CoresInUse(2, 1.5, 0.1)


def compared(background, inline, by_hand, *, nothing=1.0, stats=STATS):
    """The figures of a loop, by ratios."""
    ratios = {NOTHING: 1.0, BACKGROUND: background, INLINE: inline, BY_HAND: by_hand}
    loop = Loop("", "A loop", None, None, False)
    return Compared(loop, {title: nothing * ratio for title, ratio in ratios.items()}, ratios, stats, 0.0)


def test_figures_are_medians_of_ratios_within_a_round():
    """What the machine does in one round falls on all of its runs."""

    def taken(nothing, background, left=0.0, **counted):
        clocks = {NOTHING: nothing, BACKGROUND: background}
        stats = dataclasses.replace(STATS, **counted)
        return {title: Taken(Clock(loop, loop + left), stats) for title, loop in clocks.items()}

    found = compare(None, [taken(1.0, 1.2), taken(2.0, 2.2, left=0.25, written=7), taken(4.0, 4.0)])
    assert found.ratios == {NOTHING: 1.0, BACKGROUND: pytest.approx(1.1)}
    assert found.seconds == {NOTHING: 2.0, BACKGROUND: 2.2}
    assert found.stats.written == 7
    assert found.left_seconds == pytest.approx(0.25)


@pytest.mark.parametrize("noise", [0.96, 1.0, 1.04, 1.1])
def test_the_verdict_is_the_same_whatever_small_differences_there_are(noise):
    """It has no figures, and none of them is near to a margin."""
    (told, *_) = verdict([compared(noise, 1.8 * noise, 3.0)], QUIET, cores=2)
    start = "A loop is hardly slowed down by background writing."
    assert told == f"{start} With inline writing it takes longer, and longest with Image.save and torch.save."
    (told, *_) = verdict([compared(noise, 1.8, 1.7)], QUIET, cores=2)
    assert told == f"{start} With inline writing it takes longer."
    (told, last) = verdict([compared(noise, noise, 1.8)], QUIET, cores=2)
    assert told == f"{start} With inline writing it takes longer only if that is Image.save and torch.save."
    assert last.startswith("So write in the background where a core is idle.")
    (told, *_) = verdict([compared(noise, noise + 0.02, noise - 0.02)], QUIET, cores=2)
    assert told == f"{start} So it is by inline writing."


def test_a_loop_that_background_writing_slows_down_is_told_why():
    """By what its writer counted, where that tells."""
    (told, last) = verdict([compared(1.6, 1.8, 3.0)], QUIET, cores=2)
    assert not last.startswith("So")
    assert told.startswith("A loop takes 1.6 times as long with background writing. The cores held it back")
    waited = dataclasses.replace(STATS, waited_seconds=1.0, encode_seconds=3.5)
    (told, *_) = verdict([compared(1.6, 1.8, 3.0, stats=waited)], QUIET, cores=2)
    assert "Encoding held it back" in told
    (told, *_) = verdict([compared(1.25, 1.8, 3.0)], None, cores=2)
    assert told.startswith("A loop is hardly slowed down by background writing.")


def test_a_run_beside_other_programs_advises_nothing():
    """Whatever its figures are: they may be the other programs'."""
    for ratios in ((1.0, 1.8, 3.0), (2.0, 2.0, 2.0)):
        told = verdict([compared(*ratios)], CoresInUse(2, 1.0, 0.9), cores=2)
        assert told == ["do not trust this run: other programs used 0.9 of 2 cores"]
    assert "trust" not in " ".join(verdict([compared(1.0, 1.8, 3.0)], CoresInUse(16, 1.0, 0.9), cores=16))


def test_a_run_that_is_too_short_advises_nothing():
    """A moment's delay would be more than the margin."""
    (told,) = verdict([compared(1.0, 1.8, 3.0), compared(1.0, 1.8, 3.0, nothing=0.1)], QUIET, cores=2)
    assert "too short to tell" in told


@pytest.mark.parametrize(
    ("before", "rounds_", "expected"),
    [
        (0.0, [0.1, 0.2, 0.0], 0.1),
        (0.0, [0.0, 1.5, 0.0], 0.0),  # one round changes no median
        (0.0, [1.5, 1.25, 0.0], 1.25),
        (1.0, [0.0, 0.0, 0.0], 1.0),
    ],
)
def test_what_others_use_is_that_of_the_middle_round_or_of_the_time_before(before, rounds_, expected):
    """Whichever is more."""
    looks = [Look(1, 0.0, frozenset({0, 1}), 0.0, 0.0)]
    for used in (before, *rounds_):
        last = looks[-1]
        looks.append(Look(1, last.moment + 2, last.cores, last.all + 2 * (used + 0.5), last.own + 1))
    others = Others(look=iter(looks).__next__)
    others.begin(0)
    for _ in rounds_:
        others.note_round()
    assert others.used.others == pytest.approx(expected)


def test_what_others_use_is_not_known_everywhere():
    """Systems other than Linux do not tell."""
    others = Others(look=lambda: None)
    others.begin(0)
    others.note_round()
    assert others.used is None


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
