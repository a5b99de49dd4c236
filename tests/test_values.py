"""What becomes of every kind of value: for each writer it is stored right, or refused with an error that says why.

One table of values, each tried with each built-in writer, called directly, through `submit` and through `submit_batch`.
"""

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from format_rules import MASKED, RULES
from harness import results
from PIL import Image

from lighter_async import BackgroundWriter, WriteError, writer_registry

# What PyTorch itself says about its own kinds of tensor, when they are made and when they are saved.
pytestmark = [
    pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental"),
    pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
    pytest.mark.filterwarnings("ignore:(image_.d|jpeg|webp) got floats"),  # as `test_scale.py` has it
]

Refusal = tuple[type[Exception], str]

INTEGERS = (TypeError, r"could mean labels or intensities; convert labels .* \.to\(torch\.uint8\)")
COMPLEX = (TypeError, r"an image cannot hold torch\.complex.*tensor\.abs\(\)")
SPARSE = (TypeError, r"an image is a dense tensor, not a torch\.sparse_(coo|csr) one; write tensor\.to_dense\(\)")
NESTED = (TypeError, r"not a nested one; write its parts one by one")
QUANTISED = (TypeError, r"no quantised tensor \(torch\.qu?int8\); write tensor\.dequantize\(\)")
NO_IMAGE = (TypeError, r"an image is a tensor or a numpy array, not \w+")
NO_PIXELS = (TypeError, r"an image cannot hold numpy's .*; convert it to float32 or uint8")
NO_DATA = (ValueError, r"on the meta device and has no data to write")


class Tagged(torch.Tensor):
    """A user's subclass."""


class Marked(np.ndarray):
    """A user's subclass of numpy's, as `numpy.memmap` is one."""


@dataclass(frozen=True)
class Case:
    """A kind of value.

    Attributes:
        make: Makes one of a given shape.
        image: How the image writers refuse it; None where they store it.
        tensor: How `write_tensor` refuses it; None where it stores it.
        stack: Makes a batch of two of it; None where there is no such batch.
        weights_only: Whether `torch.load` reads it back with its default of loading nothing but tensors.
        handed_over: Whether the service refuses it already when it is handed over.
    """

    make: Callable[[tuple[int, ...]], Any]
    image: Refusal | None = None
    tensor: Refusal | None = None
    stack: Callable[[Any], Any] | None = lambda value: torch.stack([value, value])
    weights_only: bool = True
    handed_over: bool = False


def uniform(shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(len(shape)))


def wide(shape):
    """Values on both sides of [0, 1]."""
    return uniform(shape) * 2 - 0.5


def of_dtype(dtype):
    if dtype.is_complex:
        return lambda shape: torch.complex(wide(shape), uniform(shape)).to(dtype)
    if dtype.is_floating_point:
        return lambda shape: wide(shape).to(dtype)
    return lambda shape: (uniform(shape) * 5).to(dtype)


def not_finite(dtype):
    def make(shape):
        value = wide(shape).to(dtype)
        value.view(-1)[:3] = torch.tensor([float("nan"), float("inf"), -float("inf")], dtype=dtype)
        return value

    return make


def inferred(make):
    def under_inference_mode(shape):
        with torch.inference_mode():
            return make(shape)

    return under_inference_mode


def stack_inferred(value):
    with torch.inference_mode():
        return torch.stack([value, value])


def labels(shape):
    return (uniform(shape) * 3).to(torch.uint8)


def strided(shape):
    """Every second element of something larger."""
    larger = wide((*shape[:-1], 2 * shape[-1]))
    return larger[..., ::2]


def nested(layout):
    return lambda shape: torch.nested.nested_tensor([uniform((2, 5)), uniform((3, 5))], layout=layout)


def array(dtype, change=lambda value: value):
    return lambda shape: change((wide(shape) * (1 if np.dtype(dtype).kind == "f" else 5)).numpy().astype(dtype))


def object_array(shape):
    value = np.empty(shape, object)
    value[...] = "a"
    return value


def read_only(value):
    value.flags.writeable = False
    return value


def arrays(make, **rest):
    return Case(make, stack=lambda value: np.stack([value, value]), weights_only=False, **rest)


def objects(value):
    return Case(lambda shape: value, NO_IMAGE, stack=None)


