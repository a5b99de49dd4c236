"""What is left of a job's results when it is killed with SIGKILL in the middle: ours, and what people use instead.

Each way stores batches of 64 rows of 384 float32, one after the other, in a process of its own, which says after each
that it has handed it over. It is killed shortly after it has said so of some. What its format's own reader then gives
is compared with what was handed over: a row counts if it is equal. A second run of ours would go on with what is
missing; the others do not know what that is.

    python benchmarks/after_kill.py [--batches 30] [--rounds 3] [--folder /dev/shm] [--journaled SIZE]
        [--only WAY ...] [--json FILE]
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from alone import parser_for, place_of, show
from killed import BATCH, WAYS, row_values
from measure import Plan, children, folder_in, installed, place_for, spread, tell

__all__ = ["TITLE", "cases", "run"]

TITLE = "What is left after SIGKILL"

_BATCHES = 30
_MOST_SAID = 90  # characters of an error
_MOST_SECONDS = 60.0


def cases(plan: Plan) -> list[str]:
    return ["memory"]


def run(case: str, plan: Plan) -> dict[str, Any]:
    ways = plan.pick([*WAYS], [*WAYS], ["TarShards, threads", "numpy memmap inline"])
    with place_for(case) as (place, where):
        return measured(place, where, ways, batches=plan.pick(_BATCHES, _BATCHES, 3), rounds=plan.pick(3, 1, 1))


def measured(place: Path, where: str, ways: Sequence[str], *, batches: int, rounds: int) -> dict[str, Any]:
    """The figures of all ways, in one place."""
    present = [way for way in ways if installed(*WAYS[way][0])]
    taken: dict[str, list[tuple[int, int, str]]] = {way: [] for way in present}
    with folder_in(place) as root:
        for turn in range(rounds):
            for way in present:
                folder = root / f"{turn} {way}"
                folder.mkdir()
                taken[way].append(killed(way, folder, batches))
                tell(f"after_kill, round {turn + 1} of {rounds}: {way}")
    return {
        "title": f"killed after {batches} batches of {BATCH} rows of 384 float32, {where}",
        "ways": {
            way: {
                "kept": spread(whole / max(handed, 1) for handed, whole, _ in runs),
                "reader": next((error for *_, error in runs if error), ""),
            }
            for way, runs in taken.items()
        },
        "left_out": [way for way in ways if way not in present],
    }


def killed(way: str, folder: Path, count: int) -> tuple[int, int, str]:
    """Rows handed over, those of them that are read whole, and what the reader said."""
    command = [sys.executable, str(Path(__file__).parent / "killed.py"), way, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        handed = 0
        for line in process.stdout:
            if line.strip().isdecimal():
                handed = int(line)
                if handed >= count * BATCH:
                    break
        helpers = children(process.pid)
        process.send_signal(signal.SIGKILL)
        handed = max([handed, *(int(line) for line in process.stdout if line.strip().isdecimal())])
    wait_for_end(helpers)  # they store what they were handed
    try:
        found = WAYS[way][2](folder)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        for path in (str(folder), str(folder).lstrip("/")):
            said = said.replace(path, "FOLDER")
        return handed, 0, said.split("\n", 1)[0][:_MOST_SAID]
    whole = sum(1 for row in range(handed) if row in found and np.array_equal(found[row], row_values(row)))
    return handed, whole, ""


def wait_for_end(processes: Sequence[int]) -> None:
    """Wait until none of them runs; they are nobody's children any more."""
    deadline = time.monotonic() + _MOST_SECONDS
    while any(runs(process) for process in processes):
        if time.monotonic() > deadline:
            raise TimeoutError(f"helpers still run {_MOST_SECONDS:g} s after the kill")
        time.sleep(0.01)


def runs(process: int) -> bool:
    """Whether it is there, and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def main() -> None:
    parser = parser_for(__doc__, rounds=3)
    parser.add_argument("--batches", type=int, default=_BATCHES, help="to hand over before the kill")
    parser.add_argument("--only", nargs="*", help="ways with one of these in their names")
    options = parser.parse_args()
    ways = [way for way in WAYS if not options.only or any(one in way for one in options.only)]
    with place_of(options) as (place, where):
        found = measured(place, where, ways, batches=options.batches, rounds=options.rounds)
    show("after_kill", {"alone": found}, options)


if __name__ == "__main__":
    main()
