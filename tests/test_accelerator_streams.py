"""PyTorch's devices: streams, events, pinned memory and failures, with a GPU in host memory in their place."""

from __future__ import annotations

import gc
import pickle
import threading
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_gpu import FakeAccelerator, FakeEvent, FakeGpu, FakeStream, FakeTensor
from harness import in_thread, until

from lighter_async import AsyncBackgroundWriter, BackgroundWriter, WriteError
from lighter_async.staging import StagingPool, TorchAccelerator, plan_batch, plan_sample, streams_of

BOTH = pytest.mark.parametrize("backend", ["thread", "process"])
KIB = 1024


@pytest.fixture
def make_gpu(monkeypatch):
    """Makes a device in the place of PyTorch's."""
    made = []

    def make(policy="random", **options):
        gpu = FakeGpu(policy, **options)
        made.append(gpu)
        monkeypatch.setattr(torch, "get_device_module", lambda device: gpu)
        monkeypatch.setattr(torch.cuda, "is_initialized", gpu.is_initialized)
        return gpu

    yield make
    for gpu in made:
        gpu.release()
        gpu.end()


@pytest.fixture
def gpu(make_gpu):
    return make_gpu()


@pytest.fixture
def accelerator():
    return FakeAccelerator()


def stored(folder):
    return {path.stem: torch.load(path) for path in folder.glob("[!.]*.pt")}


def numbers_in(folder):
    """The number that each stored tensor is full of."""
    found = {}
    for name, tensor in stored(folder).items():
        assert tensor.min() == tensor.max(), f"{name} is of several batches"
        found[name] = tensor[0].item()
    return found


# Values


@BOTH
@pytest.mark.parametrize(
    ("policy", "seed"), [("side last", 0), ("side first", 0), *(("random", seed) for seed in range(3))]
)
def test_a_loop_may_overwrite_its_output_at_once(tmp_path, make_gpu, accelerator, backend, policy, seed):
    """As the replay of a graph does, whichever of the streams is ahead; all batches have one tensor of the device."""
    gpu = make_gpu(policy, seed=seed)
    output = gpu.tensor(torch.zeros(2, KIB))
    batch = accelerator.on_device(output)
    with BackgroundWriter("tensor", tmp_path, backend=backend, accelerator=accelerator, queue_bytes=1 << 20) as writer:
        for number in range(30):
            output.fill_(number)
            writer.submit_batch([f"{number}-a", f"{number}-b"], batch)
        output.fill_(-1)
    assert numbers_in(tmp_path) == {f"{number}-{row}": number for number in range(30) for row in "ab"}


@BOTH
def test_batches_may_be_computed_on_streams_of_the_users(tmp_path, gpu, accelerator, backend):
    """Each is cloned on the stream that is current when it is handed over, behind what it computes."""
    device = torch.device("cuda", 0)
    streams = [gpu.Stream(device) for _ in range(3)]
    outputs = [gpu.tensor(torch.zeros(1, KIB)) for _ in streams]
    batches = [accelerator.on_device(output) for output in outputs]
    with BackgroundWriter("tensor", tmp_path, backend=backend, accelerator=accelerator) as writer:
        for number in range(30):
            with gpu.stream(streams[number % 3]):
                outputs[number % 3].fill_(number)
                writer.submit_batch([f"{number}"], batches[number % 3])
    assert numbers_in(tmp_path) == {f"{number}": number for number in range(30)}


def test_threads_hand_over_from_streams_of_their_own(tmp_path, gpu, accelerator):
    """They share one side stream, and none of them finds itself on it, or on another thread's stream."""
    device = torch.device("cuda", 0)

    def loop(thread):
        stream, output = gpu.Stream(device), gpu.tensor(torch.zeros(1, KIB))
        batch = accelerator.on_device(output)
        with gpu.stream(stream):
            for number in range(10):
                output.fill_(100 * thread + number)
                writer.submit_batch([f"{thread}-{number}"], batch)
                assert gpu.current_stream(device) is stream

    with BackgroundWriter("tensor", tmp_path, backend="thread", accelerator=accelerator, max_workers=2) as writer:
        for one in [in_thread(loop, thread) for thread in range(4)]:
            one.result()
    assert numbers_in(tmp_path) == {f"{one}-{number}": 100 * one + number for one in range(4) for number in range(10)}


