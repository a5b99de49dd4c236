"""The queue that helpers share, with processes that are killed in the middle of a change."""

import itertools
import os
import signal
from contextlib import contextmanager

import pytest

from lighter_async.workers.process import shared_queue_lock as lock_module
from lighter_async.workers.process.shared_queue_helper_side import HelperQueue
from lighter_async.workers.process.shared_queue_parent_side import ParentQueue
from lighter_async.workers.process.shared_queue_words import BROKEN, STARTING

HELPERS, RECORDS = 3, 8
PLACES = {"slot": (4096, 100), "message": (8192, 50)}


class Killed(BaseException):
    """In the place of SIGKILL."""


class DeadlyWords:
    """A queue's words, which kill their process at the n-th store."""

    def __init__(self, words, stores):
        self._words = words
        self._left = stores

    def __getitem__(self, key):
        return self._words[key]

    def __setitem__(self, key, value):
        if not self._left:
            raise Killed
        self._left -= 1
        self._words[key] = value


@contextmanager
def queues():
    """Makes views of one queue, as several processes have them."""
    descriptor = os.memfd_create("queue")
    os.ftruncate(descriptor, ParentQueue.size_of(HELPERS, RECORDS))
    made = []

    def make(side):
        made.append(side(descriptor, HELPERS, RECORDS))
        return made[-1]

    yield make
    for queue in made:
        queue.close()
    os.close(descriptor)


@pytest.fixture
def make_queue():
    with queues() as make:
        yield make


def deadly(queue, stores):
    queue._words, words = DeadlyWords(queue._words, stores), queue._words
    return words


def do(queue, helper, done, take=None):
    """Take a unit, from the queue or as `take` does, and write its samples; returns whether there was one."""
    claim = queue.turn(helper)[0] if take is None else take(helper)
    if claim is None:
        return False
    for index in range(claim.start, claim.stop):
        queue.on_progress(helper, index)
        done.append((claim.serial, index))
    count = claim.stop - claim.start
    queue.count(helper, written=count, skipped=0, failed=0, nbytes=10 * count, encode_ns=2 * count, store_ns=3 * count)
    return True


