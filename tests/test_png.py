"""The PNG encoder: valid for a strict reader and for Pillow, and exact to the pixel."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from lighter_async import BackgroundWriter, write_image_2d
from lighter_async.block import Block
from lighter_async.writers.image import _encode_block_2d, _encode_block_3d, _planes, encode_image_2d, to_pixels
from lighter_async.writers.png import FILTERS, LEVELS, encode_png


def read(content):
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


def check_chunks(content):
    """The signature, and of every chunk its length, order and checksum; gives the rows with their filter types."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    kinds, stream, place = [], b"", 8
    while place < len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        body = content[place + 8 : place + 8 + length]
        assert struct.unpack_from(">I", content, place + 8 + length) == (zlib.crc32(kind + body),)
        kinds.append(kind)
        if kind == b"IHDR":
            width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", body)
            assert rest == [0, 0, 0]
        stream += body if kind == b"IDAT" else b""
        place += 12 + length
    assert kinds[0] == b"IHDR"
    assert set(kinds[1:-1]) == {b"IDAT"}
    assert kinds[-1] == b"IEND"
    rows = zlib.decompress(stream)
    bits = depth * {0: 1, 4: 2, 2: 3, 6: 4}[colour]
    assert len(rows) == height * (1 + width * bits // 8)
    return np.frombuffer(rows, np.uint8).reshape(height, -1)


SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 3, 4]))


@settings(max_examples=150, deadline=None)
@given(SHAPES, st.sampled_from(sorted(FILTERS)), st.sampled_from(LEVELS), st.integers(0, 3), st.integers(0, 99))
def test_pixels_come_back_exactly(shape, filter, level, smooth, seed):
    """Of every number of channels and every size, noisy or smooth, with each filter and level."""
    noise = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    pixels = (np.cumsum(noise // 64, axis=smooth).astype(np.uint8)) if smooth < 3 else noise
    content = b"".join(encode_png(pixels, level=level, filter=filter))
    assert set(check_chunks(content)[:, 0]) <= set(FILTERS[filter])
    assert np.array_equal(read(content).reshape(shape), pixels)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 99))
def test_sixteen_bit_grey_comes_back_exactly(height, width, seed):
    """In the specification's byte order."""
    pixels = np.random.default_rng(seed).integers(0, 1 << 16, (height, width), np.uint16)
    content = b"".join(encode_png(pixels))
    check_chunks(content)
    assert np.array_equal(read(content).astype(np.uint16), pixels)


@pytest.mark.parametrize("name", ["astronaut", "camera", "coins", "rocket", "text"])
def test_photographs_come_back_exactly(name):
    """Larger than one strip of rows, and with every filter in use."""
    pixels = getattr(data, name)()
    content = b"".join(encode_png(pixels))
    assert set(check_chunks(content)[:, 0]) == {1, 2, 3}
    assert np.array_equal(read(content), pixels)


def test_a_long_stream_is_cut_into_chunks(monkeypatch):
    """A chunk has at most 2**31 - 1 bytes; here, ten."""
    monkeypatch.setattr("lighter_async.writers.png._MOST_IN_CHUNK", 10)
    content = b"".join(encode_png(data.coins()))
    check_chunks(content)
    assert content.count(b"IDAT") > 100
    assert np.array_equal(read(content), data.coins())


def bits(dtype):
    """Every value of a 16-bit type, and of the wider ones those at which something may happen."""
    if dtype in ("float16", "bfloat16"):
        return torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(getattr(torch, dtype))
    steps = torch.arange(0, 257, dtype=getattr(torch, dtype)) / 255
    beside = torch.cat([torch.nextafter(steps, steps + 1), torch.nextafter(steps, steps - 1)])
    special = [float("nan"), float("inf"), float("-inf"), -0.0, 1e-45, 1e300, -1e300, 255.0, 1e9, -1e9]
    return torch.cat([steps, beside, torch.tensor(special, dtype=torch.float64).to(steps.dtype)])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_values_mean_the_same_pixels_with_and_without_torch(dtype):
    """Exactly those of the documented formula, NaN included."""
    values = bits(dtype)
    memory = values.view(torch.uint8).numpy()
    without = _planes(Block(dtype, tuple(values.shape), memory))
    assert np.array_equal(without, to_pixels(values).numpy())
    assert np.array_equal(without, (values.float().clamp(0, 1) * 255).to(torch.uint8).numpy())


@pytest.mark.parametrize("dtype", ["uint8", "bool", "float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_both_ways_write_the_same_file(dtype, channels, tmp_path):
    """By a writer, which takes the tensor's memory, and by the function, which takes the tensor."""
    image = (torch.rand(channels, 21, 34) * 1.2 * (255 if dtype == "uint8" else 1)).to(getattr(torch, dtype))
    with BackgroundWriter("image_2d", tmp_path) as writer:
        writer.submit_batch(["a", "b"], torch.stack([image, image.flip(-1)]))
    write_image_2d(tmp_path / "c", image)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "c.png").read_bytes()
    volume = torch.stack([image, image], dim=1)
    with BackgroundWriter("image_3d", tmp_path) as writer:
        writer.submit("d", volume)
    assert np.array_equal(read((tmp_path / "d.png").read_bytes())[:21], read((tmp_path / "c.png").read_bytes()))


@pytest.mark.parametrize("shape", [(2, 4, 4), (5, 4, 4), (4, 4), (1, 1, 4, 4)])
def test_what_is_no_image_is_left_to_the_error(shape):
    """The block is declined, and the tensor's encoder says what is wrong."""
    memory = np.zeros(int(np.prod(shape)), np.uint8)
    assert _encode_block_2d(Block("uint8", shape, memory)) is None
    assert _encode_block_3d(Block("uint8", shape[-3:], memory)) is None
    assert _encode_block_2d(Block("int16", (1, 2, 2), np.zeros(8, np.uint8))) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compress_level": 4}, "compress_level is 0 to 3, not 4; codec='pillow' takes 0 to 9"),
        ({"codec": "pillow", "compress_level": 10}, "compress_level of codec 'pillow' is 0 to 9, not 10"),
        ({"filter": "paeth"}, "filter is one of 'none', 'sub', 'up', 'average', 'adaptive', not 'paeth'"),
        ({"codec": "fast"}, "codec is 'isal' or 'pillow', not 'fast'"),
    ],
)
def test_options_out_of_range_are_told(options, message, tmp_path):
    """By the function, and as the sample's failure."""
    image = torch.zeros(3, 4, 4)
    with pytest.raises(ValueError, match=re.escape(message)):
        encode_image_2d(image, **options)
    writer = BackgroundWriter(write_image_2d.with_options(**options), tmp_path)
    writer.submit("a", image)
    with pytest.raises(Exception, match="ValueError") as raised:
        writer.close()
    assert message in str(raised.value)


def test_pillow_can_be_chosen(tmp_path):
    """With its own levels; the pixels are the same."""
    image = torch.from_numpy(data.astronaut()).movedim(-1, 0)
    sizes = []
    for options in ({}, {"codec": "pillow"}, {"codec": "pillow", "compress_level": 0}, {"compress_level": 0}):
        with BackgroundWriter(write_image_2d.with_options(**options), tmp_path, if_exists="overwrite") as writer:
            writer.submit("a", image)
        content = (tmp_path / "a.png").read_bytes()
        assert np.array_equal(read(content), data.astronaut())
        sizes.append(len(content))
    assert sizes[1] < sizes[0] < sizes[3] < sizes[2]
