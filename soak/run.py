"""Every fault run over both backends, and what they found.

    python soak/run.py [--minutes 20] [--only kills,forks] [--backend process] [--seed 1] [--json FILE] [--page FILE]

Prints a line per round, and the table at the end; the exit status is 1 if anything was not as promised.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from crowd import crowd
from elsewhere import clocks, containers, without_locks
from failing import failing
from forks import forks
from growing import growing
from kills import kills
from signals import signals
from space import full, full_for_a_while, too_large
from tally import Tally, between_markers, table

ROOT = Path(__file__).parent.parent

# By name: the run, its rounds and samples for each backend, and its share of the time. What one leaves, the next have.
RUNS: dict[str, tuple[Callable[..., Tally], int, dict[str, Any], float]] = {
    "crowd": (crowd, 1, {"samples": 100_000}, 1.0),
    "forks": (forks, 20, {"samples": 120}, 0.7),
    "too_large": (too_large, 20, {"samples": 60}, 0.7),
    "full": (full, 30, {"samples": 100}, 0.7),
    "full_for_a_while": (full_for_a_while, 20, {"samples": 100}, 0.7),
    "failing": (failing, 30, {"samples": 60}, 2.0),
    "signals": (signals, 30, {"samples": 2000}, 1.0),
    "growing": (growing, 20, {"samples": 40}, 1.0),
    "clocks": (clocks, 10, {"samples": 60}, 0.7),
    "containers": (containers, 10, {"samples": 60}, 0.5),
    "without_locks": (without_locks, 10, {"samples": 60}, 0.5),
    "kills": (kills, 200, {"samples": 300}, 7.0),
    "kills_shards": (kills, 200, {"samples": 300, "kinds": ["shards"], "ranks": 2}, 5.0),
    "kills_table": (kills, 200, {"samples": 300, "kinds": ["table"], "ranks": 2}, 5.0),
    "kills_arrays": (kills, 200, {"samples": 300, "kinds": ["rows", "growing rows"], "ranks": 2}, 5.0),
}
BACKENDS = ("process", "thread")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="after so long no run begins another round")
    parser.add_argument("--only", default=",".join(RUNS), help="these runs alone, with commas between them")
    parser.add_argument("--backend", choices=BACKENDS, help="this one alone")
    parser.add_argument("--seed", type=int, default=1, help="decides when what happens")
    parser.add_argument("--folder", type=Path, help="where to store; by default a temporary folder")
    parser.add_argument("--json", type=Path, default=ROOT / "soak-output" / "soak.json", help="where the figures go")
    parser.add_argument("--page", type=Path, help="a page whose table is made anew, between its markers")
    options = parser.parse_args(arguments)
    chosen = options.only.split(",")
    if unknown := set(chosen) - set(RUNS):
        parser.error(f"there is no run {', '.join(sorted(unknown))}; there are {', '.join(RUNS)}")
    backends = [options.backend] if options.backend else list(BACKENDS)

    began = time.monotonic()
    unit = 60 * options.minutes / sum(RUNS[name][3] for name in chosen) / len(backends)
    deadline = began
    tallies: list[Tally] = []
    folder = Path(tempfile.mkdtemp(prefix="soak-", dir=options.folder))
    for name in chosen:
        run, rounds, sizes, share = RUNS[name]
        for backend in backends:
            deadline += share * unit
            tallies.append(_run(run, rounds, sizes, backend, folder, options.seed, began, deadline))
    is_clean = all(one.is_clean for one in tallies)
    if is_clean:
        shutil.rmtree(folder)
    minutes = (time.monotonic() - began) / 60
    command = "soak/run.py " + " ".join(sys.argv[1:] if arguments is None else arguments)
    about = {**machine(), "command": command.strip(), "seed": options.seed, "minutes": round(minutes, 1)}
    text = f"{_told(about)}\n\n{table(tallies)}\n\n{_beside(tallies)}"
    print("\n" + text)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"about": about, "runs": [one.to_dict() for one in tallies]}, indent=1) + "\n")
    if options.page is not None:
        options.page.write_text(between_markers(options.page.read_text(), text))
    troubles = [f"{one.fault}, {one.backend}: {trouble}" for one in tallies for trouble in one.troubles]
    if not is_clean:
        print("\n".join([*troubles, f"what is there stays in {folder}"]), file=sys.stderr)
    return 0 if is_clean else 1


def _run(
    run: Callable[..., Tally],
    rounds: int,
    sizes: dict[str, Any],
    backend: str,
    folder: Path,
    seed: int,
    began: float,
    deadline: float,
) -> Tally:
    def go_on(tally: Tally) -> bool:
        print(f"{time.monotonic() - began:6.1f} s  {tally}", flush=True)
        return time.monotonic() < deadline

    return run(seed, rounds, backend, folder, go_on=go_on, **sizes)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "date": date.today().isoformat(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _told(about: dict[str, Any]) -> str:
    return (
        f"Measured on {about['date']} by `{about['command']}` (seed {about['seed']}) in {about['minutes']} minutes, "
        f"on {about['cores']} cores, {about['system']}, Python {about['python']}, torch {about['torch']}."
    )


def _beside(tallies: Sequence[Tally]) -> str:
    """What the table has no column for."""
    midway, kills_done = sum(one.midway for one in tallies), sum(one.faults for one in tallies if one.midway)
    unrecorded = sum(one.unrecorded for one in tallies)
    told = []
    if midway:
        told.append(f"{midway} of the {kills_done} kills came while a file was half written.")
    if unrecorded:
        told.append(
            f"{unrecorded} of the reported samples had their file stored, whole, when the manifest found no room for "
            "their lines; the next run takes them over or stores them again."
        )
    return " ".join(told)


if __name__ == "__main__":
    # An exception, so that what was mounted is unmounted.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.exit(main())