CASES = {
    "float32": Case(wide),
    "float16": Case(of_dtype(torch.float16)),
    "bfloat16": Case(of_dtype(torch.bfloat16)),
    "float64": Case(of_dtype(torch.float64)),
    "float8_e4m3fn": Case(of_dtype(torch.float8_e4m3fn)),
    "float8_e5m2": Case(of_dtype(torch.float8_e5m2)),
    "uint8": Case(labels),
    "bool": Case(lambda shape: uniform(shape) > 0.5),
    "int8": Case(of_dtype(torch.int8), INTEGERS),
    "int16": Case(of_dtype(torch.int16), INTEGERS),
    "int32": Case(of_dtype(torch.int32), INTEGERS),
    "int64": Case(of_dtype(torch.int64), INTEGERS),
    "uint16": Case(of_dtype(torch.uint16), INTEGERS),
    "uint32": Case(of_dtype(torch.uint32), INTEGERS),
    "uint64": Case(of_dtype(torch.uint64), INTEGERS),
    "complex32": Case(of_dtype(torch.complex32), COMPLEX),
    "complex64": Case(of_dtype(torch.complex64), COMPLEX),
    "complex128": Case(of_dtype(torch.complex128), COMPLEX),
    "nan and inf": Case(not_finite(torch.float32)),
    "nan and inf, float16": Case(not_finite(torch.float16)),
    "nan and inf, bfloat16": Case(not_finite(torch.bfloat16)),
    "permuted": Case(lambda shape: wide(shape[::-1]).permute(*range(len(shape) - 1, -1, -1))),
    "strided": Case(strided),
    "channels last": Case(lambda shape: wide((*shape[1:], shape[0])).movedim(-1, 0)),
    "expanded": Case(lambda shape: wide((1, *shape[1:])).expand(shape), stack=lambda v: v.expand(2, *v.shape)),
    "part of larger": Case(lambda shape: wide((4, *shape))[1]),
    "requires_grad": Case(lambda shape: wide(shape).requires_grad_()),
    "with a graph": Case(lambda shape: wide(shape).requires_grad_() * 0.5),
    "conj": Case(lambda shape: of_dtype(torch.complex64)(shape).conj(), COMPLEX),
    "imag": Case(lambda shape: of_dtype(torch.complex64)(shape).imag),
    "imag of conj": Case(lambda shape: of_dtype(torch.complex64)(shape).conj().imag),
    "inference": Case(inferred(wide), stack=stack_inferred),
    "inference view": Case(inferred(strided), stack=stack_inferred),
    "inference sparse": Case(inferred(lambda shape: uniform(shape).to_sparse()), SPARSE, stack=stack_inferred),
    "parameter": Case(lambda shape: torch.nn.Parameter(wide(shape))),
    "subclass": Case(lambda shape: wide(shape).as_subclass(Tagged), weights_only=False),
    "sparse COO": Case(lambda shape: uniform(shape).to_sparse(), SPARSE),
    "sparse CSR": Case(lambda shape: uniform(shape).to_sparse_csr(), SPARSE, stack=None),
    "quantised": Case(lambda shape: torch.quantize_per_tensor(uniform(shape), 0.1, 3, torch.quint8), QUANTISED),
    "quantised by channel": Case(
        lambda shape: torch.quantize_per_channel(
            uniform(shape), torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0, 1, 2]), 0, torch.qint8
        ),
        QUANTISED,
        stack=None,
    ),
    "nested": Case(nested(torch.strided), NESTED, stack=None),
    "nested, jagged": Case(nested(torch.jagged), NESTED, stack=None),
    "oneDNN": Case(
        lambda shape: wide(shape).to_mkldnn(),
        (TypeError, r"not a torch\._mkldnn one; write tensor\.to_dense\(\)"),
        (TypeError, r"layout torch\._mkldnn cannot be saved; write tensor\.to_dense\(\)"),
        stack=None,
    ),
    "meta": Case(lambda shape: torch.empty(shape, device="meta"), NO_DATA, NO_DATA, handed_over=True),
    "array": arrays(array("f8")),
    "array, float32": arrays(array("f4")),
    "array, float16": arrays(array("f2")),
    "array, uint8": arrays(array("u1", lambda value: value % 3)),
    "array, bool": arrays(array("f4", lambda value: value > 0.5)),
    "array, int64": arrays(array("i8"), image=INTEGERS),
    "array, uint16": arrays(array("u2", lambda value: value % 5), image=INTEGERS),
    "array, complex": arrays(array("f8", lambda value: value + 1j), image=COMPLEX),
    "array, negative strides": arrays(array("f4", lambda value: value[::-1, ..., ::-1])),
    "array, big-endian": arrays(array(">f4")),
    "array, read-only": arrays(array("f4", read_only)),
    "array, subclass": Case(
        array("f4", lambda value: value.view(Marked)),
        stack=lambda value: np.stack([value, value]).view(Marked),
        weights_only=False,
    ),
    "array, masked": Case(
        array("f4", lambda value: np.ma.array(value, mask=value > 0.5)),
        MASKED,
        stack=lambda value: np.ma.stack([value, value]),
        weights_only=False,
    ),
    "array, nothing masked": Case(
        array("f4", lambda value: np.ma.array(value, mask=np.zeros(value.shape, bool))),
        stack=lambda value: np.ma.stack([value, value]),
        weights_only=False,
    ),
    "array, long double": arrays(array(np.longdouble), image=NO_PIXELS),
    "array, structured": arrays(lambda shape: np.ones(shape, [("a", "f4"), ("b", "i2")]), image=NO_PIXELS),
    "array, strings": arrays(lambda shape: np.full(shape, "abc"), image=NO_PIXELS),
    "array, dates": arrays(lambda shape: np.full(shape, np.datetime64("2020-02-02")), image=NO_PIXELS),
    "array, objects": arrays(object_array, image=NO_PIXELS),
    "numpy bool": Case(lambda shape: np.bool_(True), NO_IMAGE, stack=None, weights_only=False),
    "numpy number": Case(lambda shape: np.float32(0.5), NO_IMAGE, stack=None, weights_only=False),
    "string": objects("hello"),
    "number": objects(3),
    "none": objects(None),
    "list": objects([1, "a", None]),
    "dict": objects({"a": [1.5, 2]}),
    "tensor in a dict": Case(lambda shape: {"a": wide(shape), "b": [wide(shape)]}, NO_IMAGE, stack=None),
}

