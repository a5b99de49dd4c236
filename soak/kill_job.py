"""A job that is killed again and again: stores what is pending of its samples, and tells what it has handed over.

    python soak/kill_job.py DIRECTORY SAMPLES BACKEND SEED DESCRIPTOR KIND RUN RANK RANKS

It says to that descriptor, each at once: ``open``, ``pending`` with the indices that are to do, ``handed`` with those
of each batch whose hand-over has returned, ``stored`` after each flush, and ``end``. Before it stores anything it waits
for a line on its standard input: ranks may all share out one list only if none has stored anything of it.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

from kinds import KINDS

from lighter_async import Origin, Run, pending


def say(word: str, *indices: int) -> None:
    # In one piece, since it may be killed in the middle of it.
    os.write(int(sys.argv[5]), (" ".join(map(str, (word, *indices))) + "\n").encode())


def main(directory: Path, samples: int, backend: str, seed: int, kind: str, run: Run) -> None:
    choose = random.Random(seed)
    stored = KINDS[kind]
    say("open")
    left = list(pending(range(samples), stored.where(directory)))
    say("pending", *left)
    sys.stdin.readline()
    left = left[run.rank :: run.world_size]
    with stored.writer(
        directory,
        samples,
        choose,
        run,
        backend=backend,
        max_workers=2,
        queue_size=choose.choice([4, 16, 64]),
        resume=True,
    ) as writer:
        while left:
            size = choose.randint(1, 4)
            batch, left = left[:size], left[size:]
            names, values = stored.samples(batch)
            writer.submit_batch(names, values, origin=Origin(indices=batch))
            say("handed", *batch)
            time.sleep(choose.uniform(0, 0.02))  # a model's step
            if choose.random() < 0.05:
                writer.flush(seal=choose.random() < 0.5)
                say("stored")
    say("end")


if __name__ == "__main__":
    folder, count, backend, seed, _, kind, id_, rank, ranks = sys.argv[1:]
    run = Run(id=id_, rank=int(rank), world_size=int(ranks), numbered=True)
    main(Path(folder), int(count), backend, int(seed), kind, run)
