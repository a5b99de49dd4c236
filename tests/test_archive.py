"""`.pt` archives made from a template are what `torch.save` writes."""

import io
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lighter_async import BackgroundWriter, write_tensor
from lighter_async.plain_memory import Block
from lighter_async.writers import pt_archive as archive
from lighter_async.writers.pt_large import template_of_large
from lighter_async.writers.tensor import _archives

pytestmark = pytest.mark.usefixtures("one_core")

DTYPES = sorted(
    {str(one).removeprefix("torch.") for one in vars(torch).values() if isinstance(one, torch.dtype)}
    - {"bits1x8", "bits2x4", "bits4x2", "bits8", "bits16", "qint8", "qint32", "quint8", "quint4x2", "quint2x4"}
    - {f"{kind}{bits}" for kind in ("int", "uint") for bits in range(1, 8)}
)


@pytest.fixture(autouse=True)
def _no_templates():
    _archives._templates.clear()
    _archives._unfit.clear()
    yield
    _archives._templates.clear()
    _archives._unfit.clear()


def block_of(tensor):
    memory = np.frombuffer(bytearray(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()), np.uint8)
    return Block(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), memory)


def tensor_of(dtype, shape, seed=0):
    kind = getattr(torch, dtype)
    count = int(np.prod(shape)) * kind.itemsize
    bits = np.random.default_rng(seed).integers(0, 2 if dtype == "bool" else 256, count, np.uint8)
    return torch.from_numpy(bits).view(kind).view(shape)


def archive_of(tensor):
    """From a template: the first tensor of a kind is torch.save's."""
    block = block_of(tensor)
    _archives.encode(block)
    parts = _archives.encode(block)
    return None if parts is None else b"".join(parts)


def same(one, other):
    bits = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_read_back_bit_by_bit(dtype, tmp_path):
    """By torch.load in its safe mode, memory-mapped too, and by zip tools."""
    tensor = tensor_of(dtype, (3, 5))
    content = archive_of(tensor)
    assert content is not None
    assert same(torch.load(io.BytesIO(content), weights_only=True), tensor)
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    assert same(torch.load(path, mmap=True, weights_only=True), tensor)
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=4).map(tuple), st.sampled_from(["float32", "bfloat16", "uint8", "int64"]))
def test_any_shape_gives_the_bytes_of_torch_save(shape, dtype):
    """But for the identifier, which is only logged. 0-d tensors too."""
    tensor = tensor_of(dtype, shape, seed=7)
    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    assert archive._without_identifier(archive_of(tensor)) == archive._without_identifier(buffer.getvalue())


@pytest.mark.parametrize(("dtype", "shape"), [("float32", (70_000,)), ("bool", (300, 400)), ("complex64", (3, 5000))])
def test_the_template_of_a_large_tensor_gives_the_bytes_of_torch_save(dtype, shape):
    """Though none of the archives that it was made of was kept whole."""
    tensor = tensor_of(dtype, shape, seed=7)
    save = partial(archive._save_to, dtype=dtype, shape=shape)
    nbytes = tensor.nbytes
    assert nbytes > archive._LARGE
    template = template_of_large(save, nbytes)
    assert template is not None
    made = b"".join(template.fill(block_of(tensor).memory.data))
    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    assert archive._without_identifier(made) == archive._without_identifier(buffer.getvalue())
    assert b"".join(archive.Archives().encode(block_of(tensor))) == made


@pytest.mark.parametrize("change", ["in pieces", "longer each time"])
def test_a_large_tensor_that_torch_lays_out_otherwise_has_no_such_template(change):
    """It is made of whole archives then, or left to torch."""
    saved = []

    class InPieces:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            for start in range(0, len(data), 1000):
                self.file.write(data[start : start + 1000])
            return len(data)

        def flush(self):
            pass

    def save(file, elements):
        saved.append(len(elements))
        archive._save_to(InPieces(file) if change == "in pieces" else file, elements, dtype="uint8", shape=(200_000,))
        if change == "longer each time":
            file.write(b"\0" * len(saved))

    assert template_of_large(save, 200_000) is None
    assert saved == ([200_000] if change == "in pieces" else [200_000] * 2)


