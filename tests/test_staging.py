"""The one copy of a batch into reused host memory."""

import errno
import gc
import io
import mmap
import os
import resource
import sys
import threading
import weakref
from collections import OrderedDict, UserList, namedtuple
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from harness import shared_memory, until
from hypothesis import given, settings
from hypothesis import strategies as st

from lighter_async import BackgroundWriter, open_results
from lighter_async.staging import SharedMemory, StagingPool, plan_batch, plan_sample
from lighter_async.staging.ahead import touch
from lighter_async.staging.kinds import is_tensor
from lighter_async.staging.private_memory import PrivateMemory
from lighter_async.staging.slots import SlotPool, size_class

MEGA = 1 << 20
Pair = namedtuple("Pair", ["image", "label"])


class Tagged(torch.Tensor):
    """A user's subclass."""


@pytest.fixture
def pool():
    return StagingPool(16 * MEGA)


def saved_size(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.tell()


# What a batch is


def test_a_row_of_a_tensor_is_a_sample(pool):
    """Read back from the slot with dtype and shape, each on a storage of its own bytes."""
    batch = torch.arange(24, dtype=torch.int16).view(4, 3, 2)
    staged = pool.stage(plan_batch(batch))
    for index in range(4):
        value = staged.value(index)
        assert torch.equal(value, batch[index])
        assert value.dtype is torch.int16
        assert value.untyped_storage().nbytes() == 12
    pool.release(staged)


def test_a_one_dimensional_batch_has_scalars_for_samples(pool):
    """Scores, one per sample, as tensors and as arrays."""
    for batch in (torch.tensor([1.5, 2.5]), np.array([1.5, 2.5], np.float32)):
        staged = pool.stage(plan_batch(batch))
        values = [staged.value(index) for index in range(2)]
        assert [value.shape for value in values] == [(), ()]
        assert [value.item() for value in values] == [1.5, 2.5]
        pool.release(staged)


def test_samples_of_a_list_may_differ_in_shape_and_kind(pool):
    """All tensors lie in the one slot of their batch."""
    values = [torch.rand(3, 4), torch.rand(2), torch.tensor(7), np.arange(5), "text", None, torch.rand(0, 2)]
    plan = plan_batch(values)
    staged = pool.stage(plan)
    assert plan.count == 7
    assert pool.total_bytes == 4096 + len("text")
    for index in range(3):
        assert torch.equal(staged.value(index), values[index])
    assert staged.value(3).tolist() == [0, 1, 2, 3, 4]
    assert [staged.value(4), staged.value(5)] == ["text", None]
    assert staged.value(6).shape == (0, 2)
    pool.release(staged)


@pytest.mark.parametrize(
    "batch", [torch.empty(2, 0, 3), torch.empty(2, 3, 0, dtype=torch.bool), np.empty((2, 0)), np.empty((2, 3), "S0")]
)
def test_samples_without_elements_need_no_slot(pool, batch):
    """They have their shape and dtype all the same, alone and beside others that do need one."""
    staged = pool.stage(plan_batch(batch))
    assert staged.slot is None or batch.nbytes
    for value in (staged.value(1), staged.own_value(1)):
        assert (value.shape, value.dtype) == (batch.shape[1:], batch.dtype)
    pool.release(staged)
    staged = pool.stage(plan_batch([torch.rand(3), batch, torch.rand(3)]))
    assert (staged.value(1).shape, staged.value(1).dtype) == (batch.shape, batch.dtype)
    pool.release(staged)


@pytest.mark.parametrize("batch", [torch.empty(0, 3), np.empty((0, 3)), [], ()], ids=["tensor", "array", "list", "()"])
def test_a_batch_may_be_empty(batch):
    """It has no samples."""
    assert plan_batch(batch).count == 0


@pytest.mark.parametrize(
    "batch",
    ["text", b"bytes", bytearray(b"x"), 3, None, {1: 2}, iter([1]), {1, 2}],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_samples_is_no_batch(batch):
    """The error names the type and the way out."""
    with pytest.raises(TypeError, match=rf"not {type(batch).__name__}; use submit\(\) for one sample, or list"):
        plan_batch(batch)


@pytest.mark.parametrize("batch", [torch.tensor(1), np.array(1)], ids=["tensor", "array"])
def test_a_scalar_has_no_batch_dimension(batch):
    """It is one sample."""
    with pytest.raises(ValueError, match=r"a batch needs a batch dimension.*use submit\(\)"):
        plan_batch(batch)


def test_a_tensor_without_data_is_refused():
    """A meta tensor, alone, as a batch, or deep inside a value."""
    meta = torch.empty(2, 3, device="meta")
    for plan, value in ((plan_sample, meta), (plan_batch, meta), (plan_sample, {"a": [meta]})):
        with pytest.raises(ValueError, match="on the meta device and has no data to write"):
            plan(value)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_a_batch_that_cannot_be_taken_apart_is_refused_with_the_way_out():
    """Some kinds of tensor have no rows to be had."""
    dense = torch.rand(2, 3)
    quantised = torch.quantize_per_channel(dense, torch.ones(3), torch.zeros(3), 1, torch.qint8)
    for batch in (dense.to_mkldnn(), quantised):
        with pytest.raises(ValueError, match=r"cannot be taken apart into samples.*hand over a list of samples"):
            plan_batch(batch)


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
@pytest.mark.parametrize("sparse", [torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr, torch.Tensor.to_sparse_csc])
def test_a_sparse_batch_has_sparse_samples(pool, sparse):
    """One per row; a compressed matrix falls into rows of coordinates."""
    batch = torch.eye(3)
    staged = pool.stage(plan_batch(sparse(batch)))
    for index in range(3):
        assert staged.value(index).layout is torch.sparse_coo
        assert torch.equal(staged.value(index).to_dense(), batch[index])
    pool.release(staged)


def test_any_sequence_is_a_batch(pool):
    """Also a user's own kind."""
    staged = pool.stage(plan_batch(UserList([torch.ones(2), torch.zeros(2)])))
    assert staged.value(0).tolist() == [1, 1]
    pool.release(staged)


# Values with tensors inside


def nested_value():
    return {
        "pair": Pair(torch.rand(3, 4), np.arange(3)),
        "list": [torch.rand(2), ("text", torch.tensor(5))],
        "ordered": OrderedDict(a=torch.rand(1), b=None),
        7: 1.5,
    }


def same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        return all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        return all(same(*items) for items in zip(one, other, strict=True))
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


@pytest.mark.parametrize("read", ["value", "own_value"])
def test_containers_come_back_as_they_were(pool, read):
    """Dicts, lists, tuples and named tuples, to any depth; their tensors lie in the slot."""
    value = nested_value()
    plan = plan_sample(value)
    assert len(plan.sources) == 5
    staged = pool.stage(plan)
    assert same(getattr(staged, read)(0), value)
    pool.release(staged)


def test_the_caller_may_overwrite_everything_afterwards(pool):
    """Tensors, arrays, lists, dicts and byte arrays are all the callers' again; nothing of the sample changes."""
    tensor, array, row, data = torch.ones(2, 3), np.ones((2, 3)), torch.ones(2), bytearray(b"abc")
    coo = torch.eye(2).to_sparse()
    value = {"a": [tensor, array], "b": (row, data), "c": coo, "d": np.array(["x", None], object)}
    staged = pool.stage(plan_sample(value))
    tensor.zero_()
    array[:] = 0
    row.zero_()
    data[:] = b"xyz"
    coo._values().zero_()
    value["a"].clear()
    value["d"][0] = "changed"
    value["e"] = 1
    read = staged.value(0)
    assert list(read) == ["a", "b", "c", "d"]
    assert read["a"][0].sum() == 6
    assert read["a"][1].sum() == 6
    assert read["b"][0].sum() == 2
    assert read["b"][1] == b"abc"
    assert read["c"].to_dense().sum() == 2
    assert read["d"].tolist() == ["x", None]
    pool.release(staged)


def test_other_objects_are_copied_by_their_pickle(pool):
    """What they hold may change at once."""

    @dataclass
    class Prediction:
        scores: list

    prediction = Prediction([0.5])
    staged = pool.stage(plan_batch([prediction, "text"]))
    prediction.scores.append(1.5)
    for read in (staged.value(0), staged.own_value(0)):
        assert type(read) is Prediction
        assert read.scores == [0.5]
    assert staged.value(1) == "text"
    pool.release(staged)


def test_texts_count_against_the_budget(pool):
    """So a queue of long texts is bounded as well; keys and values of containers count beside what they hold."""
    assert pool.bytes_of(plan_batch(["x" * 1000, b"y" * 500, bytearray(300)])) == 1800
    assert pool.bytes_of(plan_sample({"a": "x" * 1000, "b": torch.zeros(10)})) == 4096 + 1000 + 4 * 64 + 256


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_that_are_no_plain_memory_count_what_they_hold():
    """Values and indices of sparse ones, the buffer of nested ones."""
    dense = torch.eye(8)
    sizes = {
        dense.to_sparse(): 8 * 4 + 2 * 8 * 8,
        dense.to_sparse_csr(): 8 * 4 + 9 * 8 + 8 * 8,
        dense.to_sparse_csc(): 8 * 4 + 9 * 8 + 8 * 8,
        dense.to_sparse_bsr((2, 2)): 4 * 16 + 5 * 8 + 4 * 8,
        dense.to_sparse_bsc((2, 2)): 4 * 16 + 5 * 8 + 4 * 8,
        torch.quantize_per_tensor(dense, 0.1, 0, torch.quint8): 64,
        dense.as_subclass(Tagged): 256,
        torch.nested.nested_tensor([torch.zeros(2, 3), torch.zeros(4, 3)]): 72,
        torch.nested.nested_tensor([torch.zeros(2, 3), torch.zeros(4, 3)], layout=torch.jagged): 72,
        dense.to_mkldnn(): 256,
    }
    assert [plan_sample(tensor).other_bytes for tensor in sizes] == list(sizes.values())
    assert all(plan_sample(tensor).nbytes == 0 for tensor in sizes)


# Arrays


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=">f4").reshape(4, 3),
        np.arange(24.0).reshape(4, 6)[:, ::-2],
        np.asfortranarray(np.arange(12).reshape(4, 3)),
        np.zeros((4, 2), [("a", "f4"), ("b", "i2", 3)]),
        np.array(["abc", "d", "", "ef"]),
        np.array(["2020-01-01", "NaT", "1970-01-01", "2038-01-19"], "M8[D]"),
        np.broadcast_to(np.float16(1.5), (4, 3)),
    ],
    ids=lambda array: array.dtype.str,
)
def test_arrays_keep_their_dtype_and_are_read_only(pool, array):
    """Byte order, structure and strides cost nothing; an encoder cannot change what others may read."""
    staged = pool.stage(plan_batch(array))
    for index in range(4):
        value = staged.value(index)
        assert value.dtype == array.dtype
        assert value.tobytes() == array[index : index + 1].tobytes()
        assert not value.flags.writeable
        own = staged.own_value(index)
        assert own.flags.writeable
        assert own.flags.owndata
    pool.release(staged)


