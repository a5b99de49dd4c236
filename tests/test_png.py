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

from lighter_async import BackgroundWriter, WriteError, write_image_2d, write_image_3d
from lighter_async.plain_memory import Block
from lighter_async.writers.filters import filter_rows
from lighter_async.writers.image import _encode_block_2d, _encode_block_3d, encode_image_2d
from lighter_async.writers.pixels import pixels_of_block, to_pixels
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


KINDS = {  # dtype, channels
    "L": (np.uint8, 1),
    "LA": (np.uint8, 2),
    "RGB": (np.uint8, 3),
    "RGBA": (np.uint8, 4),
    "I;16": (np.uint16, 1),
}
FLOATS = ["float16", "bfloat16", "float32", "float64"]
SIDES = st.one_of(st.integers(1, 9), st.sampled_from([13, 31, 32, 37, 61, 127]))


def some_planes(kind, height, width, smooth, seed):
    """CHW pixels that are noise, or sums of small steps along one of the axes."""
    dtype, channels = KINDS[kind]
    noise = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (channels, height, width), dtype)
    return noise if smooth == 3 else np.cumsum(noise // 64, axis=smooth).astype(dtype)


def planes_of(content):
    """CHW pixels as Pillow reads them."""
    pixels = read(content)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(KINDS)),
    SIDES,
    SIDES,
    st.sampled_from(sorted(FILTERS)),
    st.sampled_from([None, *LEVELS]),
    st.integers(0, 3),
    st.integers(0, 99),
)
def test_pixels_come_back_exactly(kind, height, width, filter, level, smooth, seed):
    """Of every kind and size, noisy or smooth, with each filter and level."""
    planes = some_planes(kind, height, width, smooth, seed)
    content = b"".join(encode_png(planes, level=level, filter=filter))
    assert set(check_chunks(content)[:, 0]) <= set(FILTERS[filter])
    assert np.array_equal(planes_of(content), planes)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(KINDS)), SIDES, SIDES, st.integers(1, 999), st.integers(0, 3), st.integers(0, 99))
