"""The examples do what they say."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from harness import DEADLINE, results, until
from PIL import Image
from skimage import data

from lighter_async import open_results, writer_registry
from lighter_async.cli import main

EXAMPLES = Path(__file__).parent.parent / "examples"
TESTED = {"aiofiles_writer", "custom_encoder", "lightning_predict", "plain_loop", "starlette_app"}


@pytest.fixture
def run_example(monkeypatch, tmp_path, capsys):
    """Runs an example as a script, in this process, and returns what it printed."""
    monkeypatch.setattr(writer_registry, "_registry", dict(writer_registry._registry))
    monkeypatch.chdir(tmp_path)

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in results(folder)}


def grey(tensor):
    return (tensor * 255).to(torch.uint8).numpy()


def test_every_example_is_tested():
    """Whoever adds an example adds a test."""
    assert {path.stem for path in EXAMPLES.glob("*.py")} == TESTED
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} - {"__pycache__"} == {"lightning_cli"}


def test_the_aiofiles_writer_stores_lines_of_json(run_example, tmp_path):
    """One file per photograph, with the entries of its prediction."""
    told = run_example("aiofiles_writer", tmp_path / "out")
    assert told == f"4 files in {tmp_path / 'out'}\n"
    assert files_below(tmp_path / "out") == {f"{name}.jsonl" for name in ("camera", "coins", "moon", "page")}
    for name in ("camera", "page"):
        lines = (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()
        stored = {entry["key"]: entry["value"] for entry in map(json.loads, lines)}
        brightness = getattr(data, name)() / 255
        assert stored["histogram"] == list(np.histogram(brightness, bins=16, range=(0, 1))[0])
        assert stored["mean"] == pytest.approx(brightness.mean())


def test_the_plain_loop_stores_a_png_per_patch(run_example, tmp_path):
    """Every patch once, and its pixels are the model's."""
    told = run_example("plain_loop", tmp_path / "out")
    assert told.startswith("64 files of ")
    assert files_below(tmp_path / "out") == {f"camera/{number:04}.png" for number in range(64)}
    patch = data.camera()[64:128, 128:192].astype(np.float64)
    around = np.pad(patch, 1, mode="reflect")
    neighbours = around[:-2, 1:-1] + around[2:, 1:-1] + around[1:-1, :-2] + around[1:-1, 2:]
    with Image.open(tmp_path / "out/camera/0010.png") as png:
        # Within the rounding of float32 to whole pixel values.
        assert np.abs(np.asarray(png) - (5 * patch - neighbours).clip(0, 255)).max() <= 1


def test_the_custom_encoders_files_are_read_by_numpy(run_example, tmp_path):
    """Each is the spectrum of its photograph."""
    told = run_example("custom_encoder", tmp_path / "out")
    assert told.startswith("4 files of ")
    assert files_below(tmp_path / "out") == {f"{name}.npy" for name in ("camera", "coins", "moon", "page")}
    for name in ("camera", "coins"):
        expected = np.abs(np.fft.rfft2(getattr(data, name)().astype(np.float64)))
        np.testing.assert_allclose(np.load(tmp_path / "out" / f"{name}.npy"), expected, rtol=1e-3, atol=10)


@pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.* is deprecated:FutureWarning",  # torch tells Lightning
    "ignore:.*does not have many workers",  # advice that depends on the machine
)
def test_the_lightning_job_stores_a_png_per_patch(run_example, tmp_path):
    """Named by the outputs, each in its photograph's folder, with the model's pixels."""
    told = run_example("lightning_predict", tmp_path / "out")
    count = sum((shape[0] // 64) * (shape[1] // 64) for shape in [(512, 512), (300, 451), (400, 600)])
    files = files_below(tmp_path / "out")
    assert f"{count} files in {tmp_path / 'out'}" in told
    assert len(files) == count
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    patch = torch.from_numpy(data.coffee()[64:128, 128:192].copy()).movedim(-1, 0).float() / 255
    padded = torch.nn.functional.pad(patch[None], (2, 2, 2, 2), mode="reflect")[0]
    expected = torch.nn.functional.conv2d(padded[:, None], torch.outer(line, line)[None, None])[:, 0]
    with Image.open(tmp_path / "out/coffee/y0064_x0128.png") as png:
        got = torch.from_numpy(np.array(png)).movedim(-1, 0)
    assert (got.float() - expected * 255).abs().max() <= 1.01


@pytest.mark.timeout(300)
@pytest.mark.long
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_job_of_lightning_cli_goes_on_after_it_was_killed(tmp_path, ranks):
    """The same command computes what is missing, with both outputs of each patch, and then nothing any more."""
    folder, tests = EXAMPLES / "lightning_cli", Path(__file__).parent
    names = sum((shape[0] // 64) * (shape[1] // 64) for shape in [(512, 512), (300, 451), (400, 600)])
    command = [
        *(sys.executable, "-W", "ignore", str(folder / "main.py"), "predict", f"--config={folder / 'predict.yaml'}"),
        *("--writer.directory=edges", f"--trainer.devices={ranks}", "--trainer.enable_progress_bar=false"),
    ]
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}

    def run(*arguments):
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=140, cwd=tmp_path, env=surroundings
        )
        return done.returncode, done.stdout + done.stderr

    status, told = run("--trainer.callbacks+=killed_callback.Killed", "--trainer.callbacks.batch=3")
    assert status == -signal.SIGKILL, told
    status, told = run()
    assert status == 0, told
    stored, of = map(int, re.search(r"resuming: (\d+) of (\d+) are stored in 'edges'", told).groups())
    assert 0 < stored < of == names
    assert re.search(rf"lighter_async: (rank 0 of 2 )?wrote \d+ samples .* to '{tmp_path / 'edges'}' in", told)
    assert any("lighter_async/written" in file.read_text() for file in tmp_path.glob("lightning_logs/*/metrics.csv"))
    files = files_below(tmp_path / "edges")
    assert len(files) == 2 * names
    assert {file.partition(".")[2] for file in files} == {"mask.png", "steepness.pt"}
    assert main(["verify", str(tmp_path / "edges")]) == 0
    status, told = run()
    assert status == 0, told
    assert f"resuming: {names} of {names} are stored" in told
    # The edges are those of another implementation: numpy's, in double precision.
    around = np.pad(data.coffee()[64:128, 128:192].astype(float).mean(-1) / 255, 1, mode="edge")
    across, down = around[:, 2:] - around[:, :-2], around[2:] - around[:-2]
    steepness = (
        np.hypot(across[:-2] + 2 * across[1:-1] + across[2:], down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]) / 8
    )
    got = open_results(tmp_path / "edges", key="steepness")["coffee/y0064_x0128"][0].numpy()
    np.testing.assert_allclose(got, steepness, atol=1e-5)
    assert np.array_equal(open_results(tmp_path / "edges", key="mask")["coffee/y0064_x0128"][0] == 255, got > 0.1)
    for marker in (tmp_path / "edges/.lighter-async").glob("run-*"):
        marker.unlink()  # of the killed run, which a run on the next day would remove


@pytest.mark.long
def test_the_service_stores_every_response(tmp_path):
    """A real server: it answers with PNGs, tells its stats, and when it is stopped every prediction is stored whole."""
    folder, log = tmp_path / "out", tmp_path / "log.txt"
    names = ["camera", "coins", "moon", "page", "clock", "text"]
    bodies = {}
    for name in names:
        png = io.BytesIO()
        Image.fromarray(getattr(data, name)()).save(png, "PNG", compress_level=1)
        bodies[name] = png.getvalue()

    async def use(url):
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE, trust_env=False) as client:
            answers = await asyncio.gather(
                *(client.post("/edges", params={"name": f"day/{name}"}, content=bodies[name]) for name in names)
            )
            unnamed = await client.post("/edges", content=bodies["coins"])
            no_image = await client.post("/edges", content=b"no image")
            half = await client.post("/edges", content=bodies["coins"][:2000])
            # There is a folder where its file should be: it cannot be stored, and others can.
            bad = await client.post("/edges", params={"name": "taken"}, content=bodies["moon"])
            while not (await client.get("/stats")).json()["failed"]:
                await asyncio.sleep(0.01)
            after = await client.post("/edges", params={"name": "after"}, content=bodies["moon"])
            again = await client.post("/edges", params={"name": "day/camera"}, content=bodies["camera"])
            outside = await client.post("/edges", params={"name": "../camera"}, content=bodies["camera"])
            stats = await client.get("/stats")
        assert [answer.status_code for answer in (no_image, half, again, outside)] == [400, 400, 409, 409]
        assert bad.status_code == 200
        assert stats.json()["accepted"] == len(names) + 3
        assert stats.json()["failed"] == 1
        return {answer.headers["x-name"]: answer for answer in [*answers, unnamed, after]}

    (folder / "taken.pt").mkdir(parents=True)
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "starlette_app.py"), str(folder), "0"],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
        )
    try:

        def url():
            assert server.poll() is None, log.read_text()
            return re.search(r"running on (http://127\.0\.0\.1:\d+)", log.read_text())

        until(url, "the server starts")
        answers = asyncio.run(use(url()[1]))
        server.send_signal(signal.SIGTERM)
        server.wait(DEADLINE)
    finally:
        server.kill()
        server.wait()

    assert "Application shutdown complete" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert "1 sample was not written" in log.read_text()
    assert files_below(folder) == {f"{name}.pt" for name in answers}
    for name, answer in answers.items():
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        stored = torch.load(folder / f"{name}.pt")
        with Image.open(io.BytesIO(answer.content)) as png:
            assert np.array_equal(np.asarray(png), grey(stored[0]))
    # The edges are those of another implementation: numpy's, in double precision.
    around = np.pad(data.camera() / 255, 1, mode="edge")
    across = np.gradient(around, axis=1)[:, 1:-1] * 2
    across = across[:-2] + 2 * across[1:-1] + across[2:]
    down = np.gradient(around, axis=0)[1:-1] * 2
    down = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    expected = np.hypot(across / 4, down / 4).clip(0, 1)
    np.testing.assert_allclose(torch.load(folder / "day/camera.pt")[0].numpy(), expected, atol=1e-5)