def test_arrays_of_objects_and_subclasses_are_copied_as_what_they_are(pool):
    """They have no plain memory to lie in."""
    masked = np.ma.masked_array([1.0, 2.0], [True, False])
    objects = np.array([{"a": 1}, None], object)
    staged = pool.stage(plan_batch([masked, objects]))
    assert isinstance(staged.value(0), np.ma.MaskedArray)
    assert staged.value(0).mask.tolist() == [True, False]
    assert staged.value(1).tolist() == [{"a": 1}, None]
    assert staged.value(1) is not objects
    pool.release(staged)


# Copies of one's own


def test_an_own_value_is_a_copy_that_may_be_kept(pool):
    """It outlives the slot, may be changed, and saving it saves only it: path functions do all three."""
    batch = torch.rand(8, 1000)
    expected = batch.clone()
    staged = pool.stage(plan_batch(batch))
    kept = staged.own_value(3)
    assert saved_size(kept) < 8000
    kept_alone = pool.stage(plan_sample({"a": torch.ones(1000)}))
    inner = kept_alone.own_value(0)["a"]
    for one in (staged, kept_alone):
        one.slot.memory[:] = 0
        pool.release(one)
    assert torch.equal(kept, expected[3])
    assert inner.sum() == 1000
    kept += 1
    assert torch.equal(kept, expected[3] + 1)


