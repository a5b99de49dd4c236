"""`scale` of the image writers: which values become black and which white, and what is said where nobody has told."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_models import lightning_warnings, predict

import lighter_async
from lighter_async import AsyncBackgroundWriter, BackgroundWriter, FileWriter, encoder, open_results
from lighter_async.types import Run
from lighter_async.writers import write_image_2d, write_image_3d
from lighter_async.writers.pixels import to_pixels

inf, nan = float("inf"), float("nan")
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def stored(tmp_path, value, writer="image_2d", **options):
    """The pixels of a value that was stored by a service, which encodes it without a tensor where it can."""
    with BackgroundWriter(writer, tmp_path / "out", backend="thread", writer_options=options) as service:
        service.submit("a", value)
    return open_results(tmp_path / "out")["a"]


def pixels(value, writer=write_image_2d, **options):
    """The pixels of a value that an encoder has got as a tensor or an array."""
    chosen = writer.with_options(**options)
    return chosen.decode(b"".join(chosen.encode(value)), shape=tuple(value.shape))


def row(*values, dtype=torch.float32):
    """An image of one row."""
    return torch.tensor(values, dtype=dtype).reshape(1, 1, -1)


def reduced(value, writer=write_image_2d, **options):
    """What an accelerator makes of it, as the pixels that are stored then."""
    return pixels(writer.with_options(**options).reduce(value), writer, **options)


# Right values


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("values", "scale", "expected"),
    [
        ((0.0, 0.5, 1.0), "unit", (0, 127, 255)),
        ((-1.0, 0.0, 1.0), "minmax", (0, 127, 255)),
        ((-1.0, 0.0, 1.0), (-1, 1), (0, 127, 255)),
        ((-1.0, 0.0, 1.0), [-1, 1], (0, 127, 255)),
        ((-1.0, 0.0, 1.0), (0, 0.5), (0, 0, 255)),
        ((-1000.0, -300.0, 400.0), (-1000, 400), (0, 127, 255)),
        ((-4000.0, 40.0, 4000.0), (-160, 240), (0, 127, 255)),
        ((5.0, 5.0, 5.0), "minmax", (0, 0, 0)),
        ((0.0, 0.0, 0.0), "minmax", (0, 0, 0)),
        ((-1.0, nan, 1.0), "minmax", (0, 0, 255)),
        ((-inf, 2.0, 4.0, inf), "minmax", (0, 0, 255, 255)),
        ((nan, 3.0, 3.0, inf), "minmax", (0, 0, 0, 255)),
        ((nan, -inf, inf), "minmax", (0, 0, 255)),
        ((nan, nan), "minmax", (0, 0)),
        ((-inf, nan, inf), (0, 100), (0, 0, 255)),
    ],
)
def test_floats_become_the_pixels_that_the_scale_says(tmp_path, dtype, values, scale, expected):
    """From a tensor, from an array, without a tensor in a service, and from what an accelerator has made of it."""
    image = row(*values, dtype=dtype)
    assert pixels(image, scale=scale).ravel().tolist() == list(expected)
    assert stored(tmp_path, image, scale=scale).ravel().tolist() == list(expected)
    assert reduced(image, scale=scale).ravel().tolist() == list(expected)
    if dtype is not torch.bfloat16:
        assert pixels(image.numpy(), scale=scale).ravel().tolist() == list(expected)


@pytest.mark.parametrize(
    ("values", "dtype", "scale", "expected"),
    [
        ((-1000, -300, 400), torch.int16, (-1000, 400), (0, 127, 255)),
        ((0, 2, 4), torch.int8, (0, 4), (0, 127, 255)),
        ((7, 7), torch.int64, "minmax", (0, 0)),
        ((0, 1), torch.bool, "minmax", (0, 255)),
        ((0, 1), torch.bool, (0, 2), (0, 127)),
        ((0, 1 << 24, (1 << 25) + 2), torch.int32, (0, (1 << 25) + 2), (0, 127, 255)),
        ((1 << 40, (1 << 40) + 1, (1 << 40) + 2), torch.int64, "minmax", (0, 127, 255)),
        ((0, 30000, 60000), torch.uint16, "minmax", (0, 127, 255)),
        ((-128, 127), torch.int8, "minmax", (0, 255)),
        ((0, 1 << 31), torch.uint32, "minmax", (0, 255)),
    ],
)
def test_integers_are_scaled_where_a_scale_is_given(tmp_path, values, dtype, scale, expected):
    """Without one they are refused, but for bools."""
    image = row(*values, dtype=dtype)
    assert pixels(image, scale=scale).ravel().tolist() == list(expected)
    assert pixels(image.numpy(), scale=scale).ravel().tolist() == list(expected)
    assert stored(tmp_path, image, scale=scale).ravel().tolist() == list(expected)
    assert reduced(image, scale=scale).ravel().tolist() == list(expected)
    if dtype is not torch.bool:
        with pytest.raises(TypeError, match=r"or by scale=\(low, high\)"):
            pixels(image)


@pytest.mark.parametrize(("dtype", "mode"), [(torch.uint8, None), (torch.uint16, "I;16")])
@pytest.mark.parametrize("scale", ["minmax", (0, 4)])
def test_pixels_stay_as_they_are_whatever_the_scale_and_that_is_said(tmp_path, dtype, mode, scale):
    """An accelerator's scaled values are such pixels, which are not to be scaled once more."""
    options = {"scale": scale} if mode is None else {"scale": scale, "mode": mode}
    image = row(0, 2, 4, dtype=dtype)
    assert pixels(image, **options).ravel().tolist() == [0, 2, 4]
    name = str(dtype).removeprefix("torch.")
    with pytest.warns(UserWarning, match=f"image_2d writes {name} as it is, whatever the scale; convert it to float32"):
        assert stored(tmp_path, image, **options).ravel().tolist() == [0, 2, 4]