SHAPES = {"tensor": (3, 4, 5), "image_2d": (3, 4, 5), "image_3d": (3, 2, 4, 5), "text": (3, 4, 5), "npy": (3, 4, 5)}
SHAPES |= {writer: rule.shape for writer, rule in RULES.items()}
WAYS = ["directly", "submit", "submit_batch"]


def every(writer, *, way):
    return [name for name, case in CASES.items() if way != "submit_batch" or case.stack is not None]


def tried(*writers):
    return pytest.mark.parametrize(
        ("writer", "way", "name"),
        [
            pytest.param(writer, way, name, id=f"{writer}-{way}-{name}", marks=long_out_of_turn(writer, way, name))
            for writer in writers
            for way in WAYS
            for name in every(writer, way=way)
        ],
    )


def long_out_of_turn(writer, way, name):
    """Each value is tried with each writer in one way, which changes from writer to writer; the others are long.

    What a service does with a value before it is encoded does not depend on the writer. With `tensor` no way is long.
    """
    ways = [way for way in WAYS if name in every(writer, way=way)]
    turn = list(CASES).index(name) + list(SHAPES).index(writer)
    return [] if writer == "tensor" or way == ways[turn % len(ways)] else [pytest.mark.long]


def write(writer, way, case, value, folder):
    """Write a value in one of the ways; returns the file's bytes."""
    if way == "directly":
        writer_registry.get(writer)(folder / "case", value)
    elif way == "submit":
        with BackgroundWriter(writer, folder, backend="thread") as background:
            background.submit("case", value)
    else:
        with BackgroundWriter(writer, folder, backend="thread") as background:
            background.submit_batch(["other", "case"], case.stack(value))
    (file,) = folder.glob("case*")
    return file.read_bytes()


def check_refused(refusal, writer, way, case, value, folder):
    kind, text = refusal
    if way == "directly" or case.handed_over:
        with pytest.raises(kind, match=text):
            write(writer, way, case, value, folder)
    else:
        with pytest.raises(WriteError, match=f"writer '{writer}' failed on ") as caught:
            write(writer, way, case, value, folder)
        failures = caught.value.failures
        assert len(failures) == (2 if way == "submit_batch" else 1)
        for failure in failures:
            assert isinstance(failure.cause, kind)
            assert re.search(text, str(failure.cause))
    assert results(folder) == []


def bits(tensor):
    return tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)


