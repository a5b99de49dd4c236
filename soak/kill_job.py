"""A job that is killed again and again: stores what is pending of its samples, and tells what it has handed over.

    python soak/kill_job.py DIRECTORY SAMPLES BACKEND SEED DESCRIPTOR

It says to that descriptor, each at once: ``open``, ``pending`` with the indices that are to do, ``handed`` with those
of each batch whose hand-over has returned, ``stored`` after each flush, and ``end``.
"""

from __future__ import annotations

import os
import random
import sys
import time

from samples import value

from lighter_async import BackgroundWriter, Origin, Run, pending


def say(word: str, *indices: int) -> None:
    # In one piece, since it may be killed in the middle of it.
    os.write(int(sys.argv[5]), (" ".join(map(str, (word, *indices))) + "\n").encode())


def main(directory: str, samples: int, backend: str, seed: int) -> None:
    choose = random.Random(seed)
    say("open")
    left = list(pending(range(samples), directory))
    say("pending", *left)
    run = Run(numbered=True)
    with BackgroundWriter(
        "tensor",
        directory,
        backend=backend,  # type: ignore[arg-type]
        max_workers=2,
        queue_size=choose.choice([4, 16, 64]),
        durability=choose.choice(["rename", "rename", "fsync"]),  # type: ignore[arg-type]
        resume=True,
        run=run,
    ) as writer:
        while left:
            size = choose.randint(1, 4)
            batch, left = left[:size], left[size:]
            writer.submit_batch(
                [str(index) for index in batch], [value(index) for index in batch], origin=Origin(indices=batch)
            )
            say("handed", *batch)
            time.sleep(choose.uniform(0, 0.02))  # a model's step
            if choose.random() < 0.05:
                writer.flush()
                say("stored")
    say("end")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