def test_double_keeps_the_digits_that_float32_does_not_have(tmp_path):
    """A million and some thousandths of one more."""
    image = row(1e6, 1e6 + 0.001, 1e6 + 0.002, dtype=torch.float64)
    for found in (pixels(image, scale="minmax"), stored(tmp_path, image, scale="minmax")):
        assert found.ravel().tolist() in ([0, 127, 255], [0, 128, 255])
    assert write_image_2d.with_options(scale="minmax").reduce(image) is image  # since some devices have no double


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_as_large_as_there_are_do_not_overflow(tmp_path, dtype):
    """Their difference would be infinite."""
    most = torch.finfo(dtype).max
    image = row(-most, 0.0, most, dtype=dtype)
    for found in (pixels(image, scale="minmax"), stored(tmp_path, image, scale="minmax")):
        assert found.ravel().tolist() == [0, 127, 255]


def test_sixteen_bits_are_scaled_likewise(tmp_path):
    """To 65535, in double."""
    image = row(-1.0, 0.0, 1.0)
    options = {"mode": "I;16", "scale": "minmax"}
    assert pixels(image, **options).ravel().tolist() == [0, 32767, 65535]
    assert stored(tmp_path, image, **options).ravel().tolist() == [0, 32767, 65535]
    assert pixels(row(0, 1000, 2000, dtype=torch.int16), mode="I;16", scale=(0, 2000)).ravel().tolist() == [
        0,
        32767,
        65535,
    ]


def test_a_volume_is_scaled_as_a_whole(tmp_path):
    """Not slice by slice, and all of its channels together."""
    volume = torch.arange(8.0).reshape(1, 2, 2, 2)
    expected = [int(value / 7 * 255) for value in range(8)]
    assert stored(tmp_path, volume, "image_3d", scale="minmax").ravel().tolist() == expected
    assert pixels(volume, write_image_3d, scale="minmax").ravel().tolist() == expected
    assert pixels(torch.stack([torch.zeros(2, 2), torch.ones(2, 2), torch.full((2, 2), 2.0)]), scale="minmax").ravel()[
        ::4
    ].tolist() == [0, 127, 255]


