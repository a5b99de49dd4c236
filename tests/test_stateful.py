"""Writers against a model of what they promise, in any order of calls."""

import itertools
import shutil
import tempfile
from pathlib import Path

import pytest
from harness import leftovers
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sent_to_helpers import encode_unless_it_fails, fails

from lighter_async import BackgroundWriter, ClosedError, DuplicateNameError, Encoder, WriteError, read_manifest
from lighter_async.manifest import checksum

NAMES = st.sampled_from([*"abcdefgh", "x/a", "x/b"])
KINDS = st.sampled_from(["fine", "fine", "fine", "fail"])
BATCHES = st.lists(st.tuples(NAMES, KINDS), max_size=5)


class Writers(RuleBasedStateMachine):
    """One directory, and writers on it, one after the other.

    Which samples `abort` drops is for nobody to foresee: those that are not stored then, as many as it says.
    """

    backend = "thread"

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="lighter-async-tests-"))
        self.writer = None
        self.files = {}  # what is stored, as far as that is known
        self.recorded = set()  # the samples that need not be computed again
        self.steps = itertools.count()

    @initialize(
        on_error=st.sampled_from(["stop", "continue"]),
        durability=st.sampled_from(["rename", "fsync"]),
        max_workers=st.integers(1, 3),
        queue_size=st.sampled_from([1, 3, 256]),
    )
    def choose(self, **options):
        self.options = options
        self.open(resume=False)

    def open(self, resume):
        self.writer = BackgroundWriter(
            Encoder(encode_unless_it_fails, suffix="", name="text"),
            self.folder,
            backend=self.backend,
            resume=resume,
            **self.options,
        )
        self.writer.start()
        if not resume:
            self.recorded = set()
        self.accepted = {}  # of this writer: values by names
        self.pending = set()  # of these, those that were not waited for
        self.told = set()  # failures that were raised
        self.dropped = 0
        self.is_closed = False

    # What callers do

    @precondition(lambda self: not self.is_closed)
    @rule(name=NAMES, kind=KINDS)
    def submit(self, name, kind):
        value = self.value(kind)
        self.hand_over([(name, value)], lambda: self.writer.submit(name, value))

    @precondition(lambda self: not self.is_closed)
    @rule(samples=BATCHES)
    def submit_batch(self, samples):
        samples = [(name, self.value(kind)) for name, kind in samples]
        names, values = [name for name, _ in samples], [value for _, value in samples]
        self.hand_over(samples, lambda: self.writer.submit_batch(names, values))

    def value(self, kind):
        """A value that no other sample has."""
        return f"{kind} {next(self.steps)}"

    def hand_over(self, samples, call):
        names = [name for name, _ in samples]
        try:
            call()
        except WriteError as error:
            self.hear(error)
        except ClosedError:
            assert self.has_failed, "refused without a failure"
        except DuplicateNameError:
            assert len(set(names)) < len(names) or set(names) & set(self.accepted)
        else:
            assert len(set(names)) == len(names)
            assert not set(names) & set(self.accepted)
            self.accepted.update(samples)
            self.pending.update(names)

    @rule()
    def flush(self):
        self.hearing(self.writer.flush)
        self.settle(dropped=0)

    @rule()
    def close(self):
        self.hearing(self.writer.close)
        self.settle(dropped=0)
        self.is_closed = True
        assert self.writer.state == "closed"

    @rule()
    def abort(self):
        before = self.dropped
        self.hearing(self.writer.abort)
        self.settle(dropped=self.writer.stats().dropped - before)
        self.is_closed = True

    @precondition(lambda self: self.is_closed)
    @rule(resume=st.booleans())
    def reopen(self, resume):
        self.open(resume)

    @precondition(lambda self: self.is_closed)
    @rule(name=NAMES)
    def submit_to_a_closed_one(self, name):
        stats = self.writer.stats()
        try:
            self.writer.submit(name, "x")
        except ClosedError:
            pass
        else:
            raise AssertionError("it was taken")
        assert self.writer.stats() == stats

    # What comes of it

    @property
    def has_failed(self):
        return any(map(fails, self.accepted.values()))

    def hearing(self, call):
        try:
            call()
        except WriteError as error:
            self.hear(error)

    def hear(self, error):
        names = {failure.name for failure in error.failures}
        assert len(names) == len(error.failures)
        assert all(fails(self.accepted[name]) for name in names), "a failure of nothing that fails"
        assert not names & self.told, "told twice"
        assert all((failure.kept is not None) == (self.options["on_error"] == "continue") for failure in error.failures)
        self.told |= names

    def settle(self, dropped):
        """Everything accepted is done: compare it with the model."""
        stats = self.writer.stats()
        stored = self.look()
        assert stats.pending == 0
        self.dropped += dropped
        failing = {name for name in self.pending if fails(self.accepted[name])}
        missing = {name for name in self.pending - failing if stored.get(name) != self.accepted[name]}
        unraised = failing - self.told
        assert len(missing) + len(unraised) == dropped, (missing, unraised, dropped)
        for name in self.pending - missing - failing:
            self.files[name] = self.accepted[name]
            self.recorded.add(name)
        self.pending = set()
        # A dropped sample leaves what an earlier run has stored.
        assert stored == self.files
        assert self.done == self.recorded
        own = [name for name, value in self.accepted.items() if self.files.get(name) == value]
        assert stats.accepted == len(self.accepted)
        assert stats.written == len(own)
        assert stats.failed == len(self.told)
        assert stats.dropped == self.dropped
        assert (stats.skipped, stats.pending_bytes) == (0, 0)
        assert stats.written + stats.failed + stats.dropped == stats.accepted

    def look(self):
        found = {}
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and not name.startswith(".lighter-async"):
                found[name] = path.read_text()
        manifest = read_manifest(self.folder)
        assert {record.file: record.xxh3 for record in manifest.records} == {
            name: checksum([memoryview(text.encode())]) for name, text in found.items()
        }
        self.done = manifest.names()
        return found

    @invariant()
    def adds_up(self):
        if self.writer is not None:
            stats = self.writer.stats()
            assert stats.accepted == stats.written + stats.skipped + stats.failed + stats.dropped + stats.pending, stats
            assert stats.accepted == len(self.accepted)
            assert 0 <= stats.pending <= max(len(self.pending), 0)

    def teardown(self):
        try:
            if self.writer is not None:
                self.hearing(self.writer.close)
                assert leftovers(self.folder) == []
        finally:
            shutil.rmtree(self.folder)


class HelpersWriters(Writers):
    backend = "process"


_SETTINGS = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None, "print_blob": False}

TestThreads = Writers.TestCase
TestThreads.settings = settings(max_examples=60, stateful_step_count=15, **_SETTINGS)
TestHelpers = pytest.mark.long(HelpersWriters.TestCase)
TestHelpers.settings = settings(max_examples=6, stateful_step_count=10, **_SETTINGS)
