"""Pinned memory, and memory of the device: as much as is needed, and none that stays."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from harness import Gate, GatedTarget
from on_gpu import GPU, busy, numbers_in, two_gpus

from lighter_async import BackgroundWriter, LocalTarget
from lighter_async.staging import StagingPool, TorchAccelerator, plan_sample

MIB = 1 << 20


def is_pinned(memory):
    return torch.from_numpy(memory).is_pinned()


def test_memory_is_pinned_where_it_lies_and_unpinned_when_it_is_freed(backend):
    """That of this process, and that which helpers share."""
    pool = StagingPool(8 * MIB, shared=backend == "process")
    if pool.shared is not None:
        pool.shared.open()
    staged = pool.stage(plan_sample(torch.ones(MIB // 4, device=GPU)))
    memory = staged.slot.memory
    if staged.slot.unpin is None:
        pytest.skip("the system pins no memory that is there already")
    assert is_pinned(memory)
    staged.ready.synchronize()
    pool.release(staged)
    assert is_pinned(memory)
    pool.close()
    assert not is_pinned(memory)
    del memory, staged
    if pool.shared is not None:
        pool.shared.close()


def test_sizes_that_change_stay_within_the_budget():
    """Pinned slots of other sizes give way."""
    pool = StagingPool(8 * MIB)
    for mib in (1, 2, 3, 5, 7, 1, 5, 2):
        staged = pool.stage(plan_sample(torch.full((mib * MIB // 4,), float(mib), device=GPU)))
        staged.ready.synchronize()
        assert staged.value(0).unique().item() == mib
        pool.release(staged)
        assert pool.total_bytes <= 8 * MIB
    pool.close()


def refusing(monkeypatch):
    """CUDA pins no memory that is there already."""
    real = torch.cuda.cudart()
    rest = {name: getattr(real, name) for name in dir(real) if name != "cudaHostRegister"}
    fake = SimpleNamespace(cudaHostRegister=lambda *_: 801, **rest)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: fake)


def test_memory_that_cannot_be_pinned_is_copied_to_all_the_same(tmp_path, monkeypatch, backend):
    """It is told once, and the values are right."""
    refusing(monkeypatch)
    output = torch.zeros(1, 500_000, device=GPU)
    with BackgroundWriter("tensor", tmp_path, backend=backend) as writer:
        output.fill_(0)
        with pytest.warns(UserWarning, match="pins no memory for cuda:0"):
            writer.submit_batch(["0"], output)
        for number in range(1, 8):
            busy(0.05)
            output.fill_(number)
            writer.submit_batch([f"{number}"], output)
            output.fill_(-1)
    assert numbers_in(tmp_path) == {f"{number}": number for number in range(8)}


def test_a_kernel_is_not_blamed_for_memory_that_could_not_be_pinned():
    """CUDA really refuses here, since the memory is pinned already; the next launch must not raise that."""
    accelerator = TorchAccelerator()
    assert accelerator.owns(torch.ones(1, device=GPU))
    memory = np.zeros(MIB, np.uint8)
    unpin = accelerator.pin(memory)
    if unpin is None:
        pytest.skip("the system pins no memory that is there already")
    with pytest.warns(UserWarning, match="pins no memory"):
        assert accelerator.pin(memory) is None
    assert (torch.ones(3, device=GPU) + 1).sum().item() == 6
    torch.cuda.synchronize()
    unpin()


def test_the_device_holds_no_clone_of_what_has_arrived(tmp_path):
    """Though nobody has written it yet: the queue is on the host."""
    gate = Gate()
    gate.shut()
    target = GatedTarget(LocalTarget(tmp_path), gate, ".pt")
    output = torch.ones(1, 4 * MIB, device=GPU)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    writer = BackgroundWriter("tensor", target=target, max_workers=1, queue_bytes=1 << 30)
    for number in range(8):
        writer.submit_batch([f"{number}"], output)
        torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= before + 2 * output.nbytes
    gate.release()
    writer.close()
    assert torch.cuda.memory_allocated() == before


def test_a_device_without_room_for_a_clone_is_waited_for_instead(tmp_path, backend):
    """The values are right; a hand-over that the device has no memory for at all is raised, and may be made again."""
    torch.cuda.empty_cache()
    output = torch.zeros(1, 32 * MIB, device=GPU)
    total = torch.cuda.get_device_properties(GPU).total_memory
    strided = torch.zeros(64 * MIB, device=GPU)[::2]
    with BackgroundWriter("tensor", tmp_path, backend=backend, queue_bytes=1 << 30) as writer:
        writer.submit("before", torch.ones(10, device=GPU))
        writer.flush()
        used = torch.cuda.memory_reserved()
        torch.cuda.set_per_process_memory_fraction((used + 8 * MIB) / total)
        try:
            output.fill_(1)
            with pytest.warns(UserWarning, match="no memory left"):
                writer.submit_batch(["1"], output)
            output.fill_(2)
            writer.submit_batch(["2"], output)
            output.fill_(-1)
            strided.fill_(3)
            with pytest.raises(torch.OutOfMemoryError):
                writer.submit("3", strided)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        writer.submit("3", strided)
    assert numbers_in(tmp_path) == {"before": 1, "1": 1, "2": 2, "3": 3}


def test_nothing_stays_on_the_device(tmp_path, backend):
    """Nor in its allocator's books, after a run."""
    output = torch.ones(4, MIB, device=GPU)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    with BackgroundWriter("tensor", tmp_path, backend=backend, queue_bytes=64 * MIB) as writer:
        for number in range(10):
            writer.submit_batch([f"{number}-{row}" for row in range(4)], output)
    assert torch.cuda.memory_allocated() == before


@pytest.mark.skipif(not two_gpus(), reason="there is one device")
def test_a_job_on_the_second_device_takes_nothing_of_the_first(tmp_path):
    """Each thread begins with the first one as its own; set up, it takes some hundred megabytes."""
    script = """
        import sys, torch
        from lighter_async import BackgroundWriter, LocalTarget
        for backend in ("thread", "process"):
            with BackgroundWriter("tensor", f"{sys.argv[1]}/{backend}", backend=backend) as writer:
                for number in range(5):
                    writer.submit_batch([f"{number}"], torch.ones(1, 100_000, device="cuda:1"))
        assert torch._C._cuda_hasPrimaryContext(1)
        assert not torch._C._cuda_hasPrimaryContext(0)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