def test_each_archive_has_its_own_elements(tmp_path):
    """Also when a batch is overwritten as soon as it is handed over."""
    batch = torch.empty(16, 33)
    with BackgroundWriter("tensor", tmp_path, max_workers=3) as writer:
        for step in range(20):
            batch.copy_(torch.arange(16.0).unsqueeze(1) + 100 * step)
            writer.submit_batch([f"{step}/{row}" for row in range(16)], batch)
    for step in range(20):
        for row in range(16):
            assert torch.equal(torch.load(tmp_path / f"{step}/{row}.pt"), torch.full((33,), row + 100.0 * step))
    assert _archives._templates[("float32", (33,))] is not None


def test_what_torch_lays_out_otherwise_is_left_to_it(monkeypatch, tmp_path):
    """A template that gives other bytes than torch.save is not used; the file is torch's own."""
    real = archive._save
    saved = []

    def other(elements, dtype, shape):
        saved.append(dtype)
        return real(elements, dtype, shape) + b"\0" * len(saved)

    monkeypatch.setattr(archive, "_save", other)
    tensor = tensor_of("float32", (4,))
    assert archive_of(tensor) is None
    assert archive_of(tensor) is None
    assert len(saved) == 2
    with BackgroundWriter("tensor", tmp_path) as writer:
        writer.submit("a", tensor)
    assert same(torch.load(tmp_path / "a.pt"), tensor)


def test_an_archive_without_checksums_makes_no_template():
    """PyTorch can be told to leave them out, and then there is nothing to patch."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        tensor = tensor_of("float32", (5,))
        content = archive_of(tensor)
        assert content is None or same(torch.load(io.BytesIO(content), weights_only=True), tensor)
    finally:
        torch.serialization.set_crc32_options(before)


def test_very_large_tensors_and_single_ones_are_left_to_torch(monkeypatch):
    """A template would take more than it saves, or more at once than a large tensor may."""
    monkeypatch.setattr(archive, "_LARGEST", 16)
    monkeypatch.setattr(archive, "_LARGEST_SHARED", 8)
    archives = archive.Archives()
    assert archives.encode(block_of(tensor_of("float32", (5,)))) is None
    block = block_of(tensor_of("float32", (3,)))
    assert archives.encode(block) is None
    assert archives.encode(block) is not None
    assert archives.encode(block_of(tensor_of("float32", (2,)))) is not None


def test_samples_that_are_all_of_different_kinds_are_left_to_torch(monkeypatch):
    """But those that come again are not, however many came before."""
    monkeypatch.setattr(archive, "_TRIED_ALONE", 3)
    archives = archive.Archives()
    blocks = [block_of(torch.zeros(length)) for length in range(1, 8)]
    made = [archives.encode(block) is not None for block in blocks]
    assert made == [True] * 3 + [False] * 4
    assert all(archives.encode(block) is not None for block in blocks)
    assert archives.encode(block_of(torch.zeros(100))) is not None


def test_templates_do_not_pile_up(monkeypatch):
    """Samples that all differ in shape leave a bounded number of entries."""
    monkeypatch.setattr(archive, "_MOST_TEMPLATES", 10)
    for length in range(1, 50):
        _archives.encode(block_of(torch.zeros(length)))
    assert len(_archives._templates) <= 10


def test_the_writer_called_directly_writes_the_same():
    """A path and a tensor, as in the synchronous interface."""
    tensor = tensor_of("float16", (6, 2))
    content = b"".join(write_tensor.encode(tensor))
    assert archive._without_identifier(content) == archive._without_identifier(archive_of(tensor))


def test_templates_are_shared_at_once_but_not_for_ever_new_shapes():
    """A process without PyTorch needs one for the first tensor; one for each of many sizes would cost the loop."""
    archives = archive.Archives()
    ((kind, template),) = archives.share({("float32", (3,)): 12})
    assert kind == ("float32", (3,))
    learned = archive.Archives()
    learned.learn([(kind, template)])
    parts = learned.encode(block_of(torch.tensor([1.0, 2.0, 3.0])))
    assert torch.load(io.BytesIO(b"".join(parts))).tolist() == [1, 2, 3]
    others = {("uint8", (length,)): length for length in range(1, 2 * archive._TRIED_ALONE)}
    assert len(archives.share(others)) == archive._TRIED_ALONE - 1
    assert len(archives.share(others)) == len(others)  # seen before
