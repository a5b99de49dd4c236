"""What single formats promise beside the table of values and the contract: files of their packages, and of anybody."""

import enum
import io
import json
import re
import struct
import textwrap

import numpy as np
import psutil
import pytest
import safetensors
import safetensors.torch
import tifffile
import torch
import yaml
from harness import run_script
from PIL import Image

from lighter_async import BackgroundWriter, ReadError, WriteError, open_results, writer_registry
from lighter_async.writers.dense import block_of
from lighter_async.writers.image import to_pixels
from lighter_async.writers.jpeg import write_jpeg
from lighter_async.writers.json import write_json
from lighter_async.writers.safetensors import decode_safetensors, write_safetensors
from lighter_async.writers.text import write_text
from lighter_async.writers.tiff import write_tiff
from lighter_async.writers.webp import write_webp

pytestmark = pytest.mark.usefixtures("one_core")


def noise(*shape, dtype=torch.float32):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 100).to(dtype)


def encoded(encoder, value):
    return b"".join(encoder.encode(value))


def helpers_of(service):
    return [
        psutil.Process(member.process.popen.pid) for member in service._lifecycle.backend._helpers.members if member
    ]


def check_refused(folder, writer, data):
    """A damaged file fails, directly and by its sample's name, as an exception and not as a crash."""
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it is, it is told as the sample's
        writer.decode(data)
    with BackgroundWriter(writer, folder, backend="thread") as background:
        background.submit("a", noise(3, 8, 8) / 100)
    (file,) = folder.glob("a.*")
    file.write_bytes(data)
    with pytest.raises(ReadError, match="'a'"):
        open_results(folder, check=False)["a"]


# Containers of tensors


@pytest.mark.parametrize("writer", ["json", "safetensors"])
def test_tensors_inside_of_a_value_need_no_torch_in_a_helper(tmp_path, writer):
    """Dicts of tensors travel as plain memory, of tensors of a user's class, too."""

    class Tagged(torch.Tensor):
        pass

    values = [{"a": noise(2, 3), "b": torch.tensor(i), "none": torch.zeros(0)} for i in range(3)]
    with BackgroundWriter(writer, tmp_path, backend="process", max_workers=1) as background:
        background.submit("single", {"a": noise(2).as_subclass(Tagged), "b": np.arange(3)})
        background.submit_batch(["0", "1", "2"], values)
        background.submit_batch(["rows-0", "rows-1"], noise(2, 4))
        background.submit_batch(["tagged-0", "tagged-1"], noise(2, 4).as_subclass(Tagged))
        background.flush()
        for helper in helpers_of(background):
            assert not [one.path for one in helper.memory_maps() if "torch" in one.path]
    results = open_results(tmp_path)
    for name, value in {"0": values[0], "2": values[2], "rows-1": noise(2, 4)[1], "tagged-1": noise(2, 4)[1]}.items():
        assert results.read_bytes(name) == encoded(writer_registry.get(writer), value)


# safetensors


def test_tensors_by_name_are_the_bytes_of_the_package():
    """In its order, whatever they are called, with what it says of them."""
    dtypes = (
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
        torch.bfloat16,
        torch.float16,
    )
    dtypes += (torch.int16, torch.uint16, torch.int32, torch.float32, torch.complex64, torch.int64, torch.float64)
    dtypes += (torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.uint32, torch.uint64)
    tensors = {f"{name}.{dtype}": torch.zeros(3).to(dtype) for dtype in dtypes for name in ("b", "é\n", "a", 'q"')}
    tensors |= {"0-d": torch.tensor(1.5), "none": torch.zeros(0, 3), "view": noise(4, 6).t()[1:]}
    theirs = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    assert encoded(write_safetensors, tensors) == theirs
    assert decode_safetensors(theirs).keys() == tensors.keys()


