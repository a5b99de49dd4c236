"""The built-in writers: names, options, round trips, real photographs."""

import functools
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import results
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from lighter_async import BackgroundWriter, write_image_2d, write_image_3d, write_tensor, write_text
from lighter_async.writers.image import to_pixels

pytestmark = pytest.mark.usefixtures("one_core")

quick = settings(max_examples=60, deadline=None, database=None)

WRITERS = {
    "tensor": (write_tensor, ".pt", torch.arange(3)),
    "image_2d": (write_image_2d, ".png", torch.zeros(1, 2, 2)),
    "image_3d": (write_image_3d, ".png", torch.zeros(1, 2, 2, 2)),
    "text": (write_text, ".txt", "hello"),
}


def files(folder):
    return sorted(file.relative_to(folder).as_posix() for file in results(folder))


def decoded(png):
    """CHW pixels of a PNG, as Pillow reads them."""
    with Image.open(png if isinstance(png, Path) else io.BytesIO(png)) as image:
        pixels = torch.from_numpy(np.array(image))
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.movedim(-1, 0)


# Names and options


@pytest.mark.parametrize("kind", WRITERS)
def test_the_suffix_is_appended_unless_the_name_ends_in_it(tmp_path, kind):
    """So case.1 and case.2 stay two files, which the synchronous writer made one of."""
    write, suffix, value = WRITERS[kind]
    for name in ("case", "case.1", "case.2", f"done{suffix}", f"upper{suffix.upper()}", f"{suffix}.bak", suffix):
        write(tmp_path / name, value)
    assert files(tmp_path) == sorted(
        [
            f"case{suffix}",
            f"case.1{suffix}",
            f"case.2{suffix}",
            f"done{suffix}",
            f"upper{suffix.upper()}{suffix}",
            f"{suffix}.bak{suffix}",
            suffix,
        ]
    )


@pytest.mark.parametrize("kind", WRITERS)
def test_another_suffix_can_be_chosen(tmp_path, kind):
    """With the old interface's suffix option, in a call and by functools.partial."""
    write, suffix, value = WRITERS[kind]
    write(tmp_path / "a", value, suffix=".bin")
    write(tmp_path / "b.bin", value, suffix=".bin")
    write(tmp_path / "plain", value, suffix="")
    functools.partial(write, suffix=".mask.bin")(tmp_path / "c", value)
    with BackgroundWriter(functools.partial(write, suffix=".own"), tmp_path) as background:
        background.submit("d", value)
        background.submit("e.own", value)
    assert files(tmp_path) == ["a.bin", "b.bin", "c.mask.bin", "d.own", "e.own", "plain"]
    assert write.suffix == suffix


@pytest.mark.parametrize("kind", WRITERS)
def test_a_suffix_is_no_path(tmp_path, kind):
    """A slash or NUL in a suffix is refused."""
    write, _, value = WRITERS[kind]
    for suffix in ("/x", "a/b", ".t\0"):
        with pytest.raises(ValueError, match="it is the end of a file name"):
            write(tmp_path / "x", value, suffix=suffix)
    assert files(tmp_path) == []


@pytest.mark.parametrize("kind", WRITERS)
def test_the_path_may_be_a_string_or_any_path_like(tmp_path, kind, monkeypatch):
    """Absolute or relative to the working directory."""
    write, suffix, value = WRITERS[kind]
    monkeypatch.chdir(tmp_path)

    class Somewhere:
        def __fspath__(self):
            return "like"

    write("string", value)
    write(Path("path"), value)
    write(Somewhere(), value)
    write(str(tmp_path / "absolute"), value)
    assert files(tmp_path) == [f"{name}{suffix}" for name in ("absolute", "like", "path", "string")]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_missing_folder_is_an_error(tmp_path, kind):
    """The writers make no folders, as before; targets do."""
    write, _, value = WRITERS[kind]
    with pytest.raises(FileNotFoundError, match="missing"):
        write(tmp_path / "missing" / "x", value)
    assert files(tmp_path) == []


def test_a_file_is_replaced_whole_or_kept_whole(tmp_path):
    """A value that cannot be encoded leaves the earlier file as it was, and nothing beside it."""
    write_tensor(tmp_path / "x", torch.zeros(3))
    write_tensor(tmp_path / "x", torch.ones(3))
    with pytest.raises(Exception, match="lambda"):
        write_tensor(tmp_path / "x", lambda: None)
    assert files(tmp_path) == ["x.pt"]
    assert torch.equal(torch.load(tmp_path / "x.pt"), torch.ones(3))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_texts_can_have_another_encoding(tmp_path, encoding):
    """In a call and through the service."""
    text = "naïve café\r\n\n"
    write_text(tmp_path / "a", text, encoding=encoding)
    with BackgroundWriter(functools.partial(write_text, encoding=encoding, suffix=".md"), tmp_path) as background:
        background.submit("b", text)
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.md").read_bytes() == text.encode(encoding)