@pytest.mark.parametrize("size", [KIB, 2 << 20], ids=["copied on the loop", "copied in a thread"])
async def test_an_asyncio_task_hands_over_from_the_stream_that_it_computes_on(
    tmp_path, make_gpu, accelerator, size, monkeypatch
):
    """Large batches are copied in another thread, where that stream is not current by itself; nor is its device."""
    gpu = make_gpu("side last")
    device = torch.device("cuda", 1)
    stream, output = gpu.Stream(device), gpu.tensor(torch.zeros(1, size), 1)
    gpu.set_up.clear()
    batch = accelerator.on_device(output)
    monkeypatch.setattr("lighter_async.aio.writer.streams_of", lambda tensors: streams_of([output]))
    async with AsyncBackgroundWriter("tensor", tmp_path, backend="thread", accelerator=accelerator) as writer:
        with gpu.device(device), gpu.stream(stream):
            output.fill_(7)
            gpu.hold(stream)
            await writer.submit_batch(["a"], batch)
            output.fill_(8)
        gpu.release()
    assert numbers_in(tmp_path) == {"a": 7}
    assert gpu.set_up == {1}


@BOTH
def test_each_device_copies_its_own_tensors(tmp_path, gpu, accelerator, backend):
    """All of them are waited for, those of the host are there at once."""
    outputs = [gpu.tensor(torch.zeros(KIB), index) for index in (0, 1)]
    values = [accelerator.on_device(output) for output in outputs]
    with BackgroundWriter("tensor", tmp_path, backend=backend, accelerator=accelerator) as writer:
        for number in range(10):
            for index, output in enumerate(outputs):
                output.fill_(number + index / 2)
            writer.submit(f"{number}", {"a": values[0], "b": values[1], "c": torch.full((3,), float(number))})
    for name, value in stored(tmp_path).items():
        assert [value[key][0].item() for key in "abc"] == [int(name), int(name) + 0.5, int(name)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.arange(24.0).reshape(2, 3, 4).movedim(0, -1),
        lambda: torch.arange(24.0).reshape(2, 12)[:, ::3],
        lambda: torch.arange(3.0).expand(2, 3),
        lambda: torch.arange(24.0).reshape(2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
        lambda: torch.complex(torch.arange(4.0), torch.ones(4)).reshape(2, 2).conj(),
        lambda: torch.complex(torch.arange(4.0), torch.ones(4)).reshape(2, 2).conj().imag,
        lambda: torch.arange(6).to(torch.bfloat16).reshape(2, 3),
        lambda: torch.tensor([[True], [False]]),
    ],
    ids=["turned", "strided", "expanded", "channels last", "conjugate", "negative", "bfloat16", "bool"],
)
def test_tensors_of_any_layout_arrive_as_they_are(gpu, accelerator, make):
    """Lazy bits of complex numbers are resolved on the device, before anything is copied."""
    tensor = make()
    pool = StagingPool(1 << 20, accelerator=accelerator)
    batch = accelerator.on_device(gpu.tensor(tensor))
    staged = pool.stage(plan_batch(batch))
    staged.ready.synchronize()
    for index in range(2):
        found = staged.value(index)
        assert found.dtype is tensor.dtype
        assert torch.equal(found, tensor[index])
    pool.release(staged)
    pool.close()


def test_tensors_without_elements_are_not_copied(gpu, accelerator):
    """Beside others, and alone."""
    pool = StagingPool(1 << 20, accelerator=accelerator)
    empty = accelerator.on_device(gpu.tensor(torch.zeros(0, 3)))
    full = accelerator.on_device(gpu.tensor(torch.ones(3)))
    staged = pool.stage(plan_sample([empty, full]))
    staged.ready.synchronize()
    assert staged.value(0)[0].shape == (0, 3)
    assert torch.equal(staged.value(0)[1], torch.ones(3))
    assert gpu.launched == 2  # a clone and a copy
    alone = pool.stage(plan_sample(empty))
    assert alone.ready is None
    assert alone.value(0).shape == (0, 3)
    pool.release(staged)
    pool.close()


# What is held, and what is waited for