def check_same(loaded, value):
    if not isinstance(value, torch.Tensor):
        if isinstance(value, dict):
            assert loaded.keys() == value.keys()
            for key in value:
                check_same(loaded[key], value[key])
        elif isinstance(value, list):
            assert len(loaded) == len(value)
            for one, other in zip(loaded, value, strict=True):
                check_same(one, other)
        elif isinstance(value, np.ndarray):
            # Pickle brings arrays into the machine's byte order.
            assert (type(loaded), loaded.shape) == (type(value), value.shape)
            assert loaded.dtype == value.dtype.newbyteorder("=")
            assert loaded.tolist() == value.tolist()
        else:
            assert type(loaded) is type(value)
            assert loaded == value
        return
    assert (loaded.dtype, loaded.layout, loaded.device.type) == (value.dtype, value.layout, "cpu")
    assert type(loaded) is (torch.Tensor if type(value) is torch.nn.Parameter else type(value))
    assert not loaded.requires_grad
    if value.is_nested:
        for one, other in zip(loaded.unbind(), value.unbind(), strict=True):
            check_same(one, other)
        return
    assert loaded.shape == value.shape
    if value.is_quantized:
        assert loaded.qscheme() == value.qscheme()
        assert torch.equal(loaded.int_repr(), value.int_repr())
        assert torch.equal(loaded.dequantize(), value.dequantize())
    elif value.layout is not torch.strided:
        assert torch.equal(loaded.to_dense(), value.to_dense())
    else:
        assert torch.equal(bits(loaded), bits(value))


def formula(value):
    """The pixels that a value has by definition."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.array(value, value.dtype.newbyteorder("="), order="C", subok=False))
    if value.dtype is torch.uint8:
        return value
    if value.dtype is torch.bool:
        return value.to(torch.uint8) * 255
    return (value.detach().float().clamp(0, 1) * 255).to(torch.uint8)


def decoded(png):
    """CHW pixels of a PNG, as Pillow reads them."""
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        pixels = torch.from_numpy(np.array(image))
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.movedim(-1, 0)


@tried("tensor")
def test_a_tensor_file_holds_the_value_exactly(tmp_path, writer, way, name):
    """torch.load gives back the same bits, dtype, shape, layout and kind, without gradients."""
    case = CASES[name]
    value = case.make(SHAPES[writer])
    if case.tensor is not None:
        if way == "directly" and name == "meta":
            case = Case(case.make, tensor=(NotImplementedError, "Cannot copy out of meta tensor; no data!"))
        check_refused(case.tensor, writer, way, case, value, tmp_path)
        return
    content = write(writer, way, case, value, tmp_path)
    if not case.weights_only:
        with pytest.raises(Exception, match="weights_only"):
            torch.load(io.BytesIO(content))
    check_same(torch.load(io.BytesIO(content), weights_only=case.weights_only), value)


@tried("image_2d", "image_3d")
def test_an_image_file_holds_the_documented_pixels_or_there_is_none(tmp_path, writer, way, name):
    """Pixels equal the formula exactly; what has no one meaning as pixels is refused with the remedy."""
    case = CASES[name]
    shape = SHAPES[writer]
    if name == "sparse CSR":
        shape = (3, 4, 5)  # it has no further dimensions
    value = case.make(shape)
    if case.image is not None:
        if way == "directly" and name == "meta":
            case = Case(case.make, image=(NotImplementedError, "Cannot copy out of meta tensor; no data!"))
        check_refused(case.image, writer, way, case, value, tmp_path)
        return
    expected = formula(value)
    if writer == "image_3d":
        channels, depth, height, width = shape
        expected = expected.reshape(channels, depth * height, width)
    assert torch.equal(decoded(write(writer, way, case, value, tmp_path)), expected)


@tried("text")
def test_a_text_file_holds_the_string_of_the_value(tmp_path, writer, way, name):
    """It is str(value); through the service a tensor has left its gradients behind."""
    case = CASES[name]
    value = case.make(SHAPES[writer])
    if case.handed_over and way != "directly":
        check_refused(NO_DATA, writer, way, case, value, tmp_path)
        return
    content = write(writer, way, case, value, tmp_path).decode()
    if way != "directly" and isinstance(value, torch.Tensor):
        value = value.detach()
    assert content == str(value)


def without_numpy(value):
    """How a value is refused that a file of numpy's cannot hold; None of one that it can."""
    if np.ma.is_masked(value):
        return MASKED
    if isinstance(value, np.ndarray):
        return (TypeError, "an array of objects is pickled") if value.dtype.hasobject else None
    if isinstance(value, np.generic):
        return None
    if not isinstance(value, torch.Tensor):
        return TypeError, rf"a tensor or a numpy array can be written here, not {type(value).__name__}"
    if value.is_meta:
        return NO_DATA
    if value.is_nested:
        return TypeError, "not a nested tensor; write its parts one by one"
    if value.is_quantized:
        return TypeError, r"has no quantised arrays .* write tensor\.dequantize\(\)"
    if value.layout is not torch.strided:
        return TypeError, r"one dense array, not a torch\.\w+ tensor; write tensor\.to_dense\(\)"
    name = str(value.dtype).removeprefix("torch.")
    return None if hasattr(np, name) or name == "bool" else (TypeError, f"a numpy file cannot hold '{name}'; convert")