def test_texts_beside_the_tensors_are_read_by_the_package(tmp_path):
    """As those that tell a library what the tensors are for."""
    write_safetensors(tmp_path / "a", {"x": noise(3)}, metadata={"format": "pt", "model": "ä"})
    with safetensors.safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "model": "ä"}
        assert torch.equal(file.get_tensor("x"), noise(3))
    assert decode_safetensors((tmp_path / "a.safetensors").read_bytes())["x"].tolist() == noise(3).tolist()


def test_a_tensor_without_a_name_is_read_back_as_a_tensor(tmp_path):
    """It has the documented key, and an array of all can be made."""
    with BackgroundWriter("safetensors", tmp_path) as writer:
        writer.submit_batch(["a", "b"], noise(2, 5, dtype=torch.bfloat16))
    results = open_results(tmp_path)
    assert torch.equal(results["b"], noise(2, 5, dtype=torch.bfloat16)[1])
    assert safetensors.torch.load_file(tmp_path / "b.safetensors").keys() == {"value"}
    with BackgroundWriter("safetensors", tmp_path / "named", writer_options={"key": "logits"}) as writer:
        writer.submit("a", noise(5))
    assert safetensors.torch.load_file(tmp_path / "named" / "a.safetensors").keys() == {"logits"}
    options = write_safetensors.with_options(key="logits")
    assert torch.equal(open_results(tmp_path / "named", decode=options)["a"], noise(5))


def of_header(about, payload=b"\0" * 64):
    text = about if isinstance(about, bytes) else json.dumps(about).encode()
    return struct.pack("<Q", len(text)) + text + payload


HOSTILE_TENSORS = {
    "nothing": b"",
    "a header longer than the file": struct.pack("<Q", 1 << 40) + b"{}",
    "no JSON": of_header(b"{not json}"),
    "a list": of_header(b"[]"),
    "deep": of_header(b"[" * 100_000),
    "no dtype": of_header({"a": {"shape": [1], "data_offsets": [0, 4]}}),
    "an unknown dtype": of_header({"a": {"dtype": "__class__", "shape": [1], "data_offsets": [0, 4]}}),
    "beyond the end": of_header({"a": {"dtype": "F32", "shape": [100], "data_offsets": [0, 400]}}),
    "a huge shape": of_header({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}),
    "a negative shape": of_header({"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}),
    "offsets that go back": of_header({"a": {"dtype": "U8", "shape": [0], "data_offsets": [8, 4]}}),
    "offsets that are no numbers": of_header({"a": {"dtype": "U8", "shape": [1], "data_offsets": ["0", "1"]}}),
}


@pytest.mark.parametrize("data", HOSTILE_TENSORS.values(), ids=HOSTILE_TENSORS)
def test_a_safetensors_file_of_anybody_is_refused(tmp_path, data):
    """No memory is taken for what it does not hold."""
    check_refused(tmp_path, write_safetensors, data)


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ({"boxes": torch.ones(2), "n": 3}, TypeError, "'n': a tensor or a numpy array can be written here, not int"),
        ({"a": torch.ones(2, dtype=torch.complex128)}, TypeError, "'a': a safetensors file cannot hold 'complex128'"),
        ({"a": np.ma.array([1, 2], mask=[0, 1])}, TypeError, "'a': a masked array would lose its mask"),
        ({"\ud800": torch.ones(2)}, ValueError, r"'\\ud800' is no valid text"),
    ],
)
def test_what_safetensors_cannot_hold_is_refused_by_its_name(value, kind, text):
    """There may be many in a dict."""
    with pytest.raises(kind, match=text):
        write_safetensors.encode(value)


# JSON


