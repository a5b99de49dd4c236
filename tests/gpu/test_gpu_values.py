"""What is handed over from a device is stored as it was at the hand-over, whatever the loop does next."""

from __future__ import annotations

import threading

import anyio
import numpy as np
import pytest
import torch
from on_gpu import GPU, busy, numbers_in, stored, two_gpus
from PIL import Image
from test_accelerator_values import VALUES, tensors_of

from lighter_async import AsyncBackgroundWriter, BackgroundWriter, write_image_2d
from lighter_async.staging import StagingPool, plan_batch, plan_sample

SIZES = pytest.mark.parametrize("size", [1_000, 4_000_000], ids=["small", "large"])
QUEUE = 64 << 20


@SIZES
def test_the_loop_overwrites_its_output_at_once(tmp_path, backend, size):
    """On the default stream, with the device behind: one tensor for all batches."""
    output = torch.zeros(2, size, device=GPU)
    with BackgroundWriter("tensor", tmp_path, backend=backend, queue_bytes=QUEUE) as writer:
        for number in range(12):
            if number % 4 == 0:
                busy(0.3)
            output.fill_(number)
            writer.submit_batch([f"{number}-a", f"{number}-b"], output)
        output.fill_(-1)
    assert numbers_in(tmp_path) == {f"{number}-{row}": number for number in range(12) for row in "ab"}


@SIZES
def test_batches_are_computed_on_streams_of_the_users(tmp_path, backend, size):
    """Each of which is behind by itself."""
    streams = [torch.cuda.Stream() for _ in range(3)]
    outputs = [torch.zeros(1, size, device=GPU) for _ in streams]
    torch.cuda.synchronize()
    with BackgroundWriter("tensor", tmp_path, backend=backend, queue_bytes=QUEUE) as writer:
        for number in range(12):
            with torch.cuda.stream(streams[number % 3]):
                busy(0.1)
                outputs[number % 3].fill_(number)
                writer.submit_batch([f"{number}"], outputs[number % 3])
                outputs[number % 3].fill_(-1)
    assert numbers_in(tmp_path) == {f"{number}": number for number in range(12)}