def test_a_path_function_gets_a_value_of_its_own(tmp_path):
    """It may keep what it gets beyond the call, while the slot serves the next batches."""
    kept = {}
    with BackgroundWriter(lambda path, value: kept.__setitem__(path.name, value), tmp_path) as writer:
        for number in range(20):
            writer.submit_batch([f"{number}a", f"{number}b"], torch.full((2, 1000), float(number)))
    assert len(kept) == 40
    for name, value in kept.items():
        assert torch.equal(value, torch.full((1000,), float(name[:-1])))
        assert saved_size(value) < 8000


@pytest.mark.parametrize("grad", [True, False])
def test_staging_works_under_any_mode(pool, grad):
    """Under inference_mode and with gradients; the slot can be used outside and inside again."""
    for _ in range(2):
        with torch.inference_mode(not grad):
            batch = torch.rand(2, 3, requires_grad=grad) * 2
            staged = pool.stage(plan_batch(batch))
        value = staged.own_value(0)
        assert torch.equal(value, batch[0])
        assert not value.requires_grad
        assert not value.is_inference()
        pool.release(staged)


def test_a_default_device_is_not_asked(pool):
    """A program that sets another default device still gets its samples in host memory."""
    batch = torch.rand(2, 3)
    with torch.device("meta"):
        staged = pool.stage(plan_batch(batch))
        assert torch.equal(staged.value(1), batch[1])
        empty = pool.stage(plan_sample(batch[:0]))
        assert empty.value(0).device.type == "cpu"
        pool.release(empty)
        pool.release(staged)