def test_numbers_that_json_lacks_are_refused_or_written_as_the_user_says(tmp_path):
    """With the place in the value, in lists of numbers and in tensors."""
    value = {"scores": [0.5, float("nan")], "boxes": torch.tensor([[1.0, float("-inf")]])}
    with pytest.raises(ValueError, match=r"value\['scores'\]\[1\] is nan, which JSON lacks; .*not_finite='null'"):
        write_json.encode(value)
    with pytest.raises(ValueError, match=r"value\['boxes'\]\[0\]\[1\] is -inf"):
        write_json.encode({"boxes": value["boxes"]})
    null = encoded(write_json.with_options(not_finite="null"), value)
    assert null == b'{"scores":[0.5,null],"boxes":[[1.0,null]]}'
    literal = encoded(write_json.with_options(not_finite="literal"), value)
    assert literal == b'{"scores":[0.5,NaN],"boxes":[[1.0,-Infinity]]}'
    assert json.loads(literal)["boxes"] == write_json.decode(literal)["boxes"] == [[1.0, float("-inf")]]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": {"b": {3: 1}}}, r"value\['a'\]\['b'\] has the key 3, and JSON's are texts"),
        ({"a": [1, {2}]}, r"value\['a'\]\[1\] is a set, which JSON lacks; write a dict, a list"),
        ([b"raw"], r"value\[0\] is bytes, which JSON lacks; write base64"),
        ({"a": np.ones(2, complex)}, r"value\['a'\] is of dtype complex128"),
        (Exception("x"), "the value is an Exception, which JSON lacks; write"),
        ({"a": np.ma.array([1, 2], mask=[0, 1])}, r"value\['a'\] cannot be a list: a masked array"),
    ],
)
def test_what_json_lacks_is_refused_with_its_place_and_the_way_out(value, text):
    """A key that is no text would be read back as another one."""
    with pytest.raises(TypeError, match=text):
        write_json.encode(value)


class Label(str, enum.Enum):
    CAT = "cat"


class Loud(str):
    """Prints otherwise than it is."""

    def __str__(self):
        return self.upper() + "!"


class Anything(str):
    """Equal to nothing but itself."""

    __hash__ = object.__hash__

    def __eq__(self, other):
        return self is other


class Rank(enum.IntEnum):
    FIRST = 1


class Metres(float):
    """Prints otherwise than it is."""

    def __repr__(self):
        return f"{float(self)} m"


@pytest.mark.parametrize("options", [{}, {"not_finite": "literal"}, {"indent": 1}], ids=str)
def test_texts_and_numbers_of_a_class_of_their_own_are_what_they_equal(options):
    """As keys and as values, whatever they print."""
    value = {Label.CAT: Label.CAT, Loud("key"): [Loud("text"), np.str_("a\0")], "n": (Rank.FIRST, Metres(2.5), True)}
    found = write_json.decode(encoded(write_json.with_options(**options), value))
    assert found == {"cat": "cat", "key": ["text", "a\0"], "n": [1, 2.5, True]}
    with pytest.raises(ValueError, match=r"value\['n'\] is nan"):
        write_json.encode({"n": Metres("nan")})


def holding_itself():
    value = []
    value.append({"a": value})
    return value


def nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("options", [{}, {"not_finite": "literal"}, {"indent": 1}], ids=str)
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": ["x", "\ud800"]}, r"value\['a'\]\[1\] is no valid text: '\\ud800' .*; replace what is not"),
        ({"a": {"\udcff": 1}}, r"value\['a'\]\['\\udcff'\] is no valid text"),
        ("\ud800", "the value is no valid text"),
        ([1, 10**5000], r"value\[1\] is a number of too many digits .*; write hex\(value\)"),
        ({Anything("a"): 1, Anything("a"): 2}, "the value has two keys of the same text"),
        (nested(100_000), "the value holds itself, or has more levels"),
        (holding_itself(), "the value holds itself"),
    ],
    ids=["text", "key", "alone", "digits", "two keys", "deep", "itself"],
)
def test_what_json_cannot_write_is_refused_with_its_place(value, text, options):
    """The encoder's own words would not say where it is."""
    with pytest.raises(ValueError, match=text):
        write_json.with_options(**options).encode(value)