def test_pixels_come_back_exactly_whatever_a_strip_is(kind, height, width, strip, smooth, seed):
    """From a single row to all of them."""
    planes = some_planes(kind, height, width, smooth, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lighter_async.writers.filters._STRIP_BYTES", strip)
        content = b"".join(encode_png(planes))
    check_chunks(content)
    assert np.array_equal(planes_of(content), planes)


def paeth(left, up, corner):
    """The predictor as the specification words it."""
    estimate = left + up - corner
    distances = [abs(estimate - left), abs(estimate - up), abs(estimate - corner)]
    return (left, up, corner)[distances.index(min(distances))]


def test_filters_are_the_specifications():
    """Each byte less its prediction, modulo 256, with zeros beside and above the image."""
    pixels = some_planes("RGB", 7, 11, 3, 0)
    predictions = {
        "none": lambda left, up, corner: 0,
        "sub": lambda left, up, corner: left,
        "up": lambda left, up, corner: up,
        "average": lambda left, up, corner: (left + up) // 2,
        "paeth": paeth,
    }
    padded = np.pad(pixels, ((0, 0), (1, 0), (1, 0))).astype(int)
    for name, predict in predictions.items():
        rows = check_chunks(b"".join(encode_png(pixels, filter=name)))
        assert set(rows[:, 0]) == set(FILTERS[name])
        for (channel, y, x), value in np.ndenumerate(pixels):
            near = padded[channel, y : y + 2, x : x + 2]
            expected = (int(value) - predict(int(near[1, 0]), int(near[0, 1]), int(near[0, 0]))) % 256
            assert rows[y, 1 + 3 * x + channel] == expected


def test_paeth_is_the_specifications_for_all_neighbours():
    """All 2**24 of them, of which those are looked at that a step of five reaches, and the ends."""
    steps = [*range(0, 256, 5), 1, 2, 254]
    corner, up, left = (each.reshape(-1) for each in np.meshgrid(steps, steps, steps))
    here = np.zeros(left.shape, np.uint8)
    pixels = np.stack([np.stack([corner, up], axis=1), np.stack([left, here], axis=1)], axis=1).astype(np.uint8)
    rows, _ = filter_rows(pixels, FILTERS["paeth"])  # a plane for each
    expected = [-paeth(*near) % 256 for near in zip(left.tolist(), up.tolist(), corner.tolist(), strict=True)]
    assert rows[1, 1 + left.size :].tolist() == expected


@pytest.mark.parametrize("name", ["astronaut", "camera", "coins", "rocket", "text"])
def test_photographs_come_back_exactly(name):
    """Larger than one strip of rows."""
    pixels = getattr(data, name)()
    planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    content = b"".join(encode_png(planes))
    check_chunks(content)
    assert np.array_equal(read(content), pixels)


@pytest.mark.parametrize("name", ["astronaut", "coffee", "rocket", "retina"])
def test_files_are_nearly_as_small_as_pillows(name):
    """Within what docs/formats.md says, for smooth and textured photographs."""
    pixels = getattr(data, name)()[:512, :512]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    planes = np.moveaxis(pixels, -1, 0)
    sizes = {filter: sum(map(len, encode_png(planes, filter=filter))) for filter in FILTERS}
    assert sizes["adaptive"] < 1.1 * buffer.tell()
    assert sizes["adaptive"] < 1.01 * min(sizes.values())


def test_a_long_stream_is_cut_into_chunks(monkeypatch):
    """A chunk has at most 2**31 - 1 bytes; here, ten."""
    monkeypatch.setattr("lighter_async.writers.png._MOST_IN_CHUNK", 10)
    content = b"".join(encode_png(data.coins()[None]))
    check_chunks(content)
    assert content.count(b"IDAT") > 100
    assert np.array_equal(read(content), data.coins())


def bits(dtype):
    """Every value of a 16-bit type, and of the wider ones those at which something may happen."""
    if dtype in ("float16", "bfloat16"):
        return torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(getattr(torch, dtype))
    steps = torch.cat([torch.arange(top + 2, dtype=torch.float64) / top for top in (255, 65535)])
    steps = steps.to(getattr(torch, dtype))
    beside = torch.cat([torch.nextafter(steps, steps + 1), torch.nextafter(steps, steps - 1)])
    special = [float("nan"), float("inf"), float("-inf"), -0.0, 1e-45, 1e300, -1e300, 255.0, 1e9, -1e9]
    special = torch.tensor(special, dtype=torch.float64).to(steps.dtype)
    return torch.cat([steps, beside, special, special[:1].expand(200)])


@pytest.mark.parametrize("piece", [1000, 1 << 17])
@pytest.mark.parametrize("dtype", FLOATS)
def test_values_mean_the_same_pixels_with_and_without_torch(dtype, piece, monkeypatch):
    """Exactly those of the documented formulas, NaN included, of eight bits and of sixteen."""
    monkeypatch.setattr("lighter_async.writers.pixels._PIECE", piece)
    values = bits(dtype)
    block = Block(dtype, tuple(values.shape), values.view(torch.uint8).numpy())
    assert np.array_equal(pixels_of_block(block), to_pixels(values).numpy())
    assert np.array_equal(pixels_of_block(block), (values.float().clamp(0, 1) * 255).to(torch.uint8).numpy())
    wide = pixels_of_block(block, "I;16")
    assert wide.dtype == np.uint16
    assert np.array_equal(wide, to_pixels(values, mode="I;16").numpy())
    finite = ~values.isnan()
    expected = (values.double().clamp(0, 1) * 65535).to(torch.int32)
    assert np.array_equal(wide[finite], expected[finite].numpy())
    assert not wide[~finite].any()
    for mode in (None, "I;16"):
        for scale in ("minmax", (-3, 7)):
            scaled = to_pixels(values, mode=mode, scale=scale).numpy()
            assert np.array_equal(pixels_of_block(block, mode, scale), scaled)


@pytest.mark.parametrize("scale", ["unit", "minmax", (0, 2)], ids=str)
@pytest.mark.parametrize("mode", [None, "I;16"])
def test_true_may_be_any_byte_but_zero(mode, scale):
    """As of a mask of 0 and 255 that is viewed as bools: it is white, with a tensor and without."""
    memory = np.array([0, 1, 2, 255], np.uint8)
    expected = to_pixels(torch.tensor([False, True, True, True]), mode=mode, scale=scale).numpy()
    assert np.array_equal(to_pixels(torch.from_numpy(memory).view(torch.bool), mode=mode, scale=scale), expected)
    assert np.array_equal(pixels_of_block(Block("bool", (4,), memory), mode, scale), expected)


@pytest.mark.filterwarnings("ignore:image_.d got floats")  # those above 1 are clamped in both ways
@pytest.mark.parametrize("codec", ["isal", "pillow"])
@pytest.mark.parametrize(
    ("mode", "dtype"),
    [(mode, dtype) for mode in (None, *KINDS) for dtype in ("uint16" if mode == "I;16" else "uint8", "bool", *FLOATS)],
)
def test_both_ways_write_the_same_pixels(dtype, mode, codec, tmp_path):
    """By a writer, which takes the tensor's memory, and by the function, which takes the tensor."""
    channels = KINDS[mode][1] if mode else 3
    top = {"uint8": 255, "uint16": 65535}.get(dtype, 1.2)
    image = (torch.rand(channels, 21, 34) * top).to(getattr(torch, dtype))
    expected = to_pixels(image, mode=mode)
    options = {"codec": codec, "mode": mode}
    memory = image.contiguous().view(torch.uint8).numpy().reshape(-1)
    block = Block(dtype, tuple(image.shape), memory)
    assert write_image_2d.with_options(**options).encode_block(block) is not None
    with BackgroundWriter(write_image_2d.with_options(**options), tmp_path, backend="thread") as writer:
        writer.submit_batch(["a", "b"], torch.stack([image, image]))
    write_image_2d(tmp_path / "c", image, **options)
    with BackgroundWriter(write_image_3d.with_options(**options), tmp_path, backend="thread") as writer:
        writer.submit("d", torch.stack([image, image], dim=1))
    write_image_3d(tmp_path / "e", torch.stack([image, image], dim=1), **options)
    for name in "abcde":
        with Image.open(tmp_path / f"{name}.png") as stored:
            assert stored.mode == (mode or "RGB")
            planes = np.asarray(stored)
        planes = planes[None] if planes.ndim == 2 else np.moveaxis(planes, -1, 0)
        for start in range(0, planes.shape[1], 21):
            assert np.array_equal(planes[:, start : start + 21], expected.numpy())


@pytest.mark.parametrize("mode", ["LA", "I;16"])
def test_helpers_write_what_is_asked_for_by_mode(mode, tmp_path):
    """The option travels to them."""
    image = torch.rand(KINDS[mode][1], 21, 34)
    with BackgroundWriter(write_image_2d.with_options(mode=mode), tmp_path) as writer:
        writer.submit("a", image)
    assert np.array_equal(planes_of((tmp_path / "a.png").read_bytes()), to_pixels(image, mode=mode).numpy())


@pytest.mark.parametrize("shape", [(2, 4, 4), (5, 4, 4), (4, 4), (1, 1, 4, 4)])
def test_what_is_no_image_is_left_to_the_error(shape):
    """The block is declined, and the tensor's encoder says what is wrong."""
    memory = np.zeros(int(np.prod(shape)), np.uint8)
    assert _encode_block_2d(Block("uint8", shape, memory)) is None
    assert _encode_block_3d(Block("uint8", shape[-3:], memory)) is None
    assert _encode_block_2d(Block("int16", (1, 2, 2), np.zeros(8, np.uint8))) is None


@pytest.mark.parametrize(
    ("mode", "value", "error", "message"),
    [
        (None, torch.zeros(2, 3, 5), ValueError, 'write_image_2d.with_options(mode="LA") takes grey and alpha'),
        (
            "RGB",
            torch.zeros(1, 3, 5),
            ValueError,
            "mode 'RGB' has 3 channels, got 1 in shape (1, 3, 5); mode='L' takes 1; mode='I;16' takes 1",
        ),
        (
            "LA",
            torch.zeros(3, 3, 5),
            ValueError,
            "mode 'LA' has 2 channels, got 3 in shape (3, 3, 5); mode='RGB' takes 3",
        ),
        ("L", torch.zeros(7, 3, 5), ValueError, "mode 'L' has 1 channel, got 7 in shape (7, 3, 5)"),
        ("RGB", torch.zeros(7, 6, 3), ValueError, "tensor.movedim(-1, 0) makes CHW of HWC"),
        (
            None,
            torch.zeros(1, 3, 5, dtype=torch.uint16),
            TypeError,
            'mode="I;16" of image_2d writes one channel of torch.uint16',
        ),
        (None, torch.zeros(1, 3, 5, dtype=torch.int64), TypeError, 'mode="I;16" of image_2d'),
        ("I;16", torch.zeros(1, 3, 5, dtype=torch.uint8), TypeError, "labels up to 65535 with .to(torch.uint16)"),
        ("L", torch.zeros(1, 3, 5, dtype=torch.uint16), TypeError, "labels up to 255 with .to(torch.uint8)"),
    ],
)
def test_a_mode_that_does_not_fit_is_told_with_the_way_out(mode, value, error, message, tmp_path):
    """By the function, and as the sample's failure."""
    with pytest.raises(error, match=re.escape(message)):
        encode_image_2d(value, mode=mode)
    writer = BackgroundWriter(write_image_2d.with_options(mode=mode), tmp_path, backend="thread")
    writer.submit("a", value)
    with pytest.raises(WriteError, match=re.escape(message)) as raised:
        writer.close()
    assert type(raised.value.failures[0].cause) is error


def test_a_volume_of_two_channels_is_told_of_its_own_writer():
    """The remedy can be pasted."""
    with pytest.raises(ValueError, match=re.escape('write_image_3d.with_options(mode="LA")')):
        write_image_3d.encode(torch.zeros(2, 2, 3, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compress_level": 13}, "compress_level is 0 to 12, not 13; codec='pillow' takes 0 to 9"),
        ({"codec": "pillow", "compress_level": 10}, "compress_level of codec 'pillow' is 0 to 9, not 10"),
        ({"filter": "best"}, "filter is one of 'none', 'sub', 'up', 'average', 'paeth', 'adaptive', not 'best'"),
        ({"mode": "CMYK"}, "mode is None, 'L', 'LA', 'RGB', 'RGBA' or 'I;16', not 'CMYK'"),
        ({"codec": "fast"}, "codec is 'isal' or 'pillow', not 'fast'"),
    ],
)
def test_options_out_of_range_are_told(options, message):
    """By the function, and when they are given."""
    image = torch.zeros(3, 4, 4)
    with pytest.raises(ValueError, match=re.escape(message)):
        encode_image_2d(image, **options)
    with pytest.raises(ValueError, match=re.escape(message)):
        write_image_2d.with_options(**options)


def test_pillow_can_be_chosen(tmp_path):
    """With its own levels; the pixels are the same."""
    image = torch.from_numpy(data.astronaut()).movedim(-1, 0)
    sizes = []
    for options in ({}, {"codec": "pillow"}, {"codec": "pillow", "compress_level": 0}, {"compress_level": 0}):
        encoder = write_image_2d.with_options(**options)
        with BackgroundWriter(encoder, tmp_path, backend="thread", if_exists="overwrite") as writer:
            writer.submit("a", image)
        content = (tmp_path / "a.png").read_bytes()
        assert np.array_equal(read(content), data.astronaut())
        sizes.append(len(content))
    assert sizes[1] < sizes[0] < sizes[3] < sizes[2]
