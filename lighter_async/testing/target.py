"""What every target must do."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from lighter_async.errors import InvalidNameError, NameTakenError
from lighter_async.targets import Features, PathTarget, Target, features_of, lane_of
from lighter_async.testing.base import MakeTarget, TargetSuite, check_stored, opened, put_one, settle_all
from lighter_async.testing.lanes import LanesSuite
from lighter_async.testing.other_processes import ProcessesSuite
from lighter_async.testing.storing import Torn, content_of, item_of, parts_of
from lighter_async.testing.through import WriterSuite
from lighter_async.types import Run

__all__ = ["TargetContract"]

_NAMES = (
    *("0", "7", "100", "a", "b/c", "b/d/e", "b.c", "case.1", "case.2", "case.2.txt", "two words"),
    *("ä/ö", "%2E", "-", "_x_", "__x__", "...x", "x.", "CASE/x", "y" * 100, "'\"", "z=1,2&3"),
)


class Stopped(BaseException):
    """Raised in the middle of storing, by what ends a thread."""


class StoringSuite(TargetSuite):
    """Of `Target`: opening, storing, names, what is there already."""

    def test_it_is_a_target_before_it_is_opened(self, make_target: MakeTarget) -> None:
        """It has all that a target has, says what it can do, and two that store in one place say the same place."""
        target = make_target()
        assert isinstance(target, Target)
        assert isinstance(features_of(target), Features)
        assert target.location
        assert target.location == make_target().location
        if features_of(target).has_paths:
            assert isinstance(target, PathTarget)

    def test_what_stores_nothing_leaves_nothing(self, make_target: MakeTarget) -> None:
        """Opened and closed, and once more."""
        for _ in range(2):
            with opened(make_target()):
                pass
        check_stored(self.read(make_target()), {})

    def test_samples_are_stored_whole_under_their_names(self, make_target: MakeTarget) -> None:
        """Whatever they are called, if the target does not refuse it, in folders and in no order."""
        with opened(make_target()) as target:
            names = [name for name in _NAMES if _takes(target, name)]
            for name in names:
                assert target.put(name, parts_of(content_of(name))) is True
        check_stored(self.read(make_target()), {name: content_of(name) for name in names})
        assert {"0", "a", "case.1", "b/c"} <= set(names), "plain names and folders are no reason to refuse a sample"

    @pytest.mark.parametrize(
        "parts",
        [
            pytest.param([], id="no part"),
            pytest.param([b""], id="an empty part"),
            pytest.param([b"x"], id="one byte"),
            pytest.param([b"", b"x", b"", b"", b"yz", b""], id="empty parts between"),
            pytest.param([bytes([one % 256]) * (one % 3) for one in range(5000)], id="many parts"),
            pytest.param([bytes(range(256)) * 12_000, b"end"], id="3 MB"),
        ],
    )
    def test_parts_are_stored_one_behind_the_other(self, make_target: MakeTarget, parts: list[bytes]) -> None:
        """However many there are, and of whatever length."""
        with opened(make_target()) as target:
            assert target.put("x", [memoryview(part) for part in parts]) is True
            lane = lane_of(target, 0)
            if lane.put(item_of("y", [memoryview(part) for part in parts]), redelivered=False) is None:
                assert settle_all(lane) == [True]
        check_stored(self.read(make_target()), {"x": b"".join(parts), "y": b"".join(parts)})

    def test_a_later_run_adds_to_what_there_is(self, make_target: MakeTarget) -> None:
        """What was stored before is still there, and was before it is closed."""
        for number in range(3):
            with opened(make_target()) as target:
                assert not target.keeps(f"{number}")
                assert target.put(f"{number}", parts_of(content_of(f"{number}")))
            check_stored(self.read(make_target()), {f"{one}": content_of(f"{one}") for one in range(number + 1)})

    def test_what_an_earlier_run_has_stored_is_kept_or_replaced(self, make_target: MakeTarget) -> None:
        """Whole in any case, and `keeps` and the outcome say which."""
        with opened(make_target()) as target:
            target.put("old", parts_of(content_of("old")))
        with opened(make_target()) as target:
            assert target.keeps("new") is False
            keeps = target.keeps("old")
            try:
                stored = target.put("old", parts_of(content_of("old", 1)))
            except FileExistsError:
                stored = False
                assert not keeps, "what is kept is no error"
            assert not (keeps and stored), "keeps said that it would not be replaced"
            assert target.put("new", parts_of(content_of("new"))) is True
        check_stored(self.read(make_target()), {"old": content_of("old", int(stored)), "new": content_of("new")})

    # Names

    def test_names_that_cannot_be_stored_are_refused(self, make_target: MakeTarget) -> None:
        """Before anything is stored, alone and among others; and names that can be stored are not."""
        with opened(make_target()) as target:
            target.check(["0", "a", "b/c", "case.1"])
            for name in self.refused_names:
                for names in ([name], ["a", name, "b/c"]):
                    with pytest.raises(InvalidNameError):
                        target.check(names)
        check_stored(self.read(make_target()), {})

    # What goes wrong

    @pytest.mark.parametrize("good", [0, 1, 2], ids=["at once", "in the middle", "at the end"])
    @pytest.mark.parametrize("error", [OSError, ValueError, Stopped])
    def test_a_sample_that_fails_leaves_nothing(
        self, make_target: MakeTarget, good: int, error: type[BaseException]
    ) -> None:
        """Its error is raised as it was, a sample of that name can be stored afterwards, and others are not touched."""
        with opened(make_target()) as target:
            target.put("before", parts_of(content_of("before")))
            for name in ("x", "d/y"):
                with pytest.raises(error, match="in the middle"):
                    target.put(name, Torn(parts_of(content_of(name)), good, _raising(error)))
            assert target.put("d/y", parts_of(content_of("d/y", 1)))
        check_stored(self.read(make_target()), {"before": content_of("before"), "d/y": content_of("d/y", 1)})

    def test_a_sample_that_fails_leaves_that_of_an_earlier_run_whole(self, make_target: MakeTarget) -> None:
        """It is replaced by a whole one or by none."""
        with opened(make_target()) as target:
            target.put("x", parts_of(content_of("x")))
        with opened(make_target()) as target:
            with pytest.raises(OSError, match="in the middle"):
                target.put("x", Torn(parts_of(content_of("x", 1)), 2, _raising(OSError)))
        check_stored(self.read(make_target()), {"x": content_of("x")})

    # Several at once

    def test_threads_store_at_once(self, make_target: MakeTarget) -> None:
        """Each with names of its own, in one folder."""
        begin = threading.Barrier(4)
        errors: list[BaseException] = []

        def store(number: int) -> None:
            begin.wait()
            try:
                for name in range(number, 80, 4):
                    assert target.put(f"f/{name}", parts_of(content_of(f"f/{name}")))
            except BaseException as error:
                errors.append(error)

        with opened(make_target()) as target:
            threads = [threading.Thread(target=store, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert errors == []
        check_stored(self.read(make_target()), {f"f/{name}": content_of(f"f/{name}") for name in range(80)})

    def test_two_are_open_on_one_place_at_once(self, make_target: MakeTarget) -> None:
        """What the first one stores is there, and the second one goes on once it is closed."""
        with opened(make_target()) as second:
            with opened(make_target()) as first:
                assert first.put("f/first", parts_of(content_of("f/first")))
                assert second.put("f/second", parts_of(content_of("f/second")))
            assert second.put("f/third", parts_of(content_of("f/third")))
        names = "f/first", "f/second", "f/third"
        check_stored(self.read(make_target()), {name: content_of(name) for name in names})

    def test_ranks_of_a_run_do_not_replace_each_others_samples(self, make_target: MakeTarget) -> None:
        """The second one to store a name is told that it is taken; a rank's own sample is replaced if it is told to."""
        if not self.takes_run:
            pytest.skip("it is not told which of several ranks it is")
        first, second = (make_target(run=Run(id="one", rank=rank, world_size=2)) for rank in range(2))
        with opened(first), opened(second):
            mine, yours = lane_of(first, 0), lane_of(second, 0)
            assert put_one(mine, "first")
            assert put_one(yours, "second")
            assert put_one(yours, "d/both")
            with pytest.raises(NameTakenError):
                put_one(mine, "d/both", 1)
            assert put_one(mine, "first", 1, redelivered=True)
        expected = {"first": content_of("first", 1), "second": content_of("second"), "d/both": content_of("d/both")}
        check_stored(self.read(make_target()), expected)

    # Paths

    def test_what_is_written_to_a_path_is_a_sample(self, make_target: MakeTarget) -> None:
        """Its folders are made."""
        if not features_of(make_target()).has_paths:
            pytest.skip("its samples are no files")
        with opened(make_target()) as target:
            assert isinstance(target, PathTarget)
            target.path("d/e/x").write_bytes(b"written")
        check_stored(self.read(make_target()), {"d/e/x": b"written"})


class TargetContract(StoringSuite, LanesSuite, ProcessesSuite, WriterSuite):
    """The suite. A subclass has the fixture `make_target`: a function ``(**options) -> Target``.

    All targets that it makes during a test store in one place, in which there is nothing at first.

    ```python
    class TestMyTarget(TargetContract):
        @pytest.fixture
        def make_target(self, tmp_path):
            return lambda **options: MyTarget(tmp_path / "store", **options)
    ```

    Where the target's location is no directory with a file for each sample, the subclass also has a method `read`.

    Attributes:
        takes_run: Whether `make_target` takes an option `run`, a `Run`: which of several ranks stores.
        across_processes: Whether copies of the target in other processes store in the same place. A target that
            keeps samples in its own process's memory has False here.
        refused_names: Names that its `check` is to refuse.
    """


def _takes(target: Target, name: str) -> bool:
    try:
        target.check([name])
    except InvalidNameError:
        return False
    return True


def _raising(error: type[BaseException]) -> Callable[[], None]:
    def happens() -> None:
        raise error("in the middle")

    return happens