def test_each_sample_of_a_batch_has_its_own_extremes(tmp_path):
    """On the host, and where an accelerator reduces the batch as a whole."""
    batch = torch.stack([row(0.0, 1.0, 2.0), row(10.0, 20.0, 30.0), row(7.0, 7.0, 7.0), row(nan, -1.0, 1.0)])
    expected = [[0, 127, 255], [0, 127, 255], [0, 0, 0], [0, 0, 255]]
    with BackgroundWriter("image_2d", tmp_path, backend="thread", writer_options={"scale": "minmax"}) as service:
        service.submit_batch(list("abcd"), batch)
    assert [open_results(tmp_path)[name].ravel().tolist() for name in "abcd"] == expected
    on_device = write_image_2d.with_options(scale="minmax").reduce(batch)
    assert on_device.reshape(4, 3).tolist() == expected
    volumes = write_image_3d.with_options(scale="minmax").reduce(batch[:, :, None])
    assert volumes.reshape(4, 3).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(width=32), min_size=1, max_size=40),
    dtype=st.sampled_from(FLOATS),
    scale=st.one_of(
        st.sampled_from(["unit", "minmax"]),
        st.tuples(st.integers(-5000, 5000), st.integers(1, 5000)).map(lambda pair: (pair[0], pair[0] + pair[1])),
    ),
    mode=st.sampled_from([None, "I;16"]),
)
def test_tensors_and_blocks_and_accelerators_agree(values, dtype, scale, mode):
    """To the last pixel, and with the formula that stands in the documentation."""
    from lighter_async.plain_memory import Block
    from lighter_async.writers.pixels import pixels_of_block

    image = row(*values, dtype=dtype)
    expected = to_pixels(image, mode=mode, scale=scale).numpy()
    memory = np.frombuffer(image.contiguous().view(torch.uint8).numpy().tobytes(), np.uint8)
    block = Block(str(dtype).removeprefix("torch."), tuple(image.shape), memory)
    assert np.array_equal(pixels_of_block(block, mode, scale).reshape(expected.shape), expected)
    options = {} if mode is None else {"mode": mode}
    small = write_image_2d.with_options(scale=scale, **options).reduce(image.clone())
    assert np.array_equal(pixels(small, scale=scale, **options).ravel(), expected.ravel())
    if mode is None and scale != "minmax" and dtype is not torch.float64:
        low, high = (0, 1) if scale == "unit" else scale
        formula = ((image.float() - low) / torch.tensor(float(high - low))).clamp(0, 1) * 255
        assert torch.equal(formula.to(torch.uint8), torch.from_numpy(expected))


# What is no scale


@pytest.mark.parametrize(
    "scale",
    ["max", None, 1, (0,), (0, 1, 2), (1, 0), (1, 1), (0, inf), (nan, 1), (False, True), ("0", "1"), (1, 1 + 1e-12),
     (-3e38, 3e38), {"low": 0}, torch.zeros(2)],
    ids=str,
)  # fmt: skip
def test_what_is_no_scale_is_refused_at_once(tmp_path, scale):
    """When the option is given, with those that there are."""
    with pytest.raises(ValueError, match=r"scale is 'unit' .*'minmax' .*\(low, high\), low below high, not"):
        BackgroundWriter("image_2d", tmp_path / "out", writer_options={"scale": scale})
    assert not (tmp_path / "out").exists()


# What is said where nobody has told


