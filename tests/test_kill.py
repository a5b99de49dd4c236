"""A process that is killed in the middle of writing leaves whole files, and the next one clears up after it."""

import os
import shutil

import pytest
from harness import leftovers, results, script_running, until

from lighter_async import BackgroundWriter

# Writes texts that repeat their name, and tells each time that everything until then is stored.
WRITES = """
import itertools, sys
from lighter_async import BackgroundWriter

with BackgroundWriter("text", sys.argv[1], backend="thread", max_workers=3, queue_size=12) as writer:
    for step in itertools.count():
        for i in range(20):
            writer.submit(f"{step}/{i}", f"{step}/{i} " * 100_000)
        writer.flush()
        print(step, flush=True)
        assert "torch" not in sys.modules
"""


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
def test_a_killed_process_leaves_only_whole_files(tmp_path):
    """Twenty times: all files are whole, those it told of are there, and nothing else remains after the next run."""
    interrupted = 0
    for attempt in range(20):
        folder = tmp_path / str(attempt)
        with script_running(WRITES, folder) as process:
            assert process.stdout is not None
            for _ in range(1 + attempt % 3):
                told = process.stdout.readline()
                assert told, process.stderr.read()
            if attempt % 2:
                until(lambda folder=folder: any(folder.rglob(".lighter-async-*")))
            process.kill()
            # What it told between the last line that was read and its end counts too.
            steps = int((process.stdout.read().splitlines() or [told])[-1])
            process.wait()
        assert any(path.suffix == ".lock" for path in (folder / ".lighter-async").iterdir())
        interrupted += len(list(folder.rglob(".lighter-async-*")))

        with BackgroundWriter("text", folder, backend="thread") as writer:
            writer.submit("next", "run")
        assert leftovers(folder) == []
        files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.txt")}
        assert files.pop("next").read_text() == "run"
        assert set(files) >= {f"{step}/{i}" for step in range(steps + 1) for i in range(20)}
        for name, path in files.items():
            assert path.read_text() == f"{name} " * 100_000
        assert {path.suffix for path in results(folder)} == {".txt"}
        shutil.rmtree(folder)
    assert interrupted, "no kill came in the middle of a file, so nothing was tested"