def test_a_clone_is_held_until_it_is_copied_and_no_longer(make_gpu, accelerator):
    """The allocator gives its memory to the next batch then; and a device keeps no more clones than are under way."""
    gpu = make_gpu()
    pool = StagingPool(1 << 20, accelerator=accelerator)
    output = gpu.tensor(torch.ones(16 * KIB))
    batch = accelerator.on_device(output)
    gpu.room = 3 * output.values.nbytes
    for number in range(20):
        output.fill_(number)
        staged = pool.stage(plan_sample(batch))
        staged.ready.synchronize()
        assert staged.value(0)[0] == number
        pool.release(staged)
    assert gpu.room == 2 * output.values.nbytes
    gpu.hold(gpu.default_stream(output.device))
    staged = [pool.stage(plan_sample(batch)) for _ in range(2)]
    gpu.release()
    until(lambda: all(one.ready.query() for one in staged))
    assert gpu.room == output.values.nbytes
    for one in staged:
        pool.release(one)
    pool.close()


def test_clones_of_copies_that_nobody_has_waited_for_yet_are_freed_by_the_next_hand_over(make_gpu, accelerator):
    """A long queue of batches that are on the host keeps nothing on the device."""
    gpu = make_gpu()
    pool = StagingPool(8 << 20, accelerator=accelerator)
    output = gpu.tensor(torch.ones(16 * KIB))
    batch = accelerator.on_device(output)
    gpu.room = 2 * output.values.nbytes
    staged = []
    for _ in range(20):
        staged.append(pool.stage(plan_sample(batch)))
        accelerator._sides[output.device].synchronize()
    for one in staged:
        assert one.value(0)[0] == 1
        pool.release(one)
    pool.close()


def test_threads_that_wait_leave_their_core_alone(gpu, accelerator):
    """Events of CUDA are made to block; those of other devices have no such option."""
    accelerator.copy([(torch.empty(3), accelerator.on_device(gpu.tensor(torch.ones(3))))]).synchronize()
    assert gpu.events == [{"blocking": True}]


def test_xpu_is_used_through_its_own_module(make_gpu, accelerator):
    """By the same calls; PyTorch cannot pin memory for it that is there already."""
    gpu = make_gpu(kind="xpu")
    pool = StagingPool(1 << 20, accelerator=accelerator)
    staged = pool.stage(plan_sample(accelerator.on_device(gpu.tensor(torch.ones(3)))))
    staged.ready.synchronize()
    assert torch.equal(staged.value(0), torch.ones(3))
    assert gpu.events == [{}]
    assert gpu.pinned == {}
    assert staged.slot.unpin is None
    pool.release(staged)
    pool.close()


@pytest.mark.parametrize("module", [torch.cuda, torch.xpu], ids=["cuda", "xpu"])
def test_pytorch_has_all_that_is_used_of_it(module):
    """Under the names that the GPU in host memory has, too."""
    for name in ("Stream", "Event", "current_stream", "stream", "device", "is_initialized"):
        assert callable(getattr(module, name))
        assert callable(getattr(FakeGpu, name))
    for kind, calls in (
        ("Stream", ("wait_stream", "query", "synchronize")),
        ("Event", ("record", "query", "synchronize")),
    ):
        for name in calls:
            assert callable(getattr(getattr(module, kind), name))
            assert callable(getattr({"Stream": FakeStream, "Event": FakeEvent}[kind], name))
    assert torch.get_device_module(torch.device(module.__name__.rpartition(".")[2], 0)) is module


def test_what_is_on_a_device_without_streams_is_copied_in_one_blocking_call(make_gpu, accelerator):
    """MPS and all others: the copy is there when the hand-over returns."""
    gpu = make_gpu(kind="mps")
    output = gpu.tensor(torch.zeros(3))
    assert not TorchAccelerator().owns(output)
    output.fill_(5)
    host = torch.empty(3)
    host.copy_(output)  # as the pool does with what the accelerator does not own
    assert torch.equal(host, torch.full((3,), 5.0))
    owned = {
        kind: TorchAccelerator().owns(SimpleNamespace(device=torch.device(kind), is_cpu=kind == "cpu"))
        for kind in ("cuda", "xpu", "cpu")
    }
    assert owned == {"cuda": True, "xpu": True, "cpu": False}


@BOTH
def test_only_the_devices_that_have_tensors_are_set_up(tmp_path, gpu, accelerator, backend):
    """Each thread begins with the first one as its own, and calls made with that would take memory there."""
    output = gpu.tensor(torch.zeros(1, KIB), 1)
    batch = accelerator.on_device(output)
    with BackgroundWriter("tensor", tmp_path, backend=backend, accelerator=accelerator, max_workers=2) as writer:
        with gpu.device(output.device):
            output.fill_(3)
        for number in range(5):
            writer.submit_batch([f"{number}"], batch)
    assert gpu.set_up == {1}
    assert gpu.current_device == 0