def heard(submit):
    """The warnings that were caught, in order."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        submit()
    return caught


def said_of(value, tmp_path, writer="image_2d", backend="thread", **options):
    with BackgroundWriter(writer, tmp_path / "out", backend=backend, writer_options=options) as service:
        return heard(lambda: service.submit("a", value))


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_floats_outside_0_and_1_are_told_of_once(tmp_path, backend):
    """In the process of the caller, at its own line, whatever the workers are."""
    with BackgroundWriter("image_2d", tmp_path, backend=backend) as service:
        caught = heard(lambda: service.submit_batch(["a", "b"], torch.stack([row(0.0, 1.0), row(-3.2, 4.14159)])))
        assert heard(lambda: service.submit("c", row(-7.0, 0.0))) == []
    (warning,) = caught
    assert warning.category is UserWarning
    assert warning.filename == __file__
    text = str(warning.message)
    assert text.startswith("image_2d got floats from -3.2 to 4.142, and [0, 1] becomes black to white")
    assert "{'scale': 'minmax'}" in text
    assert "{'scale': (0, 1)} says that clamping is meant" in text
    assert open_results(tmp_path)["b"].ravel().tolist() == [0, 255]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("values", "extremes"),
    [((-1.0, 0.5, 1.0), "-1 to 1"), ((0.0, 255.0), "0 to 255"), ((nan, 0.0, 2.0), "0 to 2"), ((0.0, inf), "0 to inf")],
)
def test_each_kind_of_float_is_looked_at(tmp_path, dtype, values, extremes):
    """Tensors and arrays, with NaN left out and infinities not."""
    image = row(*values, dtype=dtype)
    (warning,) = said_of(image, tmp_path)
    assert f"floats from {extremes}," in str(warning.message)
    if dtype is not torch.bfloat16:
        (warning,) = said_of(image.numpy(), tmp_path)
        assert f"floats from {extremes}," in str(warning.message)


@pytest.mark.parametrize(
    "value",
    [
        row(0.0, 0.3, 1.0),
        row(-0.08, 1.08),  # as an interpolation overshoots
        row(nan, nan),
        row(0.0, nan, 1.0),
        row(0, 7, 255, dtype=torch.uint8),
        row(0, 1, dtype=torch.bool),
        torch.zeros(1, 1, 4, requires_grad=True),
        np.zeros((1, 1, 2), np.float16),
        np.array([[[0, 200]]], np.uint8),
    ],
    ids=str,
)
def test_nothing_is_said_of_what_is_as_it_should_be(tmp_path, value):
    """Floats in [0, 1] or just beside it, and integers."""
    assert said_of(value, tmp_path) == []


@pytest.mark.parametrize("scale", ["minmax", (-5, 5), (0, 1)])
def test_nothing_is_said_where_the_scale_is_given(tmp_path, scale):
    """Also where it is [0, 1]."""
    assert said_of(row(-4.0, 4.0), tmp_path, scale=scale) == []


def test_other_writers_say_nothing(tmp_path):
    """A tensor may hold what it likes."""
    assert said_of(row(-4.0, 4.0), tmp_path, "tensor") == []


def test_of_several_outputs_the_warning_says_which(tmp_path):
    """Each is looked at by itself, in a batch and in samples."""
    writers = {"image": "image_2d", "slices": "image_3d", "logits": "tensor"}
    value = {"image": row(-4.0, 4.0), "slices": torch.full((1, 2, 1, 1), 9.0), "logits": torch.tensor(-1.0)}
    for submit in (
        lambda service: service.submit("a", value),
        lambda service: service.submit_batch(["b"], [value]),
        lambda service: service.submit_batch(["c"], {key: one[None] for key, one in value.items()}),
    ):
        with BackgroundWriter(writers, tmp_path, backend="thread", if_exists="overwrite") as service:
            caught = heard(lambda service=service, submit=submit: submit(service))
        assert [str(one.message).split(" floats")[0] for one in caught] == [
            "output 'image': image_2d got",
            "output 'slices': image_3d got",
        ]


def test_where_a_filter_makes_an_error_of_it_nothing_was_handed_over(tmp_path):
    """And the next call hands it over."""
    with BackgroundWriter("image_2d", tmp_path, backend="thread") as service:
        with pytest.raises(UserWarning, match="image_2d got floats"):
            service.submit("a", row(-4.0, 4.0))
        assert service.stats().accepted == 0
        service.submit("a", row(-4.0, 4.0))
    assert service.stats().written == 1


def test_of_several_ranks_the_first_one_says_it(tmp_path):
    """Or a job of hundreds would say it hundreds of times."""
    for rank, count in ((0, 1), (1, 0)):
        run = Run(id="job", rank=rank, world_size=2)
        with BackgroundWriter("image_2d", tmp_path / f"{rank}", backend="thread", run=run) as service:
            assert len(heard(lambda service=service: service.submit("a", row(-4.0, 4.0)))) == count


async def test_the_asyncio_face_says_it_too(tmp_path):
    """At the awaiting line."""
    async with AsyncBackgroundWriter("image_2d", tmp_path, backend="thread") as writer:
        with pytest.warns(UserWarning, match="image_2d got floats from -4 to 4"):
            await writer.submit("a", row(-4.0, 4.0))


def test_an_encoder_of_ones_own_may_remark_on_values(tmp_path):
    """With its options, before anything is handed over."""

    def remark(value, *, unit="mm"):
        return f"{value} {unit}, is that meant?" if value > 1000 else None

    def encode(value, *, unit="mm"):
        return f"{value} {unit}".encode()

    length = lighter_async.Encoder(encode, suffix=".len", remark=remark)
    with BackgroundWriter(length, tmp_path, writer_options={"unit": "cm"}) as service:
        with pytest.warns(UserWarning, match="2000 cm, is that meant"):
            service.submit_batch(["a", "b"], [1, 2000])
    assert (tmp_path / "b.len").read_text() == "2000 cm"
    assert encoder(suffix=".x")(encode).remark is None


@lightning_warnings
def test_a_prediction_is_told_of_at_the_line_that_has_begun_it(tmp_path):
    """Not at one of Lightning's or ours."""
    pl = pytest.importorskip("pytorch_lightning")
    callback = FileWriter(tmp_path, "image", "image_2d")
    outputs = {"image": torch.full((4, 1, 2, 2), -3.0)}
    caught = heard(lambda: predict(pl, lambda *_: outputs, callback))
    (warning,) = [one for one in caught if "image_2d got floats" in str(one.message)]
    assert warning.filename.endswith("lightning_models.py")  # whose `predict` calls trainer.predict
    assert callback.stats().written == 8