def test_threads_hand_over_from_streams_of_their_own(tmp_path, backend):
    """None of them finds itself on another one's stream afterwards."""
    errors = []

    def loop(thread):
        try:
            stream = torch.cuda.Stream()
            output = torch.zeros(1, 100_000, device=GPU)
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for number in range(8):
                    busy(0.02)
                    output.fill_(100 * thread + number)
                    writer.submit_batch([f"{thread}-{number}"], output)
                    assert torch.cuda.current_stream() == stream
        except BaseException as error:
            errors.append(error)

    with BackgroundWriter("tensor", tmp_path, backend=backend) as writer:
        threads = [threading.Thread(target=loop, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    assert numbers_in(tmp_path) == {f"{one}-{number}": 100 * one + number for one in range(4) for number in range(8)}


def test_the_replay_of_a_graph_overwrites_its_output(tmp_path, backend):
    """Every replay writes into the memory that the graph was captured with."""
    source = torch.zeros(4, 200_000, device=GPU)
    warm_up = torch.cuda.Stream()
    warm_up.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm_up):
        output = source * 2 + 1
    torch.cuda.current_stream().wait_stream(warm_up)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = source * 2 + 1
    with BackgroundWriter("tensor", tmp_path, backend=backend, queue_bytes=QUEUE) as writer:
        for number in range(20):
            source.fill_(number)
            graph.replay()
            writer.submit_batch([f"{number}-{row}" for row in range(4)], output)
    assert numbers_in(tmp_path) == {f"{number}-{row}": 2 * number + 1 for number in range(20) for row in range(4)}


def test_a_graph_is_captured_while_copies_are_under_way(tmp_path, backend):
    """With ``capture_error_mode="thread_local"``: our threads ask CUDA whether copies have arrived meanwhile."""
    source = torch.zeros(1, 500_000, device=GPU)
    with BackgroundWriter("tensor", tmp_path, backend=backend, queue_bytes=QUEUE) as writer:
        for number in range(4):
            source.fill_(number)
            busy(0.1)
            writer.submit_batch([f"{number}"], source)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            output = source + 10
        graph.replay()
        writer.submit_batch(["graph"], output)
    assert numbers_in(tmp_path) == {**{f"{number}": number for number in range(4)}, "graph": 13}


def test_the_hand_over_does_not_wait_for_the_device(tmp_path, backend):
    """When it returns, the device has not even begun with what is handed over."""
    output = torch.zeros(4, 1_000_000, device=GPU)
    with BackgroundWriter("tensor", tmp_path, backend=backend, queue_bytes=QUEUE) as writer:
        writer.submit_batch(["a", "b", "c", "d"], output)
        writer.flush()  # memory is pinned, streams are made
        computed = torch.cuda.Event()
        busy(10)
        computed.record()
        writer.submit_batch(["e", "f", "g", "h"], output)
        assert not computed.query()
    assert len(stored(tmp_path)) == 8


LAYOUTS = {
    "turned": lambda: torch.arange(24.0, device=GPU).reshape(2, 3, 4).movedim(0, -1),
    "strided": lambda: torch.arange(24.0, device=GPU).reshape(2, 12)[:, ::3],
    "expanded": lambda: torch.arange(3.0, device=GPU).expand(2, 3),
    "channels last": lambda: torch.rand(2, 3, 4, 4, device=GPU).contiguous(memory_format=torch.channels_last),
    "a view with an offset": lambda: torch.arange(100.0, device=GPU)[50:56].reshape(2, 3),
    "conjugate": lambda: torch.randn(2, 3, device=GPU, dtype=torch.complex64).conj(),
    "negative": lambda: torch.randn(2, 3, device=GPU, dtype=torch.complex64).conj().imag,
    "complex32": lambda: torch.ones(2, 3, device=GPU, dtype=torch.complex32),
    "bfloat16": lambda: torch.rand(2, 3, device=GPU).bfloat16(),
    "float8": lambda: torch.rand(2, 4, device=GPU).to(torch.float8_e4m3fn),
    "bool": lambda: torch.rand(2, 3, device=GPU) > 0.5,
    "uint16": lambda: torch.tensor([[1], [65_535]], dtype=torch.int32, device=GPU).to(torch.uint16),
    "int64": lambda: torch.arange(6, device=GPU).reshape(2, 3),
    "no elements": lambda: torch.zeros(2, 0, 3, device=GPU),
    "with a gradient": lambda: torch.rand(2, 3, device=GPU, requires_grad=True) * 2,
    "a parameter": lambda: torch.nn.Parameter(torch.rand(2, 3, device=GPU)),
}


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental:UserWarning")
@pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS)
def test_tensors_of_any_layout_arrive_as_they_are(make):
    """Turned, expanded and lazily changed ones, of every dtype."""
    tensor = make()
    pool = StagingPool(1 << 20)
    staged = pool.stage(plan_batch(tensor))
    if staged.ready is not None:
        staged.ready.synchronize()
    expected = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    for index in range(2):
        found = staged.value(index)
        assert found.dtype is tensor.dtype
        assert found.shape == expected[index].shape
        assert torch.equal(found.reshape(-1).view(torch.uint8), expected[index].reshape(-1).view(torch.uint8))
    pool.release(staged)
    pool.close()


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cuda")])
def test_any_mode_of_computing_will_do(tmp_path, backend, mode):
    """Tensors of inference mode are copied inside it and outside."""
    with BackgroundWriter("tensor", tmp_path, backend=backend) as writer:
        with mode():
            output = torch.full((2, 100), 3.0, device=GPU) * 2
            writer.submit_batch(["a", "b"], output)
        writer.submit("c", output)
    assert numbers_in(tmp_path) == {"a": 6, "b": 6, "c": 6}