@tried("npy")
def test_a_numpy_file_is_what_numpy_saves(tmp_path, writer, way, name):
    """The same bytes; what numpy does not have is refused with the remedy."""
    case = CASES[name]
    value = case.make(SHAPES[writer])
    refusal = without_numpy(value)
    if refusal is not None:
        if way == "directly" and name == "meta":
            refusal = NotImplementedError, "Cannot copy out of meta tensor; no data!"
        check_refused(refusal, writer, way, case, value, tmp_path)
        return
    content = write(writer, way, case, value, tmp_path)
    # Stacked, an array is in the machine's byte order.
    plain = case.stack(value)[1] if way == "submit_batch" and isinstance(value, np.ndarray) else value
    if isinstance(value, torch.Tensor):
        plain = value.detach().resolve_conj().resolve_neg().contiguous().as_subclass(torch.Tensor).numpy()
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(plain, order="C"))
    assert content == buffer.getvalue()
    loaded = np.load(io.BytesIO(content))
    assert writer_registry.get(writer).decode(content).tobytes() == loaded.tobytes()


@tried(*RULES)
def test_a_file_of_another_format_holds_the_value_or_there_is_none(tmp_path, writer, way, name):
    """The format's own package reads it; what it cannot hold is refused with the remedy (`format_rules.py`)."""
    case, rule = CASES[name], RULES[writer]
    value = case.make((3, 4, 5) if name == "sparse CSR" else rule.shape)
    refusal = rule.refusal(value)
    if refusal is not None:
        if way == "directly" and name == "meta":
            refusal = NotImplementedError, "Cannot copy out of meta tensor; no data!"
        check_refused(refusal, writer, way, case, value, tmp_path)
        return
    rule.check(write(writer, way, case, value, tmp_path), value)


_USUAL = {"tensor"}


@pytest.mark.parametrize(
    "writer",
    [writer if writer in _USUAL else pytest.param(writer, marks=pytest.mark.long) for writer in SHAPES],
)
def test_helpers_make_of_every_value_what_threads_make_of_it(tmp_path, writer):
    """The same pixels, bits, texts and refusals, all of them in one batch."""
    cases = {name: case for name, case in CASES.items() if not case.handed_over}
    names = {f"{number:03}": name for number, name in enumerate(cases)}
    shapes = {name: (3, 4, 5) if name == "sparse CSR" else SHAPES[writer] for name in cases}
    values = {number: cases[name].make(shapes[name]) for number, name in names.items()}
    refused = {}
    for backend in ("thread", "process"):
        service = BackgroundWriter(writer, tmp_path / backend, backend=backend, max_workers=1, queue_size=1000)
        service.submit_batch(list(values), list(values.values()))
        failures = ()
        try:
            service.close()
        except WriteError as error:
            failures = error.failures
        refused[backend] = {one.name: (type(one.cause), str(one.cause)) for one in failures}
    assert refused["process"] == refused["thread"]
    files = {path.name for path in results(tmp_path / "thread")}
    assert files == {path.name for path in results(tmp_path / "process")}
    assert len(files) + len(refused["thread"]) == len(cases)
    for file in files:
        number = file.split(".")[0]
        one, other = ((tmp_path / backend / file).read_bytes() for backend in ("thread", "process"))
        if writer.startswith("image"):
            assert torch.equal(decoded(one), decoded(other)), names[number]
        elif writer == "text":
            # The sizes of jagged tensors are numbered by the process that they are in.
            assert re.sub(rb"\bj\d+\b", b"j", one) == re.sub(rb"\bj\d+\b", b"j", other), names[number]
        elif writer == "npy":
            assert one == other, names[number]
        elif writer in RULES:
            assert RULES[writer].comparable(one) == RULES[writer].comparable(other), names[number]
        else:
            loaded = torch.load(io.BytesIO(other), weights_only=cases[names[number]].weights_only)
            check_same(loaded, values[number])


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="numpy 1 has no such dtype")
@pytest.mark.parametrize("writer", ["image_2d", "jpeg", "webp"])
def test_texts_of_any_length_are_no_image(writer):
    """numpy's newer dtype of texts has no byte order to be asked for."""
    text = np.array([["a", "bb"]], dtype=np.dtypes.StringDType())
    with pytest.raises(
        TypeError, match=r"an image cannot hold numpy's StringDType\(\); convert it to float32 or uint8"
    ):
        writer_registry.get(writer).encode(text)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("writer", ["tensor", "text", "npy"])
