"""A device that fails, and a process that is killed: what was on the host is stored, the rest is told by name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from harness import until
from on_gpu import stored

PACKAGE = Path(__file__).parents[2]


def script(text, *arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE), os.environ.get("PYTHONPATH", "")])}
    environment.pop("CUDA_LAUNCH_BLOCKING", None)
    return subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(text), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_a_kernel_that_fails_midway_fails_what_was_under_way_and_the_rest_is_stored(tmp_path, backend):
    """The process goes on, closes its writer, and is told each sample by its name; nothing half is stored."""
    text = """
        import os, sys, torch
        from lighter_async import BackgroundWriter, WriteError

        writer = BackgroundWriter("tensor", sys.argv[1], backend=sys.argv[2])
        source = torch.zeros(2, 1_000_000, device="cuda")
        names = iter(range(1000))
        for number in range(4):
            source.fill_(number)
            writer.submit_batch([f"{next(names)}", f"{next(names)}"], source)
        writer.flush()
        wrong = torch.full((1000,), 5_000_000, device="cuda")
        broken = source[0][wrong]  # an index beyond the end, which the device finds later
        failed, accepted = set(), set()
        try:
            for _ in range(10):
                two = [f"{next(names)}", f"{next(names)}"]
                writer.submit_batch(two, source)
                accepted.update(two)
        except WriteError as error:
            failed.update(one.name for one in error.failures)
        except RuntimeError as error:
            assert "assert" in str(error) or "CUDA" in str(error) or "HIP" in str(error), error
        try:
            writer.close()
        except WriteError as error:
            failed.update(one.name for one in error.failures)
        assert failed == accepted, (failed, accepted)
        assert writer.stats().written == 8
        print("told", len(failed))
        os._exit(0)  # what PyTorch does at the end of such a process is its own affair
    """
    process = script(text, str(tmp_path), backend)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, (process.returncode, errors[-3000:])
    assert out.startswith("told")
    found = stored(tmp_path)
    assert {name: tensor.unique().tolist() for name, tensor in found.items()} == {
        f"{number}": [number // 2] for number in range(8)
    }


def test_what_was_on_the_host_is_stored_though_the_process_is_killed(tmp_path):
    """Helpers have it, and see no device."""
    text = """
        import sys, time, torch
        from lighter_async import BackendUnavailableError, BackgroundWriter

        writer = BackgroundWriter("tensor", sys.argv[1], backend="process")
        try:
            writer.start()
        except BackendUnavailableError:
            print("no helpers")
            sys.exit()
        for number in range(8):
            writer.submit_batch([f"{number}"], torch.full((1, 1_000_000), float(number), device="cuda"))
        torch.cuda.synchronize()
        while writer._lifecycle.backend._schedule.held:  # a thread puts what has arrived into the helpers' queue
            time.sleep(0.01)
        print("ready")
        time.sleep(60)
    """
    process = script(text, str(tmp_path))
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if line == "ready":
        process.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    if line == "no helpers":
        return
    assert line == "ready", errors[-3000:]
    until(lambda: len(list(tmp_path.glob("[!.]*.pt"))) == 8)
    until(lambda: not list(tmp_path.glob(".lighter-async/*.tmp")))
    assert {name: tensor.unique().tolist() for name, tensor in stored(tmp_path).items()} == {
        f"{number}": [number] for number in range(8)
    }