@pytest.mark.parametrize(
    ("text", "encoding", "error", "message"),
    [
        ("日本", "latin-1", UnicodeEncodeError, "can't encode characters"),
        ("lone \ud800", "utf-8", UnicodeEncodeError, "surrogates not allowed"),
        ("a", "no-such-encoding", LookupError, "unknown encoding: no-such-encoding"),
    ],
)
def test_text_that_has_no_bytes_is_refused(tmp_path, text, encoding, error, message):
    """The error is Python's own, which names the character or the encoding."""
    with pytest.raises(error, match=message):
        write_text(tmp_path / "x", text, encoding=encoding)
    assert files(tmp_path) == []


def test_a_text_is_the_string_of_any_value(tmp_path):
    """str(value), nothing before or behind it."""
    for name, value in {"a": 3.5, "b": None, "c": [1, "x"], "d": torch.tensor(2), "e": b"x", "f": ""}.items():
        write_text(tmp_path / name, value)
        assert (tmp_path / f"{name}.txt").read_bytes() == str(value).encode()


# Tensors


@pytest.mark.parametrize("way", ["directly", "submit", "submit_batch"])
def test_a_row_is_stored_without_the_batch_around_it(tmp_path, way):
    """The file of a row of a batch holds the row alone, also in what torch.load makes of it."""
    batch = torch.rand(8, 1000)
    names = [f"{row}" for row in range(8)]
    if way == "directly":
        for name, row in zip(names, batch, strict=True):
            write_tensor(tmp_path / name, row)
    else:
        with BackgroundWriter("tensor", tmp_path) as background:
            if way == "submit":
                for name, row in zip(names, batch, strict=True):
                    background.submit(name, row)
            else:
                background.submit_batch(names, batch)
    for name, row in zip(names, batch, strict=True):
        file = tmp_path / f"{name}.pt"
        loaded = torch.load(file)
        assert torch.equal(loaded, row)
        assert loaded.untyped_storage().nbytes() == 4000
        assert file.stat().st_size < 8000


DTYPES = [
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
    torch.float8_e4m3fn,
]


@st.composite
def tensors(draw):
    """Any bits, read as any dtype and shape, perhaps transposed or a part of something larger."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    size = dtype.itemsize
    count = int(np.prod(shape, dtype=int))
    content = bytearray(draw(st.binary(min_size=count * size, max_size=count * size)))
    tensor = torch.frombuffer(content, dtype=torch.uint8).view(dtype) if content else torch.empty(0, dtype=dtype)
    tensor = tensor.reshape(shape)
    if draw(st.booleans()):
        tensor = tensor.permute(*reversed(range(tensor.ndim))) if tensor.ndim else tensor
    if draw(st.booleans()) and tensor.ndim and tensor.shape[0]:
        tensor = tensor[:: draw(st.integers(1, 3))]
    return tensor


@quick
@given(tensors())
def test_tensors_of_any_bits_and_layout_are_read_back(tensor):
    """NaNs keep their payload, zero-sized dimensions their shape."""
    content = b"".join(write_tensor.encode(tensor))
    loaded = torch.load(io.BytesIO(content), weights_only=True)
    assert (loaded.dtype, loaded.shape) == (tensor.dtype, tensor.shape)
    assert loaded.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    # Copied anew, for a tensor of one element counts as contiguous whatever its stride is.
    copies = [torch.empty(one.shape, dtype=one.dtype).copy_(one) for one in (loaded, tensor)]
    assert torch.equal(*(copy.reshape(-1).view(torch.uint8) for copy in copies))


@quick
@given(st.text(st.characters(codec="utf-8")))
def test_any_unicode_text_is_read_back(text):
    """Control characters, line ends, emoji and byte order marks included."""
    assert b"".join(write_text.encode(text)).decode() == text


# Images


@st.composite
def sizes(draw):
    return draw(st.sampled_from([1, 3, 4])), draw(st.integers(1, 9)), draw(st.integers(1, 9))


@quick
@given(sizes(), st.randoms(use_true_random=False))
def test_uint8_pixels_survive_unchanged(size, random):
    """Any bytes, any size from 1 x 1, any of the three numbers of channels."""
    image = torch.tensor([random.randrange(256) for _ in range(int(np.prod(size)))], dtype=torch.uint8).view(size)
    assert torch.equal(decoded(b"".join(write_image_2d.encode(image))), image)


@quick
@given(
    sizes().flatmap(
        lambda size: st.tuples(
            st.just(size),
            st.lists(st.floats(width=32), min_size=int(np.prod(size)), max_size=int(np.prod(size))),
            st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
        )
    )
)
def test_float_pixels_equal_the_documented_formula(case):
    """(x.float().clamp(0, 1) * 255).to(uint8), whatever the floats are."""
    size, numbers, dtype = case
    image = torch.tensor(numbers, dtype=torch.float64).to(dtype).view(size)
    expected = (image.float().clamp(0, 1) * 255).to(torch.uint8)
    assert torch.equal(decoded(b"".join(write_image_2d.encode(image))), expected)


def test_pixels_keep_the_shape_whatever_it_is():
    """to_pixels is the formula alone."""
    assert to_pixels(torch.tensor(0.5)).item() == 127
    assert to_pixels(torch.tensor([True, False])).tolist() == [255, 0]
    assert to_pixels(torch.zeros(2, 0, 3)).shape == (2, 0, 3)
    assert to_pixels(np.array([0.0, 1.0, 2.0])).tolist() == [0, 255, 255]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_the_number_of_channels_is_the_kind_of_png(tmp_path, channels, mode):
    """Grey, RGB and RGBA, eight bits each."""
    write_image_2d(tmp_path / "x", torch.rand(channels, 6, 5))
    with Image.open(tmp_path / "x.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", mode, (5, 6))


def test_label_maps_survive(tmp_path):
    """The classes 0, 1, 2 are stored as 0, 1, 2, which the synchronous writer made 0, 255, 255 of."""
    masks = torch.randint(0, 3, (4, 1, 8, 8), dtype=torch.uint8)
    with BackgroundWriter("image_2d", tmp_path) as background:
        background.submit_batch(["a", "b", "c", "d"], masks)
    for name, mask in zip("abcd", masks, strict=True):
        assert torch.equal(decoded(tmp_path / f"{name}.png"), mask)


@pytest.fixture(scope="module")
def photographs():
    """Real images that scikit-image ships: CHW, uint8."""
    camera, astronaut = data.camera(), data.astronaut()
    assert (camera.shape, astronaut.shape) == ((512, 512), (512, 512, 3))
    return {"camera": torch.from_numpy(camera)[None], "astronaut": torch.from_numpy(astronaut).movedim(-1, 0)}


@pytest.mark.parametrize("name", ["camera", "astronaut"])
def test_photographs_are_stored_pixel_for_pixel(tmp_path, photographs, name):
    """As uint8 they are what they were; as floats they are the formula's, through the service as well."""
    photograph = photographs[name]
    write_image_2d(tmp_path / "bytes", photograph)
    assert torch.equal(decoded(tmp_path / "bytes.png"), photograph)
    floats = torch.stack([photograph / 255, (photograph / 255).flip(-1) * 1.3 - 0.1])
    with BackgroundWriter("image_2d", tmp_path) as background:
        with pytest.warns(UserWarning, match="floats from -0.1 to 1.2"):
            background.submit_batch(["upright", "flipped"], floats)
    for stored, image in zip(("upright", "flipped"), floats, strict=True):
        assert torch.equal(decoded(tmp_path / f"{stored}.png"), (image.clamp(0, 1) * 255).to(torch.uint8))


