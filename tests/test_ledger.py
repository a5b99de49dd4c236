"""The books, without workers: what comes in when, and that they add up."""

import pytest
from harness import in_thread, until

from lighter_async.errors import ClosedError, QueueFullError, WriteError
from lighter_async.ledger import Bell, Failures, Ledger, Reservation
from lighter_async.staging import Staged
from lighter_async.types import Batch, Result, Unit


@pytest.fixture
def released():
    """Batches whose memory the ledger gave back."""
    return []


@pytest.fixture
def ledger(released):
    return Ledger(queue_size=4, queue_bytes=100, max_workers=1, location="here", release=released.append)


def batch_of(count, nbytes=10):
    return Batch([str(i) for i in range(count)], Staged(None, None, None, [], []), nbytes, count)


def accept(ledger, batch):
    ledger.reserve(Reservation(batch.left, batch.nbytes), 0)
    ledger.accept(batch)
    return batch


def failure(name):
    return WriteError.of_sample(ValueError("no way"), writer="some", name=name)


@pytest.mark.parametrize(
    ("count", "nbytes", "fits"), [(1, 90, True), (3, 10, True), (4, 10, False), (1, 91, False), (0, 0, True)]
)
def test_what_fits_beside_what_is_there_comes_in(ledger, count, nbytes, fits):
    """Both bounds are inclusive, and both count."""
    accept(ledger, batch_of(1, 10))
    reservation = Reservation(count, nbytes)
    if not fits:
        with pytest.raises(QueueFullError, match="1 of 4 samples"):
            ledger.reserve(reservation, 0)
    else:
        ledger.reserve(reservation, 0)
    assert reservation.taken == fits


@pytest.mark.parametrize(("count", "nbytes"), [(5, 10), (1, 101), (5, 101)])
def test_what_is_above_a_bound_comes_in_when_nothing_else_is_there(ledger, count, nbytes):
    """And keeps everything else out until it is done."""
    big = accept(ledger, batch_of(count, nbytes))
    for reservation in (Reservation(1, 0), Reservation(count, nbytes)):
        with pytest.raises(QueueFullError):
            ledger.reserve(reservation, 0)
    ledger.done(big, Result(written=count))
    ledger.reserve(Reservation(count, nbytes), 0)


def test_samples_free_their_place_one_by_one_and_their_bytes_together(ledger, released):
    """The batch's memory is one piece, which its last sample still needs."""
    batch = accept(ledger, batch_of(4, 100))
    ledger.done(batch, Result(written=3))
    assert released == []
    with pytest.raises(QueueFullError):
        ledger.reserve(Reservation(1, 1), 0)
    ledger.reserve(Reservation(3, 0), 0)
    ledger.done(batch, Result(skipped=1))
    assert released == [batch]
    ledger.reserve(Reservation(1, 100), 0)


def test_a_reservation_that_is_withdrawn_is_free_again(ledger):
    """Once, however often it is withdrawn, and not if it was never taken."""
    reservation = Reservation(4, 100)
    ledger.withdraw(reservation)
    ledger.reserve(reservation, 0)
    ledger.withdraw(reservation)
    ledger.withdraw(reservation)
    assert ledger.stats().pending_bytes == 0
    ledger.reserve(Reservation(4, 100), 0)
    with pytest.raises(QueueFullError, match="4 of 4"):
        ledger.reserve(Reservation(1, 0), 0)


def test_a_batch_that_is_rejected_was_never_there(ledger):
    """It is not accepted and not waited for; rejecting it twice is as once."""
    batch = accept(ledger, batch_of(2))
    ledger.reject(batch)
    ledger.reject(batch)
    assert (ledger.stats().accepted, ledger.stats().pending) == (0, 0)
    assert ledger.wait_done(None, None) == 0


def test_one_who_gives_up_lets_the_next_one_in(ledger):
    """The next in line goes as soon as it is first, without waiting for anything to be written."""
    busy = accept(ledger, batch_of(2))
    first = in_thread(ledger.reserve, Reservation(3, 0), None)
    until(lambda: ledger.stats().waits == 1)
    second = in_thread(ledger.reserve, Reservation(2, 0), None)
    until(lambda: ledger.stats().waits == 2)
    with pytest.raises(QueueFullError):
        ledger.reserve(Reservation(2, 0), 0)  # although it would fit
    ledger.done(busy, Result(written=1))
    first.result()
    with pytest.raises(QueueFullError):
        ledger.reserve(Reservation(1, 0), 0.01)
    ledger.done(busy, Result(written=1))
    assert second.running
    ledger.refuse("closed")
    with pytest.raises(ClosedError):
        second.result()


