"""The seam to accelerators, with devices made of host memory."""

import threading

import numpy as np
import pytest
import torch
from harness import in_thread

from lighter_async import BackgroundWriter, FlushTimeoutError, QueueFullError, WriteError
from lighter_async.staging import StagingPool, plan_batch, plan_sample
from lighter_async.writers import write_image_2d, write_image_3d
from lighter_async.writers.image import to_pixels

PATIENCE = 30  # seconds, for what happens in another thread


class Copy:
    """A copy that happens when the device gets to it, or fails."""

    def __init__(self, pairs):
        # What the device will copy is fixed now: work launched later may overwrite the source.
        self.pairs = [(host, source.clone()) for host, source in pairs]
        self.arrived = threading.Event()
        self.waited_for = threading.Event()
        self.error = None

    def arrive(self):
        for host, snapshot in self.pairs:
            host.copy_(snapshot)
        self.arrived.set()

    def fail(self, error):
        self.error = error
        self.arrived.set()

    def synchronize(self):
        self.waited_for.set()
        assert self.arrived.wait(PATIENCE)
        if self.error is not None:
            raise self.error

    def query(self):
        if self.arrived.is_set() and self.error is not None:
            raise self.error
        return self.arrived.is_set()


class Device:
    """An accelerator whose stream is moved on by hand."""

    def __init__(self):
        self.copies = []
        self.allocated = []
        self.pinned = 0
        self.owned = {}  # by address, and kept, so that no other tensor gets the address

    def tensor(self, tensor):
        """A tensor on this device."""
        self.owned[tensor.data_ptr()] = tensor
        return tensor

    def owns(self, tensor):
        return tensor.data_ptr() in self.owned

    def pin(self, memory):
        # Recognisable, so that a read before the copy shows.
        self.allocated.append(memory.nbytes)
        memory[:] = 0xEE
        self.pinned += 1

        def unpin():
            self.pinned -= 1

        return unpin

    def copy(self, pairs):
        self.copies.append(Copy(pairs))
        return self.copies[-1]


@pytest.fixture
def device():
    device = Device()
    yield device
    device.copies.clear()  # which refer to the slots' memory


@pytest.fixture
def arriving(device):
    """Moves every copy on, so that a test that failed does not leave a worker waiting."""
    yield
    for copy in device.copies:
        if not copy.arrived.is_set():
            copy.arrive()