def test_slices_of_a_volume_are_stacked_from_top_to_bottom(tmp_path, photographs):
    """CDHW becomes D * H pixels high; slice d begins at row d * H."""
    astronaut = photographs["astronaut"][:, :128]
    slices = [astronaut[..., begin : begin + 100] for begin in (0, 200, 400)]
    write_image_3d(tmp_path / "volume", torch.stack(slices, dim=1))
    assert torch.equal(decoded(tmp_path / "volume.png"), torch.cat(slices, dim=1))


@pytest.mark.parametrize("way", ["directly", "thread", "process"])
def test_a_file_holds_no_other_row_of_the_batch_that_a_tensor_is_of(tmp_path, way):
    """Also of a tensor in a dict or a list, of which `torch.save` alone would store the whole batch."""
    batch = torch.arange(20_000, dtype=torch.float32).reshape(100, 200).requires_grad_()
    value = {"row": batch[3], "rows": [batch[4], (batch[5],)], "again": batch[3]}
    if way == "directly":
        write_tensor(tmp_path / "a", value)
    else:
        with BackgroundWriter("tensor", tmp_path, backend=way) as writer:
            writer.submit("a", value)
    assert (tmp_path / "a.pt").stat().st_size < 6 * 200 * 4 + 4000
    loaded = torch.load(tmp_path / "a.pt")
    for row, number in ((loaded["row"], 3), (loaded["rows"][0], 4), (loaded["rows"][1][0], 5), (loaded["again"], 3)):
        assert torch.equal(row, batch[number])
        assert not row.requires_grad


def test_a_value_that_holds_itself_or_a_part_many_times_is_saved_as_pytorch_does():
    """It is walked through once, however often a part is in it."""
    part = [torch.arange(3)]
    for _ in range(60):
        part = [part, part]
    loaded = torch.load(io.BytesIO(b"".join(write_tensor.encode(part))))
    for _ in range(60):
        assert loaded[0] is loaded[1]
        loaded = loaded[0]
    assert torch.equal(loaded[0], torch.arange(3))
    itself = {"a": torch.arange(3)}
    itself["b"] = itself
    loaded = torch.load(io.BytesIO(b"".join(write_tensor.encode(itself))))
    assert loaded["b"]["b"]["a"].tolist() == [0, 1, 2]