def test_a_timeout_in_line_wakes_the_next_one(ledger):
    """One whose time is up leaves the line, and the one behind it, which fits, comes in."""
    accept(ledger, batch_of(2))
    first = in_thread(ledger.reserve, Reservation(3, 0), 0.2)
    until(lambda: ledger.stats().waits == 1)
    second = in_thread(ledger.reserve, Reservation(2, 0), None)
    with pytest.raises(QueueFullError, match=r"for 0\.2 s"):
        first.result()
    second.result()


def test_a_mark_waits_for_what_was_accepted_before_it(ledger):
    """And for nothing after it; what is pending is counted up to it."""
    before = accept(ledger, batch_of(2))
    mark = ledger.mark()
    after = accept(ledger, batch_of(2))
    assert ledger.wait_done(mark, 0) == ledger.pending(mark) == 2
    assert ledger.pending() == 4
    ledger.done(after, Result(written=2))
    assert ledger.wait_done(mark, 0) == 2
    ledger.done(before, Result(written=2))
    assert ledger.wait_done(mark, None) == 0


def test_the_books_add_up_whatever_becomes_of_samples(ledger, released):
    """Written, skipped, failed and dropped ones are told apart, and each counts once."""
    batch = accept(ledger, batch_of(4))
    ledger.done(batch, Result(written=1, skipped=1, failures=[failure("2")], bytes_written=7))
    stats = ledger.stats()
    assert (stats.accepted, stats.pending, stats.bytes_written) == (4, 1, 7)
    assert ledger.drop([Unit(batch, 3, 4)]) == 1
    stats = ledger.stats()
    assert (stats.written, stats.skipped, stats.failed, stats.dropped, stats.pending) == (1, 1, 1, 1, 0)
    assert released == [batch]


def test_failures_are_raised_once_and_close_the_ledger(ledger):
    """Together, with what became of the others; afterwards the reason stands in the refusal."""
    batch = accept(ledger, batch_of(4))
    ledger.done(batch, Result(written=1, failures=[failure("1"), failure("2")]))
    assert ledger.failed
    assert len(ledger.unraised) == 2
    with pytest.raises(WriteError, match=r"2 samples were not written.*\[1 sample is stored, 1 is still") as caught:
        ledger.check_open()
    assert [one.name for one in caught.value.failures] == ["1", "2"]
    assert len(ledger.unraised) == 0
    ledger.raise_failures()
    with pytest.raises(ClosedError, match="what was accepted before is still stored") as refused:
        ledger.reserve(Reservation(1, 1), 0)
    assert refused.value.__cause__ is caught.value.failures[0]


def test_a_bell_rings_at_every_change_and_is_quiet_otherwise(ledger):
    """It is readable from a change on until it is silenced, and closed when nobody needs it."""
    with ledger.bell() as bell:
        with pytest.raises(BlockingIOError):
            bell.socket.recv(1)
        batch = accept(ledger, batch_of(2))
        ledger.done(batch, Result(written=1))
        ledger.drop([Unit(batch, 1, 2)])
        bell.silence()
        with pytest.raises(BlockingIOError):
            bell.socket.recv(1)
        ledger.refuse("closed")
        assert bell.socket.recv(10) == b"!"
    ledger.refuse("again, with nobody listening")
    assert bell.socket.fileno() == -1


def test_a_bell_may_be_rung_more_often_than_anybody_listens():
    """Neither a full socket nor a closed one is an error, and one silence ends it all."""
    bell = Bell()
    for _ in range(10_000):
        bell.ring()
    bell.silence()
    with pytest.raises(BlockingIOError):
        bell.socket.recv(1)
    bell.close()
    bell.ring()


def test_failures_that_nobody_asks_for_are_kept_up_to_a_bound_and_counted_beyond():
    """The first ones as they are, more of them with short texts, and the number of all."""
    failures = Failures()
    long = "x" * 1_000_000
    for number in range(12_000):
        error = ValueError(long) if number < 30 else ValueError("short")
        failures.add([WriteError.of_sample(error, writer="some", name=str(number))])
    assert len(failures) == 12_000
    assert sum(map(len, failures.lines)) < 40_000_000
    assert failures.lines[-1] == "and 11000 more"
    kept, more = failures.take()
    assert [failure.name for failure in kept] == [str(number) for number in range(10_000)]
    assert more == 2_000
    assert isinstance(kept[0].cause, ValueError)
    assert "ValueError: xxx" in str(kept[29].cause)
    assert sum(len(str(failure)) for failure in kept) < 40_000_000
    text = str(WriteError.of_run(kept[30:], written=5, nbytes=0, pending=0, more=more))
    assert text.startswith("11970 samples were not written: ")
    assert "and 2000 more, which are too many to be kept" in text
    assert (len(failures), failures.lines, failures.take()) == (0, [], ([], 0))