def test_json_is_read_back_as_it_was_written(tmp_path):
    """Numbers to their last bit, and a line for each in a file for people."""
    values = {"a": {"label": torch.tensor(3), "score": torch.tensor(0.1), "of": [1e300, -0.0]}, "b": "text", "c": None}
    with BackgroundWriter("json", tmp_path, writer_options={"indent": 2}) as writer:
        writer.submit_batch(list(values), list(values.values()))
    results = open_results(tmp_path)
    assert results["a"] == {"label": 3, "score": float(np.float32(0.1)), "of": [1e300, -0.0]}
    assert (results["b"], results["c"]) == ("text", None)
    assert (tmp_path / "a.json").read_text().startswith('{\n  "label": 3,\n')


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[" * 100_000, b"\xff", b"9" * 5000], ids=["none", "cut", "deep", "no text", "long"]
)
def test_json_of_anybody_is_refused(tmp_path, data):
    """Too deep, too long, cut, or none at all."""
    check_refused(tmp_path, write_json, data)


def test_a_sample_that_json_cannot_hold_fails_alone(tmp_path):
    """The others of its batch are stored."""
    with pytest.raises(WriteError, match=r"'b': ValueError: value\['x'\] is nan"):
        with BackgroundWriter("json", tmp_path) as writer:
            writer.submit_batch(["a", "b", "c"], [{"x": 1.0}, {"x": float("nan")}, {"x": 2.0}])
    assert sorted(open_results(tmp_path)) == ["a", "c"]


