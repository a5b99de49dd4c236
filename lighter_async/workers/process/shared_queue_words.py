"""The queue's words: where in its memory what stands, and what is made of them."""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "ASLEEP",
    "AT",
    "AWAKE",
    "BASE",
    "BEGINNING",
    "BROKEN",
    "BYTES",
    "CELL",
    "CLOSING",
    "Claim",
    "DEATHS",
    "DONE",
    "ENCODE_NS",
    "FAILED",
    "FAILED_EVER",
    "FAILURES",
    "HEAD",
    "HURRY",
    "INTENT",
    "LAST",
    "MESSAGE_OFFSET",
    "MESSAGE_SIZE",
    "NEXT",
    "OFFSET",
    "Outcome",
    "PER",
    "PROCESS",
    "READ",
    "RECORD",
    "RECORD_WORDS",
    "REDELIVERED",
    "RESULTS",
    "RESULT_WORDS",
    "SEAL",
    "SEALED",
    "SERIAL",
    "SINCE",
    "SIZE",
    "SKIPPED",
    "SOURCE",
    "START",
    "STARTING",
    "STATE",
    "STOP",
    "STORE_NS",
    "SUCCESSORS",
    "SUSPECT",
    "TAIL",
    "TICKET",
    "TICKETS",
    "WATCHERS",
    "WRITTEN",
]

# Words at the beginning:
HEAD = 0  # places of the queue that are taken
TAIL = 1  # places of the queue that are filled
RESULTS = 2  # results that were entered, ever
CLOSING = 3  # whether helpers are to end when the queue is empty: 1, or 2 if they are to seal nothing before
TICKETS = 4  # units that were taken, ever
INTENT = 5  # the helper that is taking a unit, plus one; else 0
WATCHERS = 6  # threads of the parent that wait for results
FAILED_EVER = 7  # whether a sample has failed, ever
HURRY = 8  # whether helpers are to wait for nothing any more, since what is queued was dropped
SUCCESSORS = 9  # helpers that were started by others, since the parent is gone
SEAL = 10  # how often the parent has asked for what is stored to be sealed
BEGINNING = 11

# A helper's cell:
TICKET = 0  # of the unit in hand, 0 if there is none
RECORD = 1
START = 2
STOP = 3
WRITTEN = 4
SKIPPED = 5
FAILED = 6
BYTES = 7
ENCODE_NS = 8
STORE_NS = 9
FAILURES = 10  # bytes of the helper's failures that are whole
STATE = 11
DONE = 12  # whether the samples of the unit in hand are counted
AT = 13  # the sample that is being written
SINCE = 14  # when that was begun, in nanoseconds of the monotonic clock; 0 between units
PROCESS = 15  # the helper's process number
DEATHS = 16  # helpers that died over the sample that the unit in hand is at, without the parent
READ = 17  # bytes of its failures that the parent has read
BASE = 18  # bytes of its failures that its file begins behind
SUSPECT = 19  # that sample
SOURCE = 20  # the dead helper that the unit in hand is inherited from, plus one; 0 if it comes from the queue
SEALED = 21  # the latest of the parent's requests to seal that the helper has met
CELL = 22

# A record:
OFFSET = 0  # of the batch's slot
SIZE = 1
MESSAGE_OFFSET = 2  # of the slot that says what the batch is
MESSAGE_SIZE = 3
NEXT = 4  # the first sample that nobody has taken
LAST = 5  # the sample behind the last one
PER = 6  # samples a unit
SERIAL = 7  # of the batch
REDELIVERED = 8  # whether a helper had it that has died
RECORD_WORDS = 9

# A result: the helper, the ticket, the record, and the cell from START to FAILURES.
RESULT_WORDS = 12

# States of a helper.
STARTING, AWAKE, ASLEEP, BROKEN = range(4)


class Claim(NamedTuple):
    """A unit in a helper's hand: samples ``start`` to ``stop`` of a batch, and where that lies.

    It is `redelivered` if it was in the hand of a helper that died.
    """

    serial: int
    start: int
    stop: int
    slot: tuple[int, int]
    message: tuple[int, int]
    redelivered: bool


class Outcome(NamedTuple):
    """What became of a unit, in the order in which a result is entered."""

    helper: int
    ticket: int
    record: int
    start: int
    stop: int
    written: int
    skipped: int
    failed: int
    bytes_written: int
    encode_ns: int
    store_ns: int
    failures: int