@settings(max_examples=80, deadline=None, database=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([torch.uint8, torch.bool, torch.float16, torch.float64, torch.complex128]),
            st.lists(st.integers(0, 4), max_size=3),
            st.booleans(),
        ),
        max_size=6,
    )
)
def test_samples_of_any_shape_and_dtype_lie_side_by_side(kinds):
    """Whatever stands before it in the slot, each is read back exactly."""
    pool = StagingPool(MEGA)
    values = []
    for dtype, shape, as_array in kinds:
        value = (torch.rand(shape) * 9).to(dtype)
        values.append(value.numpy() if as_array else value)
    staged = pool.stage(plan_batch(values))
    for index, value in enumerate(values):
        for read in (staged.value(index), staged.own_value(index)):
            assert same(read, value)
            assert read.dtype == value.dtype
    pool.release(staged)


# Slots


@given(st.integers(0, 1 << 34), st.integers(1, 1 << 34))
@settings(max_examples=300, deadline=None, database=None)
def test_a_size_class_is_at_most_an_eighth_larger(nbytes, budget):
    """In whole pages, except that a batch that fits the budget has a slot that fits it."""
    size = size_class(nbytes, budget)
    assert nbytes <= size <= max(nbytes + 4095, nbytes * 9 // 8 + 1)
    assert size % 4096 == 0 or size == budget
    assert size <= budget or nbytes > budget
    assert size_class(size, budget) == size


def test_there_are_few_size_classes():
    """Batches of almost one size share a slot."""
    assert size_class(0, MEGA) == 0
    assert {size_class(nbytes, MEGA) for nbytes in range(1, 4097)} == {4096}
    assert len({size_class(nbytes, 1 << 40) for nbytes in range(MEGA, 2 * MEGA, 999)}) == 9


def test_a_slot_is_used_again(pool):
    """Batches of one size that follow each other cost one slot; ones that overlap cost one each."""
    plan = plan_batch(torch.rand(4, 1000))
    first = pool.stage(plan)
    second = pool.stage(plan)
    assert first.slot is not second.slot
    pool.release(first)
    third = pool.stage(plan)
    assert third.slot is first.slot
    pool.release(second)
    pool.release(third)
    assert pool.total_bytes == 2 * size_class(16000, 16 * MEGA)
    pool.close()
    assert pool.total_bytes == 0


def test_an_oversized_slot_goes_with_its_batch():
    """It is not kept: the budget is what stays."""
    pool = StagingPool(MEGA)
    small = pool.stage(plan_batch(torch.zeros(4, 1000)))
    pool.release(small)
    large = pool.stage(plan_batch(torch.zeros(3, MEGA)))
    assert pool.total_bytes == size_class(12 * MEGA, MEGA)
    memory = weakref.ref(large.slot.memory)
    pool.release(large)
    del large
    gc.collect()
    assert memory() is None
    assert pool.total_bytes == 0


def test_mixed_sizes_stay_within_the_budget():
    """Free slots of other classes give way to what is asked for."""
    pool = StagingPool(MEGA)
    generator = np.random.default_rng(0)
    used = []
    for nbytes in generator.integers(1, MEGA // 3, 500):
        plan = plan_batch(np.zeros((1, nbytes), np.uint8))
        while used and sum(len(one.slot.memory) for one in used) + pool.bytes_of(plan) > MEGA:
            pool.release(used.pop(0))
        used.append(pool.stage(plan))
        assert pool.total_bytes <= MEGA
    for one in used:
        pool.release(one)
    assert 0 < pool.total_bytes <= MEGA


def test_the_class_asked_for_is_kept_where_others_can_give_way():
    """A slot of the right size is handed out rather than dropped."""
    slots = SlotPool(3 * 4096, PrivateMemory(None))
    one = slots.acquire(4096, pinned=False)
    slots.release(one)
    two = slots.acquire(8192, pinned=False)
    slots.release(two)
    assert slots.acquire(4096, pinned=False) is one
    assert slots.total == 3 * 4096
    slots.acquire(8192, pinned=False)
    slots.acquire(4096, pinned=False)
    assert slots.total == 4 * 4096  # all in use: the ledger's affair, not the pool's


def test_a_slot_that_cannot_be_had_costs_nothing():
    """The books are right after a MemoryError."""

    def fail(size):
        raise MemoryError("no pinned memory")

    slots = SlotPool(MEGA, PrivateMemory(fail))
    with pytest.raises(MemoryError, match="no pinned memory"):
        slots.acquire(4096, pinned=True)
    assert slots.total == 0
    slots.release(slots.acquire(4096, pinned=False))
    with pytest.raises(MemoryError):
        slots.acquire(4096, pinned=True)  # pinned and plain slots are not exchanged


@pytest.fixture(params=["private", "shared"])
def memory(request):
    """Of 8 MB."""
    if request.param == "private":
        yield PrivateMemory(None)
        return
    shared = SharedMemory(8 * MEGA, pin=None)
    shared.open()
    yield shared
    shared.close()


def prepared(slots, total):
    until(lambda: slots.total == total)
    slots._ahead._asked.append(None)  # nothing more
    slots._ahead._more.release()
    slots._ahead._thread.join()


def test_a_slot_more_than_there_are_in_use_is_touched_before_it_is_needed(memory):
    """Pages that nobody has touched take the loop longer than the copy, in each batch while workers lag behind."""
    slots = SlotPool(8 * MEGA, memory)
    slots.work_ahead(2 * MEGA)
    first = slots.acquire(MEGA, pinned=False)
    first.memory[:] = 7
    prepared(slots, 2 * MEGA)
    faults = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    second = slots.acquire(MEGA, pinned=False)
    second.memory[:] = 8
    assert resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - faults < 64  # of 256 pages
    assert set(first.memory.tolist()) == {7}
    slots.close()


def test_what_is_touched_ahead_stays_within_the_budget():
    """Nothing is prepared that would take the room of a batch."""
    slots = SlotPool(2 * MEGA, PrivateMemory(None))
    slots.work_ahead(8 * MEGA)
    taken = [slots.acquire(MEGA, pinned=False), slots.acquire(MEGA, pinned=False)]
    slots.close()
    assert slots.total <= 2 * MEGA
    assert len({id(slot) for slot in taken}) == 2


def test_the_first_slots_lie_in_memory_that_was_touched_when_the_workers_started(memory):
    """Whatever their sizes are; no two of them share a byte, and each may be let go of by itself."""
    first = memory.first(MEGA)
    first[:] = 1
    slots = [memory.allocate(size, pinned=False) for size in (MEGA // 2, MEGA // 4, 2 * MEGA, MEGA // 4)]
    assert [int(slot.memory[-1]) for slot in slots[:2]] == [1, 1]
    for number, slot in enumerate(slots, 2):
        slot.memory[:] = number
    assert [set(slot.memory[::4096].tolist()) for slot in slots] == [{2}, {3}, {4}, {5}]
    memory.free(slots.pop(0))
    assert [set(slot.memory[::4096].tolist()) for slot in slots] == [{3}, {4}, {5}]


def test_memory_touched_at_the_start_counts_until_a_slot_lies_in_it_and_gives_way_to_whatever_needs_room(memory):
    """Otherwise samples that need no slot, such as dicts of numbers, would be queued beside it."""
    slots = SlotPool(8 * MEGA, memory)
    before = shared_memory()
    slots.work_ahead(4 * MEGA)
    assert slots.total == 4 * MEGA
    slots.acquire(MEGA // 8, pinned=False)
    assert slots.total == 4 * MEGA
    until(lambda: shared_memory() >= before + 4 * MEGA)
    slots.hold(6 * MEGA)
    assert slots.total == 6 * MEGA + MEGA // 8
    assert shared_memory() <= before + MEGA // 8
    slots.let_go(6 * MEGA)
    slots.acquire(MEGA // 8, pinned=False).memory[:] = 1
    assert slots.total == 2 * MEGA // 8
    slots.close()


def test_memory_touched_at_the_start_goes_back_when_the_writer_is_closed(memory):
    """A program may keep writers that are closed, such as the callbacks of many runs."""
    slots = SlotPool(8 * MEGA, memory)
    before = shared_memory()
    slots.work_ahead(4 * MEGA)
    slots.release(slots.acquire(MEGA // 8, pinned=False))
    until(lambda: shared_memory() >= before + 4 * MEGA)
    slots.close()
    assert (slots.total, shared_memory()) == (0, before)


def test_a_writer_starts_where_the_first_memory_is_refused(tmp_path, monkeypatch):
    """It only saves time; a limit of addresses (`ulimit -v`) may leave room for small slots alone."""
    mapped = []

    def refuse(descriptor, size):
        mapped.append(size)
        if size >= MEGA:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return mmap.mmap(descriptor, size)

    monkeypatch.setattr("lighter_async.staging.private_memory.mmap", SimpleNamespace(mmap=refuse))
    with BackgroundWriter("tensor", tmp_path, backend="thread") as writer:
        writer.submit("a", torch.ones(3))
    assert [size >= MEGA for size in mapped] == [True, False]
    assert open_results(tmp_path)["a"].tolist() == [1, 1, 1]


def test_free_slots_give_way_to_what_is_in_no_slot(pool):
    """Texts, containers and clones are kept beside slots, within one budget."""
    slot = pool.stage(plan_batch(torch.rand(1, 3 * MEGA)))
    total = pool.total_bytes
    pool.release(slot)
    assert pool.total_bytes == total
    plan = plan_batch(["x" * (9 * MEGA)])
    text = pool.stage(plan)
    assert pool.total_bytes == pool.bytes_of(plan) >= 9 * MEGA
    pool.release(text)
    assert pool.total_bytes == 0


def test_what_is_in_no_slot_is_not_counted_where_it_could_not_be_copied(pool):
    """And the next batch has the room."""

    class Broken(torch.Tensor):
        def clone(self):
            raise RuntimeError("no clone")

    plan = plan_batch([torch.rand(1000).as_subclass(Broken)])
    assert plan.other_bytes
    with pytest.raises(RuntimeError, match="no clone"):
        pool.stage(plan)
    assert pool.total_bytes == 0


def test_touching_changes_nothing():
    """It may come while a batch is copied there."""
    memory = PrivateMemory(None).allocate(3 * MEGA, pinned=False).memory
    memory[::4096] = 9
    touch(memory)
    assert memory[::4096].tolist() == [9] * 768
    assert int(memory.sum()) == 9 * 768


def test_memory_that_is_not_there_ahead_is_told_only_to_who_needs_it():
    """A thread that prepares slots has nobody to tell it to."""

    class Full(PrivateMemory):
        def allocate(self, size, *, pinned):
            if threading.current_thread() is not threading.main_thread():
                raise MemoryError("no more")
            return super().allocate(size, pinned=pinned)

    slots = SlotPool(8 * MEGA, Full(None))
    slots.work_ahead(MEGA)
    slots.acquire(MEGA, pinned=False)
    prepared(slots, MEGA)
    assert slots.total == MEGA
    slots.close()


def test_a_failed_copy_gives_its_slot_back(pool):
    """And the next batch has it."""
    plan = plan_batch(torch.rand(2, 1000))
    broken = plan_batch(torch.rand(2, 1000))
    leaf, _ = broken.sources[0]
    broken.sources[0] = (leaf, torch.rand(3, 7))
    with pytest.raises(RuntimeError, match="size"):
        pool.stage(broken)
    total = pool.total_bytes
    staged = pool.stage(plan)
    assert pool.total_bytes == total
    pool.release(staged)


def test_slots_are_handed_out_once_to_concurrent_threads(pool):
    """No two batches ever share one."""
    mixed = []

    def run(number):
        for round_ in range(100):
            expected = float(number * 1000 + round_)
            staged = pool.stage(plan_batch(torch.full((2, 500), expected)))
            if not (staged.value(0) == expected).all():
                mixed.append((number, round_))
            pool.release(staged)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mixed == []
    assert pool.total_bytes <= 4 * 4096


def test_nothing_is_a_tensor_while_another_thread_imports_torch(monkeypatch):
    """The module is there by then, and nothing in it; what is handed over meanwhile comes in."""
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    assert not is_tensor("words")
    assert plan_sample(["words", np.zeros(3)]).nbytes
    assert plan_batch(["words", 1]).count == 2


def test_each_output_of_a_batch_is_one_block():
    """Beside outputs that are none; values, kinds and copies of one's own are those of each sample."""
    rows = 5
    pool = StagingPool(16 * MEGA, outputs=("a", "note", "b", "none"))
    a, b = torch.arange(rows * 6.0).reshape(rows, 2, 3), np.arange(rows * 4, dtype=np.int16).reshape(rows, 4)
    batch = {"b": b, "a": a, "note": [f"note {number}" for number in range(rows)], "none": torch.ones(rows, 0)}
    staged = pool.stage(pool.plan_batch(batch))
    expected = a.clone(), b.copy()
    a.zero_()
    b[:] = 0
    some = staged.rows_between(1, 4, "a")
    assert (some.dtype, some.shape, some.is_tensor) == ("float32", (2, 3), True)
    assert np.array_equal(some.memory, expected[0][1:4].numpy().reshape(3, 6).view(np.uint8))
    some = staged.rows_between(0, rows, "b")
    assert (some.dtype, some.shape, some.is_tensor) == ("int16", (4,), False)
    assert np.array_equal(some.memory.view(np.int16), expected[1])
    assert staged.rows_between(0, rows, "note") is staged.rows_between(0, rows, "none") is None
    assert not staged.is_rows
    assert staged.kinds("a") == {("float32", (2, 3)): 24}
    assert staged.kinds("b") == staged.kinds("none") == {}
    for number in range(rows):
        assert torch.equal(staged.value(number, "a"), expected[0][number])
        assert np.array_equal(staged.value(number, "b"), expected[1][number])
        assert staged.value(number, "note") == f"note {number}"
        assert staged.value(number, "none").shape == (0,)
        assert np.array_equal(staged.block(number, "a").memory.view(np.float32), expected[0][number].flatten().numpy())
        assert staged.block(number, "b") is staged.block(number, "note") is None
        kinds = [staged.kind(number, key) for key in ("a", "b", "note", "none")]
        assert kinds == [("float32", (2, 3)), ("int16", (4,)), None, ("float32", (0,))]
    own = staged.own_value(3)
    pool.release(staged)
    pool.stage(pool.plan_batch({**batch, "note": ["other"] * rows}))
    assert list(own) == ["a", "note", "b", "none"]
    assert torch.equal(own["a"], expected[0][3])
    assert np.array_equal(own["b"], expected[1][3])
    assert own["note"] == "note 3"


def test_batches_of_outputs_that_change_their_layout_are_not_mixed_up():
    """In one slot, which is seen anew where a tensor lies that has another shape or dtype."""
    pool = StagingPool(16 * MEGA, outputs=("a", "b"))
    for number in range(6):
        dtype = torch.float32 if number % 2 else torch.int32
        batch = {"a": torch.full((4, 2 + number % 3), number, dtype=dtype), "b": torch.full((4, 8), -number)}
        staged = pool.stage(pool.plan_batch(batch))
        assert staged.is_rows
        for key, values in batch.items():
            assert torch.equal(staged.value(2, key), values[2])
        pool.release(staged)