@pytest.mark.parametrize("make", [torch.zeros, np.zeros], ids=["torch", "numpy"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 5), (0, 4, 5)], ids=str)
def test_values_without_dimensions_or_elements_are_stored(tmp_path, shape, make, writer, way):
    """A 0-d value and one with a zero-sized dimension are values like others."""
    value = make(shape)
    stack = torch.stack if make is torch.zeros else np.stack
    content = write(writer, way, Case(make, stack=lambda value: stack([value, value])), value, tmp_path)
    if writer == "text":
        assert content.decode() == str(value)
    elif writer == "npy":
        loaded = np.load(io.BytesIO(content))
        assert (loaded.shape, loaded.tolist()) == (value.shape, value.tolist())
    else:
        check_same(torch.load(io.BytesIO(content), weights_only=make is torch.zeros), value)


IMAGE_SHAPES = {
    "image_2d": {
        (): "expects a 3D tensor (CHW), got 0 dimensions of shape ()",
        (5,): "got 1 dimensions of shape (5,)",
        (4, 5): "got 2 dimensions of shape (4, 5); tensor.unsqueeze(0) adds the channel",
        (3, 4, 5, 6): "got 4 dimensions of shape (3, 4, 5, 6); write_image_3d takes CDHW",
        (1, 1, 3, 4, 5): "got 5 dimensions",
        (0, 4, 5): "an image has 1, 3 or 4 channels, got 0 in shape (0, 4, 5)",
        (2, 4, 5): "an image has 1, 3 or 4 channels, got 2 in shape (2, 4, 5)",
        (5, 4, 3): "got 5 in shape (5, 4, 3); tensor.movedim(-1, 0) makes CHW of HWC",
        (3, 0, 5): "an image needs at least one pixel, got shape (3, 0, 5)",
        (3, 4, 0): "an image needs at least one pixel, got shape (3, 4, 0)",
        (0,): "got 1 dimensions of shape (0,)",
        (1, 1, 1): None,
        (1, 4, 5): None,
        (3, 4, 5): None,
        (4, 4, 5): None,
        (1, 1, 300): None,
        (1, 300, 1): None,
    },
    "image_3d": {
        (): "expects a 4D tensor (CDHW), got 0 dimensions of shape ()",
        (4, 5): "got 2 dimensions of shape (4, 5)",
        (2, 4, 5): "got 3 dimensions of shape (2, 4, 5); tensor.unsqueeze(0) adds the channel",
        (1, 1, 3, 4, 5): "got 5 dimensions",
        (2, 3, 4, 5): "an image has 1, 3 or 4 channels, got 2",
        (3, 0, 4, 5): "an image needs at least one pixel",
        (3, 2, 0, 5): "an image needs at least one pixel",
        (3, 2, 4, 0): "an image needs at least one pixel",
        (1, 1, 1, 1): None,
        (1, 7, 4, 5): None,
        (3, 2, 4, 5): None,
        (4, 1, 4, 5): None,
    },
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("writer", "shape", "refusal"),
    [
        pytest.param(writer, shape, refusal, id=f"{writer}-{shape}")
        for writer, shapes in IMAGE_SHAPES.items()
        for shape, refusal in shapes.items()
    ],
)
@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_an_image_of_another_shape_is_refused_with_the_way_out(tmp_path, kind, writer, shape, refusal, way):
    """Rank, channels and sizes: grey, RGB and RGBA are stored, everything else is a ValueError that tells the shape."""
    value = wide(shape)
    case = Case(wide)
    if kind == "numpy":
        value = value.numpy()
        case = arrays(wide)
    if refusal is not None:
        check_refused((ValueError, re.escape(refusal)), writer, way, case, value, tmp_path)
        return
    pixels = decoded(write(writer, way, case, value, tmp_path))
    assert pixels.shape == (shape[0], math.prod(shape[1:-1]), shape[-1])
    assert torch.equal(pixels, formula(value).reshape(pixels.shape))