@pytest.mark.parametrize(
    ("writer", "options", "text"),
    [
        ("safetensors", {"metadata": {"epoch": 3}}, r"texts to texts, and 3 in it is none; use str\(value\)"),
        ("safetensors", {"metadata": "pt"}, "metadata is a dict from texts to texts, not 'pt'"),
        ("tiff", {"metadata": {"PhysicalSizeX": 1}}, "OME-TIFF, which has axes, too: give them, as in axes='CYX'"),
        ("tiff", {"axes": "CYX", "metadata": "x"}, "metadata is a dict, not 'x'"),
        (
            "jpeg",
            {"qualty": 3},
            r"'qualty'; its options are suffix, quality, .*; did you mean 'quality'\?$",
        ),
        ("jpeg", {"zzz": 3}, "'zzz'; its options are suffix, quality, subsampling, scale$"),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_wrong_with_it(writer, options, text):
    """And with the option that was meant, where it can be told."""
    with pytest.raises(TypeError, match=text):
        BackgroundWriter(writer, "somewhere", writer_options=options)


# Text


@pytest.mark.parametrize(
    ("encoding", "value", "found"),
    [
        ("cp932", "5 £", "￡"),
        ("shift_jis", "a ¥ b", r"\\\\ b"),
        ("raw_unicode_escape", r"a \u00e4", "ä"),
        ("idna", "Ärger", "ärger"),
    ],
)
def test_a_text_that_an_encoding_would_change_is_refused(tmp_path, encoding, value, found):
    """Some write another character that looks alike, and raise nothing."""
    with pytest.raises(WriteError, match=f"'a': ValueError: in encoding '{encoding}' the text is read as another one"):
        with BackgroundWriter("text", tmp_path, writer_options={"encoding": encoding}) as writer:
            writer.submit_batch(["a", "b"], [value, "plain"])
    assert dict(open_results(tmp_path)) == {"b": "plain"}
    with pytest.raises(ValueError, match=f": '{found}' instead of"):
        write_text.with_options(encoding=encoding).encode(value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig", "utf-7", "cp1252", "koi8-r", "gb18030"])
def test_a_text_is_read_back_in_its_encoding(tmp_path, encoding):
    """Which the run has recorded."""
    text = {"koi8-r": "д", "cp1252": "£"}.get(encoding, "\ufeffä+\\£😀")
    with BackgroundWriter("text", tmp_path, writer_options={"encoding": encoding}) as writer:
        writer.submit("a", text)
    assert open_results(tmp_path)["a"] == text


# Options


@pytest.mark.parametrize(
    ("writer", "options", "kind", "text"),
    [
        ("text", {"encoding": "rot13"}, LookupError, "'rot13' is not a text encoding"),
        ("text", {"encoding": "hex"}, LookupError, "'hex' is not a text encoding"),
        ("text", {"encoding": "no such"}, LookupError, "unknown encoding: no such"),
        ("text", {"encoding": None}, TypeError, "encoding is the name of one, such as 'utf-8', not None"),
        ("image_2d", {"compress_level": 2.0}, ValueError, r"compress_level is 0 to 12, not 2\.0"),
        ("image_3d", {"compress_level": True}, ValueError, "compress_level is 0 to 12, not True"),
        ("image_2d", {"codec": "pillow", "compress_level": 9.0}, ValueError, r"'pillow' is 0 to 9, not 9\.0"),
        ("jpeg", {"subsampling": yaml.safe_load("4:2:0")}, ValueError, "in YAML, 4:2:0 without quotes is a number"),
        ("json", {"not_finite": yaml.safe_load("null")}, ValueError, "in YAML, null without quotes is none"),
        ("safetensors", {"key": "\ud800"}, ValueError, "is no valid text"),
        ("safetensors", {"metadata": {"v": "\udcff"}}, ValueError, "is no valid text"),
    ],
)
def test_an_option_that_no_sample_could_be_written_with_is_refused(writer, options, kind, text):
    """When it is given, and not at each sample."""
    with pytest.raises(kind, match=text):
        writer_registry.get(writer).with_options(**options)


# JPEG and WebP


@pytest.mark.parametrize(
    ("writer", "shape", "text"),
    [
        ("jpeg", (4, 8, 8), r"1 or 3 channels here, got 4 in shape \(4, 8, 8\); JPEG has no alpha: write image\[:3\]"),
        ("jpeg", (2, 8, 8), r"1 or 3 channels here, got 2 in shape \(2, 8, 8\)$"),
        ("webp", (8, 8, 4), r"1, 3 or 4 channels here, got 8 .*; tensor.movedim\(-1, 0\) makes CHW of HWC"),
        ("webp", (8, 8), r"write_webp expects a 3D tensor \(CHW\), got 2 .*; tensor.unsqueeze\(0\) adds the channel"),
        ("jpeg", (1, 3, 0), r"at least one pixel, got shape \(1, 3, 0\)"),
        ("jpeg", (1, 65501, 1), "at most 65500 pixels on a side, .* image_2d writes PNG"),
        ("webp", (1, 1, 16384), "at most 16383 pixels on a side"),
    ],
)
@pytest.mark.parametrize("make", [torch.zeros, np.zeros], ids=["torch", "numpy"])
def test_an_image_of_another_shape_is_refused_with_the_way_out(make, writer, shape, text):
    """Also of a batch that lies in a worker's memory, whose block is left to the tensor."""
    with pytest.raises(ValueError, match=text):
        writer_registry.get(writer).encode(make(shape))


@pytest.mark.parametrize("writer", [write_jpeg, write_webp], ids=["jpeg", "webp"])
def test_pixels_made_on_a_device_give_the_same_file(writer):
    """A quarter of the bytes is copied."""
    values = noise(3, 9, 7) / 50 - 0.5
    assert writer.reduce(values).dtype is torch.uint8
    assert encoded(writer, writer.reduce(values)) == encoded(writer, values)


def test_webp_without_loss_is_read_back_exactly(tmp_path):
    """Grey with its one channel, and what is transparent with its colours."""
    values = {f"{channels}": noise(channels, 9, 7, dtype=torch.uint8) for channels in (1, 3, 4)}
    with BackgroundWriter("webp", tmp_path, writer_options={"lossless": True, "method": 0}) as writer:
        writer.submit_batch(list(values), list(values.values()))
    results = open_results(tmp_path)
    for name, value in values.items():
        np.testing.assert_array_equal(results[name], value.numpy(), strict=True)
    assert write_webp.decode(results.read_bytes("1")).shape == (3, 9, 7)  # a file alone does not tell
    with pytest.raises(ValueError, match="is no image of shape"):
        write_webp.decode(results.read_bytes("1"), shape=(1, 7, 9))


def of_pillow(kind, image, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb_of_jpeg():
    data = bytearray(encoded(write_jpeg, noise(3, 8, 8) / 100))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = (60_000).to_bytes(2, "big") * 2
    return bytes(data)


def bomb_of_webp():
    data = bytearray(encoded(write_webp.with_options(lossless=True), noise(3, 8, 8) / 100))
    data[21:25] = ((16_382 << 14) | 16_382).to_bytes(4, "little")
    return bytes(data)


JPEG = encoded(write_jpeg, noise(3, 64, 64) / 100)
WEBP = encoded(write_webp, noise(3, 64, 64) / 100)
HOSTILE_IMAGES = {
    "jpeg, none": ("jpeg", b""),
    "jpeg, cut": ("jpeg", JPEG[: len(JPEG) // 2]),
    "jpeg, a PNG": ("jpeg", of_pillow("PNG", Image.new("RGB", (8, 8)))),
    "jpeg, four inks": ("jpeg", of_pillow("JPEG", Image.new("CMYK", (8, 8)))),
    "jpeg, a bomb": ("jpeg", bomb_of_jpeg()),
    "webp, none": ("webp", b""),
    "webp, cut": ("webp", WEBP[: len(WEBP) // 2]),
    "webp, a PNG": ("webp", of_pillow("PNG", Image.new("RGB", (8, 8)))),
    "webp, a film": (
        "webp",
        of_pillow("WEBP", Image.new("RGB", (8, 8)), save_all=True, append_images=[Image.new("RGB", (8, 8), "red")]),
    ),
    "webp, a bomb": ("webp", bomb_of_webp()),
    "webp, of no kind": ("webp", WEBP[:12] + b"VP8?" + WEBP[16:]),
}


@pytest.mark.parametrize(("writer", "data"), HOSTILE_IMAGES.values(), ids=HOSTILE_IMAGES)
def test_an_image_of_anybody_is_refused(tmp_path, writer, data):
    """Before memory is taken for the pixels that it claims."""
    check_refused(tmp_path, writer_registry.get(writer), data)


# TIFF


def test_a_tiff_is_read_by_tifffile_and_by_pillow(tmp_path):
    """Pages of rows, of whole numbers with the predictor, of floats without."""
    stack = (noise(3, 64, 48) * 100).to(torch.int32).to(torch.uint16)
    with BackgroundWriter("tiff", tmp_path) as writer:
        writer.submit_batch(["stack", "page"], [stack, stack[0]])
        writer.submit("floats", noise(64, 48))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "stack.tif"), stack.numpy(), strict=True)
    with Image.open(tmp_path / "page.tif") as image:
        np.testing.assert_array_equal(np.array(image), stack[0].numpy())
    with Image.open(tmp_path / "floats.tif") as image:
        np.testing.assert_array_equal(np.array(image), noise(64, 48).numpy())
    np.testing.assert_array_equal(open_results(tmp_path)["stack"], stack.numpy(), strict=True)


def test_an_ome_tiff_has_its_axes_and_sizes(tmp_path):
    """As tifffile reads them of any microscope's file."""
    options = {"axes": "CZYX", "metadata": {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"}, "suffix": ".ome.tif"}
    value = noise(2, 3, 9, 7)
    with BackgroundWriter("tiff", tmp_path, writer_options=options) as writer:
        writer.submit_batch(["a", "b"], [value, value + 1])
    identifiers = set()
    for name, expected in {"a": value, "b": value + 1}.items():
        with tifffile.TiffFile(tmp_path / f"{name}.ome.tif") as file:
            assert (file.is_ome, file.series[0].axes, file.series[0].shape) == (True, "CZYX", (2, 3, 9, 7))
            assert 'PhysicalSizeX="0.5"' in file.ome_metadata
            np.testing.assert_array_equal(file.asarray(), expected.numpy())
            identifiers |= set(re.findall('UUID="([^"]*)"', file.ome_metadata))
    assert len(identifiers) == 2
    np.testing.assert_array_equal(open_results(tmp_path)["b"], (value + 1).numpy(), strict=True)


@pytest.mark.parametrize(
    ("options", "value", "kind", "text"),
    [
        ({"axes": "CYX"}, noise(9, 7), ValueError, r"axes='CYX' are 3, got 2 dimensions of shape \(9, 7\)"),
        ({"axes": "YX"}, noise(9, 7).half(), TypeError, "an OME-TIFF has no float16; without axes= a TIFF has it"),
        ({}, noise(9, 7).bfloat16(), TypeError, "a TIFF cannot hold 'bfloat16'; convert"),
        ({}, noise(9), ValueError, r"a TIFF is an array \(H, W\), .* got shape \(9,\)"),
    ],
)
def test_an_array_that_a_tiff_cannot_hold_is_refused(options, value, kind, text):
    """With what it can."""
    with pytest.raises(kind, match=text):
        write_tiff.with_options(**options).encode(value)


@pytest.mark.parametrize(
    ("metadata", "kind", "text"),
    [
        ({"PhysicalSizex": 0.5}, ValueError, "tifffile leaves 'PhysicalSizex' out of an OME-TIFF"),
        ({"PhysicalSizeX": 0.5, "Channel": {"Nmae": ["a", "b"]}}, ValueError, "tifffile leaves 'Channel' out"),
        ({"Description": "a\0b"}, ValueError, "tifffile makes no OME-TIFF of this metadata .ParseError"),
        ({"Description": "\ud800"}, ValueError, "tifffile makes no OME-TIFF of this metadata"),
        ({"DimensionOrder": "XYCZT"}, ValueError, "does not match 'CZYX'"),
        ({"axes": "ZCYX"}, ValueError, "has no 'axes' of the user's"),
        ({"UUID": "x"}, ValueError, "has no 'UUID' of the user's"),
        ({1: 2}, TypeError, "has texts as names"),
    ],
)
def test_metadata_that_would_be_left_out_or_spoil_the_file_is_refused(metadata, kind, text):
    """When the option is given: a file with other characters than XML has is read as no OME-TIFF, in another shape."""
    with pytest.raises(kind, match=text):
        write_tiff.with_options(axes="CZYX", metadata=metadata)


@pytest.mark.parametrize("channels", [1, 2])
def test_metadata_of_channels_and_planes_is_that_of_each_array(channels):
    """As many as the values have, which are not known when the option is given."""
    names = ["a & <b>", "c"][:channels]
    planes = {"PositionZ": [0.0, 1.0, 2.0] * channels}
    metadata = {"Channel": {"Name": names}, "Plane": planes, "Name": "Image0", "SizeC": channels, "PhysicalSizeX": 0.5}
    encoder = write_tiff.with_options(axes="CZYX", metadata=metadata)
    value = noise(channels, 3, 9, 7)
    data = encoded(encoder, value)
    np.testing.assert_array_equal(write_tiff.decode(data, shape=tuple(value.shape)), value.numpy(), strict=True)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert ('Name="a &amp; &lt;b&gt;"' in file.ome_metadata, 'PositionZ="2.0"' in file.ome_metadata) == (True, True)
    with pytest.raises(Exception, match=r"does not go with CZYX of shape \(3, 3, 9, 7\)|SizeC does not match"):
        encoder.encode(noise(3, 3, 9, 7))


def changed(data, old, new):
    assert old in data
    return data.replace(old, new)


TIFF = encoded(write_tiff.with_options(compression=None), noise(2, 64, 48))
OTHER_FILES = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="float" SizeX="7" SizeY="9" SizeZ="2" '
    'SizeC="1" SizeT="1"><TiffData IFD="0" FirstZ="0" PlaneCount="1"/><TiffData IFD="0" FirstZ="1" PlaneCount="1">'
    '<UUID FileName="secret.tif">urn:uuid:2</UUID></TiffData></Pixels></Image></OME>'
)


def test_a_tiff_of_anybody_opens_no_other_file(tmp_path, monkeypatch):
    """An OME-TIFF may say that some of its pages are elsewhere, and other kinds of TIFF likewise."""
    opened = []
    real = tifffile.FileHandle.open
    monkeypatch.setattr(tifffile.FileHandle, "open", lambda self: opened.append(self._file) or real(self))
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, noise(9, 7).numpy(), description=OTHER_FILES, metadata=None, photometric="minisblack")
    write_tiff.decode(buffer.getvalue())
    assert all(isinstance(one, io.BytesIO) for one in opened)
    assert opened


WIDTH = b"\0\1\4\0\1\0\0\0"  # its tag
HOSTILE_TIFFS = {
    "none": b"",
    "a PNG": of_pillow("PNG", Image.new("RGB", (8, 8))),
    "cut": TIFF[: len(TIFF) // 2],
    "another shape": changed(TIFF, b"[2, 64, 48]", b"[9, 64, 48]"),
    "a wide page": changed(TIFF, WIDTH + b"\x30\0\0\0", WIDTH + b"\xff\xff\xff\x7f"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("data", HOSTILE_TIFFS.values(), ids=HOSTILE_TIFFS)
def test_a_tiff_of_anybody_is_refused(tmp_path, data):
    """Before memory is taken for what it claims."""
    with BackgroundWriter("tiff", tmp_path, backend="thread") as background:
        background.submit("a", noise(2, 64, 48))
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(ReadError, match="'a'"):
        open_results(tmp_path, check=False)["a"]


WITHOUT_TIFFFILE = """
    import sys
    sys.modules["tifffile"] = None  # as if it were not installed
    from lighter_async import BackgroundWriter, writer_registry
    for make in (
        lambda: BackgroundWriter("tiff", sys.argv[1]),
        lambda: BackgroundWriter({"a": "tiff"}, sys.argv[1]),
        lambda: BackgroundWriter("tiff", sys.argv[1], writer_options={"compression": None}),
    ):
        try:
            make()
        except ImportError as error:
            assert "pip install 'lighter-async[tiff]'" in str(error), error
        else:
            raise AssertionError
    assert not __import__("os").path.exists(sys.argv[1])
"""


def test_a_package_that_is_missing_is_told_when_the_writer_is_made(tmp_path):
    """With the line that installs it, and before anything exists."""
    done = run_script(textwrap.dedent(WITHOUT_TIFFFILE), tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("compression", ["lzw", "zstd"])
def test_compressors_of_imagecodecs_are_refused_without_it(compression):
    """When the option is given."""
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=f"'{compression}' is done by imagecodecs, .* pip install imagecodecs"):
            write_tiff.with_options(compression=compression)
    else:
        data = encoded(write_tiff.with_options(compression=compression), noise(2, 9, 7))
        np.testing.assert_array_equal(write_tiff.decode(data), noise(2, 9, 7).numpy())


@pytest.mark.parametrize("writer", ["jpeg", "webp"])
@pytest.mark.parametrize("scale", ["minmax", (-1.0, 1.0)], ids=str)
def test_a_scale_means_the_same_for_all_images_of_eight_bits(writer, scale):
    """Of tensors, of their blocks, and on a device; and a wrong one is refused."""
    value = noise(3, 9, 7) / 20 - 2
    plain = writer_registry.get(writer)
    chosen = plain.with_options(scale=scale)
    expected = encoded(plain, to_pixels(value, scale=scale))
    assert encoded(chosen, value) == expected
    assert encoded(plain, chosen.reduce(value)) == expected
    assert b"".join(chosen.encode_block(block_of(value, "it"))) == expected
    with pytest.raises(ValueError, match="scale"):
        plain.with_options(scale="other")