@pytest.mark.parametrize("size", [1_000, 4_000_000], ids=["copied on the loop", "copied in a thread"])
def test_an_asyncio_task_hands_over_from_the_stream_that_it_computes_on(tmp_path, backend, size):
    """Also where the copy is begun in another thread."""

    async def job():
        stream = torch.cuda.Stream()
        output = torch.zeros(1, size, device=GPU)
        torch.cuda.synchronize()
        async with AsyncBackgroundWriter("tensor", tmp_path, backend=backend) as writer:
            for number in range(5):
                with torch.cuda.stream(stream):
                    busy(0.3)
                    output.fill_(number)
                    await writer.submit_batch([f"{number}"], output)
                    output.fill_(-1)

    anyio.run(job)
    assert numbers_in(tmp_path) == {f"{number}": number for number in range(5)}


# Values that hold device tensors


@pytest.mark.parametrize("shared", [False, True], ids=["thread", "process"])
@pytest.mark.parametrize("make", VALUES.values(), ids=VALUES)
def test_a_value_that_holds_device_tensors_is_staged_and_never_pickled(monkeypatch, make, shared):
    """Whatever class holds them; a pickle of one would wait for the device, and could not be read by a helper."""
    reduce = torch.Tensor.__reduce_ex__

    def reduce_ex(tensor, protocol):
        assert type(tensor) is torch.nn.Parameter or not tensor.is_cuda, "a tensor of the device was pickled"
        return reduce(tensor, protocol)

    monkeypatch.setattr(torch.Tensor, "__reduce_ex__", reduce_ex)
    value = make(torch.arange(1.0, 7.0, device=GPU).reshape(2, 3))
    expected = [tensor.detach().cpu() for tensor in tensors_of(value)]
    pool = StagingPool(1 << 20, shared=shared)
    if shared:
        pool.shared.open()
    staged = pool.stage(pool.plan_sample(value))
    for tensor in tensors_of(value):
        if tensor.is_cuda:
            tensor.data.fill_(-1)
    staged.ready.synchronize()
    found = staged.value(0)
    assert type(found) is type(value) or isinstance(value, torch.nn.Parameter)
    for one, other in zip(tensors_of(found), expected, strict=True):
        assert one.device.type == "cpu"
        assert torch.equal(one, other)
    assert staged.loose == []
    pool.release(staged)
    del found, one
    pool.close()
    if shared:
        pool.shared.close()


def test_a_batch_of_values_that_hold_device_tensors_is_stored(tmp_path, backend):
    """By helpers, which see no device, as by threads."""
    values = [make(torch.arange(1.0, 7.0, device=GPU).reshape(2, 3)) for make in VALUES.values()]
    expected = [[tensor.detach().cpu() for tensor in tensors_of(value)] for value in values]
    with BackgroundWriter("tensor", tmp_path, backend=backend) as writer:
        writer.submit_batch([f"{number}" for number in range(len(values))], values)
    found = stored(tmp_path)
    for number, tensors in enumerate(expected):
        for one, other in zip(tensors_of(found[f"{number}"]), tensors, strict=True):
            assert one.device.type == "cpu"
            assert torch.equal(one, other)


class Named(torch.Tensor):
    """A class of its own."""


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(3, device=GPU).to_sparse(),
        lambda: torch.eye(3, device=GPU).to_sparse_csr(),
        lambda: torch.eye(3, device=GPU).as_subclass(Named),
    ],
    ids=["sparse", "compressed rows", "a class of its own"],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
def test_what_is_no_plain_memory_is_copied_too(tmp_path, make):
    """In one blocking call."""
    value = make()
    with BackgroundWriter("tensor", tmp_path, backend="thread") as writer:
        writer.submit("a", value)
    found = stored(tmp_path)["a"]
    assert found.device.type == "cpu"
    dense = found.to_dense() if found.layout is not torch.strided else found
    assert torch.equal(dense.as_subclass(torch.Tensor), torch.eye(3))