# Staging


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("writer", [write_image_2d, write_image_3d])
def test_images_are_scaled_on_the_device_before_they_are_copied(device, writer, dtype):
    """To the very pixels that they have otherwise; the tensor is left as it was."""
    batch = torch.linspace(-0.5, 1.5, 4096).to(dtype).reshape(4, 1, 32, 32)
    batch[0, 0, 0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    before = batch.clone()
    pool = StagingPool(1 << 20, accelerator=device, reduce={None: lambda tensor: device.tensor(writer.reduce(tensor))})
    for values in (device.tensor(batch), [device.tensor(batch[0]), batch[1]]):
        plan = pool.plan_batch(values)
        reduced = [source for _, source in plan.sources if device.owns(source)]
        assert [source.dtype for source in reduced] == [torch.uint8]
        assert torch.equal(reduced[0], to_pixels(values if isinstance(values, torch.Tensor) else values[0]))
    assert torch.equal(batch.nan_to_num(), before.nan_to_num())
    assert pool.plan_sample(batch[2]).sources[0][1].dtype is dtype  # of the host: as it is


def test_what_is_no_float_image_is_copied_as_it_is():
    """Label maps, masks, sixteen bits, and what a worker refuses."""
    for dtype in (torch.uint8, torch.int64, torch.bool, torch.complex64):
        tensor = torch.zeros(1, 2, 2, dtype=dtype)
        assert write_image_2d.reduce(tensor) is tensor
    wide = write_image_2d.with_options(mode="I;16")
    tensor = torch.rand(1, 2, 2)
    assert wide.reduce(tensor) is tensor
    assert write_image_2d.with_options(mode="L", filter="up").reduce(tensor).dtype is torch.uint8


def test_a_copy_is_begun_and_not_waited_for(device):
    """The whole batch goes in one copy into pinned memory, and the loop goes on at once."""
    pool = StagingPool(1 << 20, accelerator=device)
    batch = device.tensor(torch.rand(4, 1000))
    staged = pool.stage(plan_batch(batch))
    (copy,) = device.copies
    assert [tuple(source.shape) for _, source in copy.pairs] == [(4, 1000)]
    assert staged.slot.pinned
    assert device.allocated == [16384]
    assert not copy.waited_for.is_set()
    assert not torch.equal(staged.value(0), batch[0])
    copy.arrive()
    staged.ready.synchronize()
    for index in range(4):
        assert torch.equal(staged.value(index), batch[index])
    pool.release(staged)
    again = pool.stage(plan_batch(batch))
    assert again.slot is staged.slot
    assert device.allocated == [16384]
    device.copies[-1].arrive()
    pool.release(again)


def test_tensors_of_device_and_host_share_a_slot(device):
    """Those of the host are copied at once, those of the device in one further copy."""
    pool = StagingPool(1 << 20, accelerator=device)
    first, second, host, array = device.tensor(torch.rand(3)), device.tensor(torch.rand(5)), torch.rand(7), np.arange(3)
    staged = pool.stage(plan_sample({"a": first, "b": host, "c": [second, array]}))
    (copy,) = device.copies
    assert len(copy.pairs) == 2
    assert torch.equal(staged.value(0)["b"], host)
    copy.arrive()
    staged.ready.synchronize()
    value = staged.value(0)
    assert torch.equal(value["a"], first)
    assert torch.equal(value["c"][0], second)
    assert value["c"][1].tolist() == [0, 1, 2]
    pool.release(staged)


def test_tensors_of_the_host_need_no_pinned_memory(device):
    """And no event."""
    pool = StagingPool(1 << 20, accelerator=device)
    staged = pool.stage(plan_batch(torch.rand(2, 3)))
    assert staged.ready is None
    assert not staged.slot.pinned
    assert device.allocated == device.copies == []
    pool.release(staged)


def test_pinned_and_plain_slots_are_not_exchanged(device):
    """A slot that an accelerator can copy into is kept for it."""
    pool = StagingPool(1 << 20, accelerator=device)
    plain = pool.stage(plan_batch(torch.rand(2, 3)))
    pool.release(plain)
    staged = pool.stage(plan_batch(device.tensor(torch.rand(2, 3))))
    assert staged.slot is not plain.slot
    device.copies[0].arrive()
    pool.release(staged)


def test_a_slot_comes_back_only_once_its_copy_has_arrived(device):
    """A dropped batch's copy may still be under way, and must not meet the next batch's bytes."""
    pool = StagingPool(1 << 20, accelerator=device)
    staged = pool.stage(plan_batch(device.tensor(torch.rand(2, 3))))
    (copy,) = device.copies
    releasing = threading.Thread(target=pool.release, args=(staged,))
    releasing.start()
    assert copy.waited_for.wait(PATIENCE)
    next_one = pool.stage(plan_batch(device.tensor(torch.rand(2, 3))))
    assert next_one.slot is not staged.slot
    copy.arrive()
    releasing.join()
    assert pool.stage(plan_batch(device.tensor(torch.rand(2, 3)))).slot is staged.slot


def test_a_failed_devices_slot_is_never_used_again(device):
    """Whether it still writes there is unknown."""
    pool = StagingPool(1 << 20, accelerator=device)
    staged = pool.stage(plan_batch(device.tensor(torch.rand(2, 3))))
    device.copies[0].fail(RuntimeError("device lost"))
    pool.release(staged)
    assert pool.total_bytes == 0
    again = pool.stage(plan_batch(device.tensor(torch.rand(2, 3))))
    assert again.slot is not staged.slot


def test_a_copy_that_cannot_be_begun_costs_its_slot(device):
    """It may have begun in part."""

    def fail(pairs):
        raise RuntimeError("no stream")

    device.copy = fail
    pool = StagingPool(1 << 20, accelerator=device)
    with pytest.raises(RuntimeError, match="no stream"):
        pool.stage(plan_batch(device.tensor(torch.rand(2, 3))))
    assert pool.total_bytes == 0


# Through the service


@pytest.mark.usefixtures("arriving")
def test_a_worker_waits_for_the_copy_before_it_reads(tmp_path, device):
    """Reading too early is how files full of zeros came to be; the loop meanwhile goes on and may overwrite."""
    with BackgroundWriter("tensor", tmp_path, backend="thread", accelerator=device, max_workers=2) as writer:
        batch = device.tensor(torch.rand(3, 100))
        expected = batch.clone()
        writer.submit_batch(["a", "b", "c"], batch)
        batch.zero_()
        (copy,) = device.copies
        assert copy.waited_for.wait(PATIENCE)
        assert writer.stats().written == 0
        assert not list(tmp_path.glob("*.pt"))
        copy.arrive()
        writer.flush()
    for name, row in zip("abc", expected, strict=True):
        assert torch.equal(torch.load(tmp_path / f"{name}.pt"), row)


@pytest.mark.usefixtures("arriving")
def test_helpers_are_given_what_has_arrived_in_order(tmp_path, device):
    """They cannot wait for a device, so a batch that follows one under way is held back with it."""
    with BackgroundWriter("tensor", tmp_path, backend="process", accelerator=device, max_workers=2) as writer:
        batch = device.tensor(torch.rand(3, 100))
        expected = batch.clone()
        writer.submit_batch(["a", "b", "c"], batch)
        batch.zero_()
        writer.submit("d", torch.rand(5))
        writer.submit("e", device.tensor(torch.rand(5)))
        first, second = device.copies
        second.arrive()
        with pytest.raises(FlushTimeoutError, match="5 samples"):
            writer.flush(timeout=0)
        assert not list(tmp_path.glob("*.pt"))
        flushing = in_thread(writer.flush)
        assert first.waited_for.wait(PATIENCE)
        assert device.pinned == 2
        first.arrive()
        flushing.result()
        assert len(list(tmp_path.glob("*.pt"))) == 5
    assert device.pinned == 0
    for name, row in zip("abc", expected, strict=True):
        assert torch.equal(torch.load(tmp_path / f"{name}.pt"), row)


@pytest.mark.usefixtures("arriving")
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_path_functions_wait_for_the_copy_too(tmp_path, device, kind):
    """Plain and async ones get their clones only once the bytes are there."""
    seen = {}

    async def keep_async(path, value):
        seen[path.name] = value

    def keep(path, value):
        seen[path.name] = value

    with BackgroundWriter(keep if kind == "plain" else keep_async, tmp_path, accelerator=device) as writer:
        batch = device.tensor(torch.rand(2, 100))
        writer.submit_batch(["a", "b"], batch)
        assert device.copies[0].waited_for.wait(PATIENCE)
        assert seen == {}
        device.copies[0].arrive()
    assert torch.equal(seen["a"], batch[0])
    assert torch.equal(seen["b"], batch[1])


@pytest.mark.usefixtures("arriving")
@pytest.mark.parametrize("backend", ["thread", "process"])
def test_batches_under_way_count_against_the_bounds(tmp_path, device, backend):
    """Copies that the device has not got to fill the queue like anything else."""
    with BackgroundWriter("tensor", tmp_path, backend=backend, accelerator=device, queue_size=4) as writer:
        writer.submit_batch(["a", "b"], device.tensor(torch.rand(2, 10)))
        writer.submit_batch(["c", "d"], device.tensor(torch.rand(2, 10)))
        with pytest.raises(QueueFullError, match="4 of 4"):
            writer.submit_nowait("e", device.tensor(torch.rand(10)))
        for copy in device.copies:
            copy.arrive()


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_device_that_fails_fails_its_samples(tmp_path, device, backend):
    """All of the batch, each by name, with the device's error; earlier and later memory is not mixed."""
    writer = BackgroundWriter("tensor", tmp_path, backend=backend, accelerator=device)
    writer.submit_batch(["a", "b"], device.tensor(torch.rand(2, 10)))
    device.copies[0].fail(RuntimeError("device lost"))
    with pytest.raises(WriteError, match="device lost") as caught:
        writer.flush()
    assert sorted(failure.name for failure in caught.value.failures) == ["a", "b"]
    assert all(isinstance(failure.cause, RuntimeError) for failure in caught.value.failures)
    assert writer._pool.total_bytes == 0
    assert writer.stats().pending_bytes == 0
    writer.close()
    assert not list(tmp_path.glob("[!.]*"))


def test_a_copy_that_cannot_be_begun_is_raised_and_leaves_room_and_names(tmp_path, device):
    """Nothing of the batch was queued, so that it can be handed over again."""
    real_copy = device.copy

    def fail(pairs):
        raise RuntimeError("no stream")

    with BackgroundWriter("tensor", tmp_path, accelerator=device) as writer:
        batch = device.tensor(torch.rand(2, 10))
        device.copy = fail
        with pytest.raises(RuntimeError, match="no stream"):
            writer.submit_batch(["a", "b"], batch)
        assert (writer.stats().accepted, writer.stats().pending_bytes) == (0, 0)
        device.copy = real_copy
        writer.submit_batch(["a", "b"], batch)
        device.copies[0].arrive()
    assert sorted(file.name for file in tmp_path.glob("[!.]*")) == ["a.pt", "b.pt"]