def test_units_are_taken_in_order_and_their_results_told(make_queue):
    """The oldest batch first, so many samples at a time, each once."""
    parent, helper = make_queue(ParentQueue), make_queue(HelperQueue)
    parent.append(5, 0, 5, per=2, serial=1, **PLACES)
    parent.append(2, 10, 11, per=4, serial=2, **PLACES)
    done = []
    while do(helper, 0, done):
        pass
    assert done == [(1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (2, 10)]
    outcomes = parent.outcomes(0)
    assert [(one.record, one.start, one.stop) for one in outcomes] == [(5, 0, 2), (5, 2, 4), (5, 4, 5), (2, 10, 11)]
    assert [(one.written, one.bytes_written, one.encode_ns) for one in outcomes] == [
        (2, 20, 4),
        (2, 20, 4),
        (1, 10, 2),
        (1, 10, 2),
    ]
    assert parent.outcomes(3) == outcomes[3:]
    assert parent.in_hand(0) is None


def test_who_sleeps_is_woken_by_who_finds_more(make_queue):
    """The parent wakes one, and each that finds more than its own unit the next."""
    parent, helper = make_queue(ParentQueue), make_queue(HelperQueue)
    parent.append(0, 0, 1, per=1, serial=1, **PLACES)
    assert parent.sleepers() == []
    assert helper.turn(0)[1] is None
    assert helper.turn(1) == (None, None, False)
    assert helper.turn(2) == (None, None, False)
    parent.append(1, 0, 4, per=1, serial=2, **PLACES)
    assert parent.sleepers() == [1]
    assert helper.turn(0)[1] == 1
    assert helper.turn(1)[1] == 2
    assert helper.turn(2)[1] is None  # nobody sleeps any more


def test_all_who_sleep_are_woken_where_nobody_has_come_for_long(make_queue):
    """The first one may have been stopped by somebody."""
    parent, helper = make_queue(ParentQueue), make_queue(HelperQueue)
    for sleeping in range(3):
        helper.turn(sleeping)
    parent.append(1, 0, 1, per=1, serial=1, **PLACES)
    assert parent.sleepers() == [0]
    assert parent.sleepers(everyone=True) == [0, 1, 2]
    parent.append(2, 0, 1, per=1, serial=2, **PLACES)
    assert parent.sleepers() == [0, 1, 2]


def test_only_who_watches_is_told_of_what_was_done(make_queue):
    """A helper learns it when it enters a result."""
    parent, helper = make_queue(ParentQueue), make_queue(HelperQueue)
    parent.append(0, 0, 4, per=1, serial=1, **PLACES)
    assert [helper.turn(0)[2] for _ in range(2)] == [False, False]
    parent.watch(1)
    assert helper.turn(0)[2]
    parent.watch(0)
    assert not helper.turn(0)[2]


def test_what_was_withdrawn_is_not_taken(make_queue):
    """The rest of a record that was begun too."""
    parent, helper = make_queue(ParentQueue), make_queue(HelperQueue)
    parent.append(0, 0, 5, per=2, serial=1, **PLACES)
    parent.append(1, 0, 1, per=1, serial=2, **PLACES)
    helper.turn(0)
    assert parent.withdraw() == [(0, 2, 5), (1, 0, 1)]
    assert helper.turn(1) == (None, None, False)
    assert parent.withdraw() == []


def test_a_helper_says_how_it_is(make_queue):
    """And that the others are to end."""
    parent, helper = make_queue(ParentQueue), make_queue(HelperQueue)
    assert parent.state(1) == STARTING
    helper.say_broken(1)
    assert parent.state(1) == BROKEN
    helper.say_failures(1, 77)
    assert parent.failures(1) == 77
    assert not helper.ending
    parent.end(seal=True)
    assert helper.ending
    assert not helper.ends_unsealed
    parent.end(seal=False)
    assert helper.ending
    assert helper.ends_unsealed


def test_each_helper_is_asked_once_to_seal(make_queue):
    """For each request of the parent's; one that begins later is asked for the latest."""
    parent, helper = make_queue(ParentQueue), make_queue(HelperQueue)
    assert helper.request_to_seal(0) == 0
    request = parent.ask_to_seal()
    assert not parent.has_sealed(0, request)
    assert helper.request_to_seal(0) == request
    helper.say_sealed(0, request)
    assert parent.has_sealed(0, request)
    assert not parent.has_sealed(1, request)
    assert helper.request_to_seal(0) == 0
    assert helper.request_to_seal(1) == request


def test_a_helper_killed_at_any_store_loses_and_doubles_nothing():
    """The parent learns whether its unit is done; what is not is taken by others, each once."""
    for stores in itertools.count():
        with queues() as make_queue:
            if not killed_at(stores, make_queue):
                break
    assert stores > 60


def killed_at(stores, make_queue):
    """Kill a helper at its n-th store, and look at what becomes of the samples; returns whether it came so far."""
    parent, victim, other = make_queue(ParentQueue), make_queue(HelperQueue), make_queue(HelperQueue)
    parent.append(0, 0, 5, per=2, serial=1, **PLACES)
    parent.append(1, 0, 2, per=2, serial=2, **PLACES)
    words = deadly(victim, stores)
    by_victim = []
    died = False
    try:
        while do(victim, 0, by_victim):
            pass
    except Killed:
        died = True
    victim._words = words

    # Another one goes on before the parent notices.
    by_other = []
    do(other, 1, by_other)
    told = [(one.helper, one.ticket) for one in parent.outcomes(0)]
    found = parent.in_hand(0)
    if found is not None and (0, found[0].ticket) not in told:
        hand, is_done, at = found
        assert hand.start <= at < hand.stop
        # Samples that were written but not counted are written again: the same bytes under the same names.
        again = [(hand.record + 1, index) for index in range(hand.start, hand.stop) if not is_done]
        by_victim = [one for one in by_victim if one not in again]
        if again:
            parent.append(2, hand.start, hand.stop, per=1, serial=hand.record + 1, redelivered=True, **PLACES)
    while do(other, 1, by_other):
        pass
    assert sorted(by_victim + by_other) == [(1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (2, 0), (2, 1)]
    return died


def test_an_orphan_killed_at_any_store_leaves_everything_to_the_next():
    """What a dead helper had is inherited by one that dies in turn."""
    for stores in itertools.count():
        with queues() as make_queue:
            if not orphan_killed_at(stores, make_queue):
                break
    assert stores > 60


def orphan_killed_at(stores, make_queue):
    """Kill an orphan at its n-th store; returns whether it came so far. Nobody is seen alive, for all are one here."""
    parent, victim, other = make_queue(ParentQueue), make_queue(HelperQueue), make_queue(HelperQueue)
    parent.append(0, 0, 3, per=3, serial=1, **PLACES)
    victim.turn(0)  # who dies with it
    parent.append(1, 0, 2, per=2, serial=2, **PLACES)
    words = deadly(victim, stores)
    done = []
    died = False
    try:
        while do(victim, 1, done, victim.inherit) or do(victim, 1, done):
            pass
    except Killed:
        died = True
    victim._words = words
    more = []
    while do(other, 2, more, other.inherit) or do(other, 2, more):
        pass
    assert not other.has_work
    every = [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    # What the one that died had written but not counted is written once more.
    assert sorted({*done, *more}) == every
    assert len(more) == len(set(more))
    assert len({*done} & {*more}) <= 2
    return died


class StoppingWords(DeadlyWords):
    """A queue's words, which stop their process at the n-th store."""

    def __setitem__(self, key, value):
        if not self._left:
            os.kill(os.getpid(), signal.SIGSTOP)
        self._left -= 1
        self._words[key] = value


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_helper_stopped_at_any_store_holds_nobody_up_and_nothing_is_lost(monkeypatch):
    """The parent does all that it has to do; another helper ends it where it holds the lock, and goes on."""
    monkeypatch.setattr(lock_module, "_SECONDS_STOPPED", 0.02)
    for stores in itertools.count():
        with queues() as make_queue:
            if not stopped_at(stores, make_queue):
                break
    assert stores > 20


def stopped_at(stores, make_queue):
    """Stop a helper at its n-th store; returns whether it came so far."""
    parent, other = make_queue(ParentQueue), make_queue(HelperQueue)
    parent.append(0, 0, 2, per=2, serial=1, **PLACES)
    child = os.fork()
    if not child:
        victim = make_queue(HelperQueue)
        victim.live(0)
        victim._words = StoppingWords(victim._words, stores)
        do(victim, 0, [])
        victim.turn(0)
        os._exit(0)
    _, status = os.waitpid(child, os.WUNTRACED)
    stopped = os.WIFSTOPPED(status)
    # None of these waits for anything.
    parent.append(1, 0, 2, per=2, serial=2, **PLACES)
    parent.watch(1)
    parent.sleepers()
    parent.outcomes(0)
    by_other = []
    do(other, 1, by_other)  # waits for the lock, if it has to
    if stopped:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    told = [(one.helper, one.ticket) for one in parent.outcomes(0)]
    found = parent.in_hand(0)
    if found is not None and (0, found[0].ticket) not in told and not found[1]:
        parent.append(2, found[0].start, found[0].stop, per=2, serial=found[0].record + 1, redelivered=True, **PLACES)
    while do(other, 1, by_other):
        pass
    by_victim = [one for one in parent.outcomes(0) if one.helper == 0]
    done_by_victim = [(one.record + 1, index) for one in by_victim for index in range(one.start, one.stop)]
    if found is not None and (0, found[0].ticket) not in told and found[1]:
        done_by_victim += [(found[0].record + 1, index) for index in range(found[0].start, found[0].stop)]
    assert sorted(by_other + done_by_victim) == [(1, 0), (1, 1), (2, 0), (2, 1)]
    return stopped


@pytest.mark.parametrize("stores", range(13))
def test_a_parent_killed_at_any_store_has_handed_all_over_or_nothing(make_queue, stores):
    """Helpers never see half a record."""
    parent, helper = make_queue(ParentQueue), make_queue(HelperQueue)
    parent.append(0, 0, 1, per=1, serial=1, **PLACES)
    words = deadly(parent, stores)
    try:
        parent.append(1, 0, 2, per=1, serial=2, **PLACES)
        whole = True
    except Killed:
        whole = False
    parent._words = words
    done = []
    while do(helper, 0, done):
        pass
    assert done == [(1, 0), *([(2, 0), (2, 1)] if whole else [])]
    assert whole == (stores >= 11)


def test_places_are_used_again(make_queue):
    """Any number of batches goes through a queue of a fixed size."""
    parent, helper = make_queue(ParentQueue), make_queue(HelperQueue)
    done, expected = [], []
    for serial, record in zip(range(100), itertools.cycle(range(RECORDS)), strict=False):
        parent.append(record, 0, 2, per=1, serial=serial, **PLACES)
        expected += [(serial, 0), (serial, 1)]
        while do(helper, serial % HELPERS, done):
            pass
    assert done == expected
    assert parent.results == 200