@pytest.mark.filterwarnings("ignore:.* cannot be copied by pickling it:UserWarning")
def test_what_is_handed_over_as_it_is_is_computed_before_a_thread_reads_it(tmp_path):
    """A generator, and what shares a lock, refer to tensors of the device."""
    stream, seen = torch.cuda.Stream(), []
    tensor = torch.zeros(1_000, device=GPU)
    torch.cuda.synchronize()

    def values():
        yield tensor

    def write(path, value):
        seen.append(next(value).sum().item())

    with BackgroundWriter(write, tmp_path) as writer:
        with torch.cuda.stream(stream):
            busy(1)
            tensor.fill_(2)
            writer.submit("a", values())
    assert seen == [2_000]


# What is computed on the device before the copy


def test_images_are_scaled_on_the_device_to_the_same_pixels(tmp_path, backend):
    """A quarter of the bytes is copied."""
    images = torch.rand(4, 3, 37, 41) * 1.2 - 0.1
    with BackgroundWriter("image_2d", tmp_path / "gpu", backend=backend) as writer:
        plan = writer._pool.plan_batch(images.to(GPU))
        assert [source.dtype for _, source in plan.sources] == [torch.uint8]
        writer.submit_batch(list("abcd"), images.to(GPU))
    with BackgroundWriter("image_2d", tmp_path / "cpu", backend="thread") as writer:
        writer.submit_batch(list("abcd"), images)
    for name in "abcd":
        one, other = (np.asarray(Image.open(tmp_path / where / f"{name}.png")) for where in ("gpu", "cpu"))
        assert np.array_equal(one, other)
    half = images.to(GPU).half()
    assert torch.equal(write_image_2d.reduce(half).cpu(), write_image_2d.reduce(images.half()))


def test_volumes_are_turned_while_they_are_copied(tmp_path, backend):
    """The file's bytes are those of a volume of the host."""
    volumes = torch.rand(2, 1, 9, 10, 11)
    for where, batch in (("gpu", volumes.to(GPU)), ("cpu", volumes)):
        with BackgroundWriter("nifti", tmp_path / where, backend=backend) as writer:
            writer.submit_batch(["a", "b"], batch)
    for name in "ab":
        one, other = (next((tmp_path / where).glob(f"{name}.nii*")).read_bytes() for where in ("gpu", "cpu"))
        assert one == other


# Several devices


@pytest.mark.skipif(not two_gpus(), reason="there is one device")
def test_each_device_copies_its_own_tensors(tmp_path, backend):
    """In one sample, whichever device is the current one."""
    one, two = (torch.zeros(100_000, device=torch.device("cuda", index)) for index in (0, 1))
    with BackgroundWriter("tensor", tmp_path, backend=backend) as writer:
        for number in range(10):
            with torch.cuda.device(number % 2):
                one.fill_(number)
                two.fill_(number + 0.5)
                writer.submit(f"{number}", [one, two])
                one.fill_(-1)
                two.fill_(-1)
                assert torch.cuda.current_device() == number % 2
    for name, (first, second) in stored(tmp_path).items():
        assert (first.unique().item(), second.unique().item()) == (int(name), int(name) + 0.5)


def test_host_and_device_share_a_sample(tmp_path, backend):
    """Each tensor comes from where it is."""
    with BackgroundWriter("tensor", tmp_path, backend=backend) as writer:
        for number in range(5):
            device, host = torch.full((3,), float(number), device=GPU), torch.full((3,), number + 0.5)
            writer.submit(f"{number}", {"device": device, "host": host, "array": np.arange(3), "text": "a"})
    for name, value in stored(tmp_path).items():
        assert value["device"].tolist() == [int(name)] * 3
        assert value["host"].tolist() == [int(name) + 0.5] * 3
        assert (value["array"].tolist(), value["text"]) == ([0, 1, 2], "a")


def test_a_pool_is_reused_from_batch_to_batch():
    """The second batch goes into the pinned memory of the first."""
    pool = StagingPool(8 << 20)
    slots = set()
    for number in range(5):
        staged = pool.stage(plan_sample(torch.full((100_000,), float(number), device=GPU)))
        staged.ready.synchronize()
        assert staged.value(0).unique().item() == number
        slots.add(id(staged.slot))
        pool.release(staged)
    assert len(slots) == 1
    pool.close()