def test_an_accelerator_that_was_used_can_be_pickled(gpu, accelerator):
    """As a callback that has it is; streams stay where they are."""
    accelerator.copy([(torch.empty(3), accelerator.on_device(gpu.tensor(torch.ones(3))))]).synchronize()
    assert type(pickle.loads(pickle.dumps(accelerator))) is TorchAccelerator


# Pinned memory


@BOTH
def test_memory_is_pinned_where_it_lies_and_unpinned_before_it_is_freed(tmp_path, gpu, accelerator, backend):
    """Whole slots, and as long as they are kept."""
    batch = accelerator.on_device(gpu.tensor(torch.ones(2, KIB)))
    with BackgroundWriter("tensor", tmp_path, backend=backend, accelerator=accelerator) as writer:
        writer.submit_batch(["a", "b"], batch)
        writer.flush()
        (size,) = gpu.pinned.values()
        assert size == writer._pool.total_bytes == 8 * KIB
    assert gpu.pinned == {}


def test_pinned_memory_stays_within_the_budget(gpu, accelerator):
    """Slots of other sizes are unpinned and freed for what is asked for; PyTorch's own pinned memory would be kept."""
    pool = StagingPool(64 * KIB, accelerator=accelerator)
    for kib in (9, 17, 33, 50, 9, 33):
        staged = pool.stage(plan_sample(accelerator.on_device(gpu.tensor(torch.ones(kib * KIB // 4)))))
        staged.ready.synchronize()
        pool.release(staged)
        assert sum(gpu.pinned.values()) == pool.total_bytes <= 64 * KIB
    pool.close()
    assert gpu.pinned == {}


@BOTH
def test_memory_that_cannot_be_pinned_is_copied_to_all_the_same(tmp_path, gpu, accelerator, backend):
    """It is told once; and the next kernel's launch is not blamed for the error."""
    gpu.refusal = 801
    output = gpu.tensor(torch.zeros(1, 64 * KIB))
    batch = accelerator.on_device(output)
    options = {"backend": backend, "accelerator": accelerator, "queue_bytes": 1 << 20}
    with BackgroundWriter("tensor", tmp_path, **options) as writer:
        output.fill_(0)
        with pytest.warns(UserWarning, match=r"pins no memory for cuda:0 \(cudaHostRegister: 801\)") as told:
            writer.submit_batch(["0"], batch)
        for number in range(1, 10):
            output.fill_(number)
            writer.submit_batch([f"{number}"], batch)
    assert [warning.filename for warning in told] == [__file__]
    assert gpu.last_error == 0
    assert numbers_in(tmp_path) == {f"{number}": number for number in range(10)}


def test_a_version_of_pytorch_without_a_call_for_it_takes_the_error_back_by_a_launch(gpu, accelerator, monkeypatch):
    """Which raises it, and that is the end of it."""
    gpu.refusal = 801
    monkeypatch.delattr(FakeGpu, "cudaGetLastError")
    launches = []

    def full(*_, device):
        launches.append(device)
        raise RuntimeError("CUDA error: operation not supported")

    monkeypatch.setattr(torch, "full", full)
    accelerator.owns(gpu.tensor(torch.ones(3)))
    with pytest.warns(UserWarning, match="pins no memory"):
        assert accelerator.pin(np.zeros(4096, np.uint8)) is None
    assert launches == [torch.device("cuda", 0)]


@BOTH
def test_a_warning_that_is_an_error_loses_nothing(tmp_path, gpu, accelerator, backend):
    """The hand-over raises it, and the same batch may be handed over again."""
    gpu.refusal = 801
    batch = accelerator.on_device(gpu.tensor(torch.ones(1, KIB)))
    with BackgroundWriter("tensor", tmp_path, backend=backend, accelerator=accelerator) as writer:
        with pytest.raises(UserWarning, match="pins no memory"):
            writer.submit_batch(["a"], batch)
        writer.submit_batch(["a"], batch)
    assert numbers_in(tmp_path) == {"a": 1}


# Too little memory on the device


@BOTH
def test_a_device_without_room_for_a_clone_is_waited_for_instead(tmp_path, make_gpu, accelerator, backend):
    """The values are right, and it is told once what it costs."""
    gpu = make_gpu("side last")
    gpu.room = 0
    output = gpu.tensor(torch.zeros(1, KIB))
    batch = accelerator.on_device(output)
    with BackgroundWriter("tensor", tmp_path, backend=backend, accelerator=accelerator) as writer:
        output.fill_(0)
        with pytest.warns(UserWarning, match="cuda:0 has no memory left"):
            writer.submit_batch(["0"], batch)
        for number in range(1, 10):
            output.fill_(number)
            writer.submit_batch([f"{number}"], batch)
            output.fill_(-1)
    assert numbers_in(tmp_path) == {f"{number}": number for number in range(10)}


def test_what_there_is_room_for_is_cloned_and_the_rest_is_waited_for(gpu, accelerator):
    """Of one hand-over; a tensor that is only turned is turned on the host."""
    pool = StagingPool(1 << 20, accelerator=accelerator)
    turned = torch.arange(6.0).reshape(2, 3).T
    outputs = [gpu.tensor(torch.zeros(KIB)), gpu.tensor(turned), gpu.tensor(torch.zeros(KIB))]
    values = [accelerator.on_device(output) for output in outputs]
    gpu.room = outputs[0].values.nbytes
    outputs[0].fill_(1)
    outputs[2].fill_(2)
    with pytest.warns(UserWarning, match="no memory left"):
        staged = pool.stage(plan_sample(values))
    outputs[0].fill_(8)
    outputs[2].fill_(9)
    staged.ready.synchronize()
    first, second, third = staged.value(0)
    assert (first[0], third[0]) == (1, 2)
    assert torch.equal(second, turned)
    pool.release(staged)
    pool.close()


@BOTH
def test_a_hand_over_that_the_device_has_no_memory_for_is_raised_and_loses_nothing(
    tmp_path, gpu, accelerator, backend, monkeypatch
):
    """What was handed over before is stored, and so is this one later; no memory stays pinned for it."""
    gpu.room = 0
    outputs = [gpu.tensor(torch.zeros(2, KIB)), gpu.tensor(torch.zeros(2, 2 * KIB).T)]
    good, bad = (accelerator.on_device(output) for output in outputs)
    outputs[0].fill_(1)
    outputs[1].fill_(2)

    def no_room(self):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with BackgroundWriter("tensor", tmp_path, backend=backend, accelerator=accelerator) as writer:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            writer.submit("a", good)
            writer.flush()
            kept = dict(gpu.pinned)
            with monkeypatch.context() as patch:
                patch.setattr(FakeTensor, "cpu", no_room)
                for _ in range(3):
                    with pytest.raises(torch.OutOfMemoryError):
                        writer.submit("b", bad)
            assert gpu.pinned == kept
            assert writer.stats().pending_bytes == 0
            writer.submit("b", bad)
    assert {name: tensor.unique().tolist() for name, tensor in stored(tmp_path).items()} == {"a": [1], "b": [2]}


def test_a_copy_that_fails_on_one_device_has_ended_on_the_others(gpu, accelerator, monkeypatch):
    """When the error is raised, nothing writes into the host's memory any more, which goes to the next batch."""
    outputs = [gpu.tensor(torch.ones(KIB), index) for index in (0, 1)]
    values = [accelerator.on_device(output) for output in outputs]
    hosts = [torch.zeros(KIB), torch.zeros(KIB)]
    clone = FakeTensor.clone

    def clone_on_the_first(tensor, **options):
        if tensor.device.index:
            raise RuntimeError("no way to clone it")
        return clone(tensor, **options)

    monkeypatch.setattr(FakeTensor, "clone", clone_on_the_first)
    gpu.hold(gpu.default_stream(outputs[0].device))
    threading.Timer(0.05, gpu.release).start()
    with pytest.raises(RuntimeError, match="no way to clone"):
        accelerator.copy(list(zip(hosts, values, strict=True)))
    assert [host[0] for host in hosts] == [1, 0]


# A device that fails


@BOTH
def test_a_device_that_fails_midway_fails_what_was_under_way_and_the_rest_is_stored(
    tmp_path, gpu, accelerator, backend
):
    """Each sample by its name, with the device's error; `close` lets go of everything and raises nothing else."""
    output = gpu.tensor(torch.zeros(1, KIB))
    batch = accelerator.on_device(output)
    writer = BackgroundWriter("tensor", tmp_path, backend=backend, accelerator=accelerator)
    output.fill_(1)
    writer.submit_batch(["before"], batch)
    writer.flush()
    gpu.hold(gpu.default_stream(output.device))
    output.fill_(2)
    writer.submit_batch(["under way"], batch)
    gpu.fail("CUDA error: device-side assert triggered")
    with pytest.raises((RuntimeError, WriteError), match="device-side assert") as first:
        writer.submit_batch(["after"], batch)
    if isinstance(first.value, WriteError):  # a worker was faster, and its failure is raised once
        assert [failure.name for failure in first.value.failures] == ["under way"]
        writer.close()
    else:
        with pytest.raises(WriteError, match="device-side assert") as caught:
            writer.close()
        assert [failure.name for failure in caught.value.failures] == ["under way"]
    assert numbers_in(tmp_path) == {"before": 1}
    writer.close()
    assert writer.stats().pending_bytes == 0


def test_memory_that_could_not_be_unpinned_is_not_used_again(gpu, accelerator):
    """The device may still write there."""
    pool = StagingPool(64 * KIB, accelerator=accelerator, shared=True)
    pool.shared.open()
    staged = pool.stage(plan_sample(accelerator.on_device(gpu.tensor(torch.ones(8 * KIB)))))
    staged.ready.synchronize()
    pool.release(staged)
    gpu.fail("device lost")
    other = pool.stage(plan_sample(torch.ones(12 * KIB)))  # for which the free slot has to go
    taken = range(staged.slot.offset, staged.slot.offset + len(staged.slot.memory))
    assert not {other.slot.offset, other.slot.offset + len(other.slot.memory) - 1} & {*taken}
    pool.release(other)
    pool.close()
    pool.shared.close()


def test_a_sample_that_hangs_keeps_memory_pinned_only_while_it_is_copied_to(gpu, accelerator):
    """Of a device that is well it is unpinned, though a thread may read it for ever."""
    pool = StagingPool(64 * KIB, accelerator=accelerator)
    batch = accelerator.on_device(gpu.tensor(torch.ones(KIB)))
    staged = pool.stage(plan_sample(batch))
    staged.ready.synchronize()
    pool.forget(staged)
    assert gpu.pinned == {}
    gpu.hold(gpu.default_stream(torch.device("cuda", 0)))
    staged = pool.stage(plan_sample(batch))
    pool.forget(staged)
    assert len(gpu.pinned) == 1
    assert pool.total_bytes == 0
    gpu.release()
    staged.ready.synchronize()
    assert staged.value(0)[0] == 1


# What nobody copies


class Shared:
    """Is handed over as it is, for its lock."""

    def __init__(self, tensors):
        self.lock, self.tensors = threading.Lock(), tensors


def test_what_is_handed_over_as_it_is_waits_for_the_loops_stream(make_gpu, monkeypatch):
    """The thread that writes it has other streams, and would read it before it is computed."""
    gpu = make_gpu()
    output = gpu.tensor(torch.zeros(3))
    shared = Shared([output])
    # Found as a tensor of the device would be.
    monkeypatch.setattr("lighter_async.staging.streams.tensors_in", lambda thing: getattr(thing, "tensors", []))
    stream = gpu.Stream(output.device)
    with gpu.stream(stream):
        gpu.hold(stream)
        output.fill_(4)
        staging = in_thread(StagingPool(1 << 20).stage, plan_sample([1, shared]))
        staging.result()  # another thread, whose stream has nothing to do
        assert output.values[0] == 0
        threading.Timer(0.01, gpu.release).start()
        StagingPool(1 << 20).stage(plan_sample([1, shared]))
        assert output.values[0] == 4
    del shared
    gc.collect()


def test_the_tensors_of_what_is_handed_over_as_it_is_are_found():
    """In lists, dicts and closures; classes are not searched."""
    from lighter_async.staging.pickled_objects import tensors_in

    one, two = torch.ones(1), torch.ones(2)
    assert [id(part) for part in tensors_in(Shared([one, {"a": two}]))] == [id(one), id(two)]
    assert [id(part) for part in tensors_in(lambda: one)] == [id(one)]
    assert tensors_in(Shared) == []
