"""What every target's lanes must do."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from lighter_async.targets import Item, Lane, Outcome, Part, is_each_by_itself, lane_of
from lighter_async.testing.base import MakeTarget, TargetSuite, check_stored, opened, put_all, put_one, settle_all
from lighter_async.testing.faulty import Fault, FaultyTarget, Moment
from lighter_async.testing.storing import Torn, content_of, item_of

__all__ = ["LanesSuite"]


class TakenBack(BaseException):
    """Raised in the thread of a worker that nobody waits for any more."""


def _contents(*names: str, version: int = 0) -> dict[str, bytes]:
    return {name: content_of(name, version) for name in names}


class LanesSuite(TargetSuite):
    """Of `Lane`: what a worker does with one. A target without lanes gets plain ones."""

    def test_a_lane_stores_many_samples(self, make_target: MakeTarget) -> None:
        """In several units, and it tells when it is to be settled."""
        contents = _contents(*(f"{number % 3}/{number}" for number in range(150)))
        names = list(contents)
        with opened(make_target()) as target:
            lane = lane_of(target, 0)
            for start in range(0, 150, 50):
                unit = {name: contents[name] for name in names[start : start + 50]}
                assert put_all(lane, unit) == dict.fromkeys(unit, True)
            assert put_all(lane, {}) == {}
        check_stored(self.read(make_target()), contents)

    def test_parts_may_change_once_they_were_put(self, make_target: MakeTarget) -> None:
        """The memory that they lie in is the next sample's, before the lane is settled."""
        memory = bytearray(1000)
        with opened(make_target()) as target:
            lane = lane_of(target, 0)
            waiting = 0
            for number in range(5):
                memory[:] = bytes([number]) * 1000
                waiting += lane.put(item_of(f"{number}", [memoryview(memory)]), redelivered=False) is None
            memory[:] = b"x" * 1000
            assert settle_all(lane) == [True] * waiting
        check_stored(self.read(make_target()), {f"{number}": bytes([number]) * 1000 for number in range(5)})

    def test_outcomes_are_in_the_order_of_samples(self, make_target: MakeTarget) -> None:
        """Also where one of them is not stored, since an earlier run has stored it."""
        with opened(make_target()) as target:
            target.put("b", [memoryview(content_of("b"))])
        with opened(make_target()) as target:
            outcomes = put_all(lane_of(target, 0), _contents("a", "b", "c", version=1))
        assert (outcomes["a"], outcomes["c"]) == (True, True)
        stored = outcomes["b"] is True
        assert stored or outcomes["b"] is False or isinstance(outcomes["b"], FileExistsError)
        expected = {**_contents("a", "b", "c", version=1), "b": content_of("b", int(stored))}
        check_stored(self.read(make_target()), expected)

    def test_a_sample_that_fails_costs_the_others_of_its_unit_nothing(self, make_target: MakeTarget) -> None:
        """Those that the lane was given before, and those that come after it."""

        def happens() -> None:
            raise OSError(errno.EIO, "as if from a device")

        with opened(make_target()) as target:
            lane = lane_of(target, 0)
            waiting = [_put(lane, name, data) for name, data in _contents("a").items()]
            with pytest.raises(OSError, match="as if from a device"):
                lane.put(item_of("b", Torn([memoryview(b"half"), memoryview(b"whole")], 1, happens)), redelivered=False)
            waiting += [_put(lane, name, data) for name, data in _contents("c").items()]
            assert settle_all(lane) == [True for stored in waiting if stored is None]
        check_stored(self.read(make_target()), _contents("a", "c"))

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_what_on_progress_raises_ends_the_settling(self, make_target: MakeTarget, place: int) -> None:
        """Each sample is there whole or not at all, and can be stored again, by the same lane."""
        contents = _contents("a", "d/b", "d/c")

        def on_progress(position: int) -> None:
            if position == place:
                raise TakenBack

        with opened(make_target()) as target:
            lane = lane_of(target, 0)
            waiting = [_put(lane, name, data) for name, data in contents.items()]
            if None in waiting:
                with pytest.raises(TakenBack):
                    lane.settle(on_progress)
        stored = self.read(make_target())
        check_stored(stored, {name: contents.get(name, b"") for name in stored})
        with opened(target := make_target()):
            lane = lane_of(target, 0)
            missing = {name: data for name, data in contents.items() if name not in stored}
            assert put_all(lane, missing) == dict.fromkeys(missing, True)
        check_stored(self.read(make_target()), contents)

    def test_what_a_lane_leaves_is_not_stored(self, make_target: MakeTarget) -> None:
        """But for what it has told of as stored; and it takes samples again."""
        contents = _contents("a", "d/b", "d/c")
        with opened(make_target()) as target:
            lane = lane_of(target, 0)
            stored = [_put(lane, name, data) for name, data in contents.items()]
            lane.leave()
            assert lane.settle(lambda _: None) == []
            assert put_one(lane, "later")
            lane.leave()
        kept = {name: data for (name, data), one in zip(contents.items(), stored, strict=True) if one}
        check_stored(self.read(make_target()), {**kept, **_contents("later")})

    @pytest.mark.parametrize("lanes", [1, 2], ids=["the same lane", "another lane"])
    def test_a_sample_that_comes_again_replaces_the_first_one(self, make_target: MakeTarget, lanes: int) -> None:
        """It is there once, as the last attempt stored it; one that is told to come again for the first time, too."""
        with opened(make_target()) as target:
            first, last = lane_of(target, 0), lane_of(target, lanes - 1)
            assert put_all(first, _contents("a", "d/b")) == {"a": True, "d/b": True}
            again = _contents("d/b", "c", "a", version=1)
            assert put_all(last, again, redelivered=True) == dict.fromkeys(again, True)
        check_stored(self.read(make_target()), again)

    def test_lanes_are_used_at_once(self, make_target: MakeTarget) -> None:
        """Each by a thread of its own, with folders in common."""
        begin = threading.Barrier(4)
        outcomes: dict[str, bool] = {}

        def store(number: int) -> None:
            lane = lane_of(target, number)
            begin.wait()
            for start in range(number, 120, 40):
                outcomes.update(put_all(lane, _contents(*(f"{one % 2}/{one}" for one in range(start, start + 40, 4)))))

        with opened(make_target()) as target:
            threads = [threading.Thread(target=store, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        names = [f"{one % 2}/{one}" for one in range(120)]
        assert outcomes == dict.fromkeys(names, True)
        check_stored(self.read(make_target()), _contents(*names))

    def test_the_parts_of_a_sample_are_stored_together(self, make_target: MakeTarget) -> None:
        """All of them, or, where one cannot be had, none."""

        def happens() -> None:
            raise OSError(errno.EIO, "as if from a device")

        whole = _item("a", _contents("a.mask", "a.logits"))
        torn = Part("d/b.logits", ".logits", Torn([memoryview(b"half"), memoryview(b"whole")], 1, happens))
        with opened(make_target()) as target:
            lane = lane_of(target, 0)
            outcomes: list[Outcome | BaseException | None] = [lane.put(whole, redelivered=False)]
            with pytest.raises(OSError, match="as if from a device"):
                lane.put(Item("d/b", [*_item("d/b", _contents("d/b.mask")).parts, torn]), redelivered=False)
            outcomes += lane.settle(lambda _: None)
            assert [one is not False for one in outcomes if one is not None] == [True]
        stored = self.read(make_target())
        if not is_each_by_itself(lane):
            check_stored(stored, _contents("a.mask", "a.logits"))

    def test_sealing_takes_nothing_away(self, make_target: MakeTarget) -> None:
        """Samples are there before and after it, and more can be stored; there may be nothing to seal."""
        with opened(make_target()) as target:
            lane = lane_of(target, 0)
            lane.recover(lambda objects: {})
            lane.seal()
            assert put_all(lane, _contents("a", "d/b")) == {"a": True, "d/b": True}
            sealed = list(lane.seal())
            assert put_all(lane, _contents("c")) == {"c": True}
            later = list(lane.seal())
            assert not set(sealed) & set(later), "an object is sealed once"
            assert list(lane.seal()) == []
            lane.close()
        check_stored(self.read(make_target()), _contents("a", "d/b", "c"))

    @pytest.mark.parametrize("when", ["before", "during", "after"])
    def test_a_sample_that_failed_as_on_a_full_disk_is_stored_by_its_next_attempt(
        self,
        make_target: MakeTarget,
        tmp_path_factory: pytest.TempPathFactory,
        when: Moment,
    ) -> None:
        """Once, also where the first attempt has stored it; without one, it is there only in that case."""
        faults = {"b": Fault(error=_no_space, when=when), "d/c": Fault(error=_no_space, when=when)}
        with opened(FaultyTarget(make_target(), faults, counts=tmp_path_factory.mktemp("counts"))) as target:
            lane = lane_of(target, 0)
            outcomes = put_all(lane, _contents("a", "b", "d/c", "e"))
            assert (outcomes["a"], outcomes["e"]) == (True, True)
            assert [outcomes[name].errno for name in faults] == [errno.ENOSPC] * 2
            assert put_all(lane, _contents("b", version=1), redelivered=True) == {"b": True}
        expected = {**_contents("a", "d/c", "e"), "b": content_of("b", 1)}
        if when != "after":
            del expected["d/c"]
        check_stored(self.read(make_target()), expected)


def _item(name: str, parts: dict[str, bytes]) -> Item:
    return Item(name, [Part(file, file.removeprefix(name), [memoryview(data)]) for file, data in parts.items()])


def _put(lane: Lane, name: str, data: bytes) -> Outcome | None:
    return lane.put(item_of(name, [memoryview(data)]), redelivered=False)


def _no_space() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
