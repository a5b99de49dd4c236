"""What a queue keeps of tiny samples, which take next to nothing of its bytes, is bounded too."""

import os
import tracemalloc
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
import torch
from harness import shared_memory

from lighter_async import BackgroundWriter, Encoder, QueueFullError
from lighter_async.limits import DEFAULT_QUEUE_SIZE

MEBI = 1 << 20
EACH = 8192
"""Bytes that may be kept of a sample besides what counts against `queue_bytes`."""

TINY = {
    "integer": lambda number: 1000 + number,
    "empty text": lambda number: "",
    "0-d tensor": lambda number: torch.tensor(float(number)),
}
MANY_ITEMS = {
    "list of integers": lambda number: [1000 + number + one for one in range(900)],
    "dict of floats": lambda number: {f"{number} {one}": one / 7 for one in range(450)},
    "list of 0-d tensors": lambda number: [torch.tensor(float(one)) for one in range(100)],
    "pickled 0-d tensors": lambda number: {frozenset("a"): [torch.tensor(float(one)) for one in range(100)]},
}


def encode(value):
    if type(value) is str and value:
        Path(value).read_bytes()  # a pipe: until its other end is closed
    return b""


@pytest.fixture(params=["thread", pytest.param("process", marks=pytest.mark.long)])
def fill(request, tmp_path):
    """Hand samples over while the worker is held at the first one, until there is no room.

    Returns the bytes of memory that Python and shared memory have taken meanwhile, and the writer's counts.
    """

    def fill(value, **options):
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        encoder = Encoder(encode, suffix=".bin", name="held")
        service = BackgroundWriter(encoder, tmp_path / "out", backend=request.param, max_workers=1, **options)
        service.submit("first", str(pipe))
        with pipe.open("w"):  # which waits until the worker is there
            tracemalloc.start()
            try:
                before = shared_memory()
                with suppress(QueueFullError):
                    for number in count():
                        # One at a time, which takes the most memory.
                        service.submit_nowait(f"sample-{number}", value(number))
                taken, stats = tracemalloc.get_traced_memory()[0] + shared_memory() - before, service.stats()
            finally:
                tracemalloc.stop()
        service.abort()
        return taken, stats

    return fill


@pytest.mark.parametrize(
    "value",
    [pytest.param(make, id=kind, marks=[pytest.mark.long] * (kind != "0-d tensor")) for kind, make in TINY.items()],
)
def test_tiny_samples_are_bounded_in_number(fill, value):
    """By default by so many that what is kept of them is no more than the least that `queue_bytes` is by default."""
    taken, stats = fill(value)
    assert (stats.queue_size, stats.pending) == (DEFAULT_QUEUE_SIZE, DEFAULT_QUEUE_SIZE)
    assert taken <= EACH * stats.pending + stats.pending_bytes
    assert EACH * DEFAULT_QUEUE_SIZE <= 64 * MEBI


@pytest.mark.long
@pytest.mark.parametrize("value", MANY_ITEMS.values(), ids=MANY_ITEMS)
def test_items_of_containers_count_against_the_bytes(fill, value):
    """A container of small things is not small."""
    taken, stats = fill(value, queue_bytes=16 * MEBI)
    assert stats.pending < DEFAULT_QUEUE_SIZE // 4
    assert taken <= EACH * stats.pending + stats.pending_bytes
