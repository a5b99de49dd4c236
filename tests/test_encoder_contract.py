"""The contract of encoders, on all that there are."""

import gzip
import io
from typing import ClassVar

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from lighter_async import encoder as make_encoder
from lighter_async import write_image_2d, write_image_3d, write_tensor, write_text
from lighter_async.testing import EncoderContract
from lighter_async.writers.array import write_npy, write_row
from lighter_async.writers.image import to_pixels
from lighter_async.writers.jpeg import write_jpeg
from lighter_async.writers.json import write_json
from lighter_async.writers.nifti import write_nifti
from lighter_async.writers.pt_archive import _without_identifier
from lighter_async.writers.safetensors import write_safetensors
from lighter_async.writers.tiff import write_tiff
from lighter_async.writers.webp import write_webp

OTHER = {"no_such_option": 1}


def noise(*shape, dtype=torch.float32):
    values = torch.rand(*shape, generator=torch.Generator().manual_seed(1))
    return values.to(dtype) if dtype.is_floating_point else (values * 255).to(dtype)


class TestTensor(EncoderContract):
    """PyTorch's archive."""

    wrong_options = (OTHER,)

    def compared(self, data):
        return _without_identifier(data)  # which is only logged; files made from a template have another one

    @pytest.fixture
    def encoder(self):
        return write_tensor

    @pytest.fixture
    def values(self):
        dtypes = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8)
        tensors = [noise(3, 4, dtype=dtype) for dtype in dtypes]
        views = [noise(4, 6).t(), noise(8, 8)[::2, 1:3], torch.tensor(1.5), torch.zeros(0, 3), torch.tensor([True])]
        return [*tensors, *views, torch.tensor([float("nan"), -0.0]), {"a": [noise(2), 3], "b": "text"}]

    @pytest.fixture
    def refused_values(self):
        return [torch.ones(2, 3).to_mkldnn()]


def as_numpy(value):
    return value.resolve_conj().resolve_neg().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


class TestNumpyFile(EncoderContract):
    """What `numpy.save` writes."""

    wrong_options = (OTHER,)

    @pytest.fixture
    def encoder(self):
        return write_npy

    @pytest.fixture
    def values(self):
        dtypes = (torch.float16, torch.float64, torch.int64, torch.uint8, torch.uint16)
        tensors = [noise(3, 4, dtype=dtype) for dtype in dtypes]
        views = [noise(4, 6).t(), noise(8, 8)[::2, 1:3], torch.tensor(1.5), torch.zeros(0, 3), torch.tensor([True])]
        arrays = [np.arange(6).reshape(2, 3)[:, ::2], np.array(["a", "bc"]), np.ones(3, ">f4"), np.float32(3)]
        return [*tensors, *views, *arrays, np.ones(2, [("a", "f4"), ("b", "i2")]), np.zeros((2, 3), order="F")]

    @pytest.fixture
    def refused_values(self):
        sparse, objects = noise(2, 3).to_sparse(), np.array([None, "a"])
        return [noise(2, dtype=torch.bfloat16), sparse, torch.ones(2, 3).to_mkldnn(), objects, [1, 2], "text", 3.0]

    def expected(self, value):
        return as_numpy(value)


class TestRow(TestNumpyFile):
    """The elements alone, whose dtype and shape are recorded."""

    @pytest.fixture
    def encoder(self):
        return write_row

    @pytest.fixture
    def values(self):
        arrays = [np.arange(6).reshape(2, 3)[:, ::2], np.array(["a", "bc"]), np.ones(3, ">f4"), np.float32(3)]
        return [noise(3, 4), noise(4, 6).t(), torch.tensor(1.5), torch.zeros(0, 3), *arrays]

    @pytest.fixture
    def refused_values(self):
        return [noise(2, dtype=torch.bfloat16), noise(2, 3).to_sparse(), np.ones(2, [("a", "f4")]), [1, 2]]

    @pytest.mark.parametrize("known", [{}, {"dtype": "float32"}, {"shape": (3,)}])
    def test_what_is_not_known_is_not_guessed(self, encoder, known):
        """A row without its dtype and shape is no array."""
        with pytest.raises(TypeError, match="not recorded"):
            encoder.decode(b"x" * 12, **known)
        with pytest.raises(ValueError, match="are no array"):
            encoder.decode(b"x" * 12, dtype="float32", shape=(4,))


class TestText(EncoderContract):
    """The string of a value."""

    wrong_options = (OTHER, {"encoding": "no such"})

    @pytest.fixture
    def encoder(self):
        return write_text

    @pytest.fixture
    def values(self):
        return ["", "words", "ä\n€ \r\n", 3, None, [1, "two"], "long " * 50_000]

    @pytest.fixture
    def refused_values(self):
        return ["\ud800"]

    def expected(self, value):
        return str(value)


@pytest.mark.long
class TestTextOfAnotherEncoding(TestText):
    """An option of it."""

    @pytest.fixture
    def encoder(self):
        return write_text.with_options(encoding="utf-16")


class Images(EncoderContract):
    wrong_options = (
        *(OTHER, {"mode": "CMYK"}, {"filter": "other"}, {"compress_level": 13}, {"compress_level": -1}),
        *({"codec": "jpeg"}, {"codec": "pillow", "compress_level": 10}),
    )
    mode = None

    def expected(self, value):
        return to_pixels(value, mode=self.mode)


class TestImage(Images):
    """PNG, as it is made by default."""

    @pytest.fixture
    def encoder(self):
        return write_image_2d

    @pytest.fixture
    def values(self):
        sizes = [noise(channels, 19, 23) for channels in (1, 3, 4)]
        smooth = torch.linspace(0, 1, 64).repeat(3, 48, 1)
        odd = torch.tensor([[[float("nan"), -1.0, 2.0, float("inf")]]])
        dtypes = [noise(3, 8, 8, dtype=dtype) for dtype in (torch.uint8, torch.float16, torch.bfloat16, torch.float64)]
        return [*sizes, smooth, odd, *dtypes, noise(1, 8, 8) > 0.5, noise(8, 8, 3).movedim(-1, 0)]

    @pytest.fixture
    def refused_values(self):
        return [noise(2, 8, 8), noise(8, 8), noise(3, 0, 8), noise(3, 8, 8).to(torch.int64), "no image"]


@pytest.mark.long
class TestImageOfPillow(TestImage):
    """Another codec."""

    @pytest.fixture
    def encoder(self):
        return write_image_2d.with_options(codec="pillow", compress_level=1)


class TestImageOfSixteenBits(Images):
    """Another mode."""

    mode = "I;16"

    @pytest.fixture
    def encoder(self):
        return write_image_2d.with_options(mode="I;16", compress_level=9)

    @pytest.fixture
    def values(self):
        wide = (noise(1, 9, 9) * 65535).to(torch.int32).to(torch.uint16)
        return [noise(1, 19, 23), noise(1, 8, 8, dtype=torch.float64), noise(1, 8, 8) > 0.5, wide]

    @pytest.fixture
    def refused_values(self):
        return [noise(3, 8, 8), noise(1, 8, 8, dtype=torch.uint8)]


class TestJpeg(EncoderContract):
    """Close to the pixels, and what Pillow makes of them."""

    wrong_options = (OTHER, {"quality": 0}, {"quality": 101}, {"quality": 90.0}, {"subsampling": "4:1:1"})
    kind = "JPEG"
    options: ClassVar = {"quality": 90, "subsampling": "4:2:0"}

    @pytest.fixture
    def encoder(self):
        return write_jpeg

    @pytest.fixture
    def values(self):
        sizes = [noise(channels, 19, 23) for channels in (1, 3)]
        smooth = torch.linspace(0, 1, 64).repeat(3, 48, 1)
        odd = torch.tensor([[[float("nan"), -1.0, 2.0, float("inf")]]])
        dtypes = [noise(3, 8, 8, dtype=dtype) for dtype in (torch.uint8, torch.float16, torch.bfloat16, torch.float64)]
        return [
            *sizes,
            smooth,
            odd,
            *dtypes,
            noise(1, 8, 8) > 0.5,
            noise(8, 8, 3).movedim(-1, 0),
            noise(3, 8, 8).numpy(),
        ]

    @pytest.fixture
    def refused_values(self):
        shapes = [noise(2, 8, 8), noise(4, 8, 8), noise(8, 8), noise(3, 0, 8), torch.zeros(1, 1, 65501)]
        return [*shapes, noise(3, 8, 8).to(torch.int64), "no image"]

    def expected(self, value):
        pixels = np.moveaxis(to_pixels(value).numpy(), 0, -1)
        if pixels.shape[-1] == 1 and self.kind == "WEBP":
            pixels = np.repeat(pixels, 3, -1)
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)).save(
            buffer, self.kind, **self.options
        )
        found = np.array(Image.open(buffer))
        return (found[..., None] if found.ndim == 2 else found).transpose(2, 0, 1)[: value.shape[0]]


@pytest.mark.long
class TestJpegOfAllColours(TestJpeg):
    """Two options."""

    options: ClassVar = {"quality": 60, "subsampling": "4:4:4"}

    @pytest.fixture
    def encoder(self):
        return write_jpeg.with_options(quality=60, subsampling="4:4:4")


@pytest.mark.long
class TestWebp(TestJpeg):
    """With alpha, and grey as three equal channels."""

    wrong_options = (OTHER, {"quality": -1}, {"quality": 101}, {"lossless": "no"}, {"method": 7}, {"method": None})
    kind = "WEBP"
    options: ClassVar = {"quality": 80, "method": 4}

    @pytest.fixture
    def encoder(self):
        return write_webp

    @pytest.fixture
    def values(self):
        sizes = [noise(channels, 19, 23) for channels in (1, 3, 4)]
        transparent = torch.cat([noise(3, 9, 9), torch.zeros(1, 9, 9)])
        return [*sizes, transparent, noise(3, 8, 8, dtype=torch.uint8), noise(1, 8, 8) > 0.5, noise(3, 8, 8).numpy()]

    @pytest.fixture
    def refused_values(self):
        shapes = [noise(2, 8, 8), noise(5, 8, 8), noise(8, 8), noise(3, 0, 8), torch.zeros(1, 1, 16384)]
        return [*shapes, noise(3, 8, 8).to(torch.int64), "no image"]


@pytest.mark.long
class TestWebpWithoutLoss(TestWebp):
    """The very pixels, whether they are seen or not."""

    @pytest.fixture
    def encoder(self):
        return write_webp.with_options(lossless=True, method=0)

    def expected(self, value):
        return to_pixels(value)


class TestVolume(Images):
    """Its slices below each other."""

    @pytest.fixture
    def encoder(self):
        return write_image_3d

    @pytest.fixture
    def values(self):
        return [noise(1, 3, 9, 7), noise(3, 2, 8, 8, dtype=torch.uint8), noise(4, 1, 5, 5), noise(1, 2, 3, 4) > 0.5]

    @pytest.fixture
    def refused_values(self):
        return [noise(3, 8, 8), noise(2, 2, 8, 8)]


class TestNifti(EncoderContract):
    """Compressed, as it is made by default."""

    wrong_options = (
        *(OTHER, {"compress_level": 13}, {"compress_level": "1"}, {"channel_dim": "first"}, {"suffix": ".gz"}),
        *({"affine": [1, 2]}, {"affine": np.full((4, 4), np.nan)}),
    )
    affine = np.eye(4)

    def compared(self, data):
        return gzip.decompress(data)  # ISA-L's compressed bytes may differ from one call to the next

    def expected(self, value):
        image, affine = (value["image"], value["affine"]) if isinstance(value, dict) else (value, self.affine)
        image = as_numpy(image.float() if image.dtype in (torch.bfloat16, torch.float16) else image)
        image = image.astype("u1" if image.dtype == bool else image.dtype.newbyteorder("="))
        if isinstance(value, dict):  # whose shape nobody records
            image = image.reshape(*image.shape, *[1] * (4 - image.ndim))
        return {"image": image, "affine": np.array(affine, np.float64)}

    @pytest.fixture
    def encoder(self):
        return write_nifti

    @pytest.fixture
    def values(self):
        dtypes = (torch.float16, torch.bfloat16, torch.float64, torch.int16, torch.int64, torch.uint8, torch.uint16)
        tensors = [noise(2, 3, 4, 5, dtype=dtype) for dtype in dtypes]
        shapes = [noise(1, 3, 4), noise(2, 3, 4), noise(1, 3, 4, 1), noise(1, 40, 4, 2), noise(2, 3, 4, 5, 6) > 0.5]
        views = [noise(5, 4, 3, 1).permute(3, 2, 1, 0), np.ones((1, 3, 4, 5), ">f4"), np.ones((1, 2, 3, 4), order="F")]
        affine = np.diag([1.0, 2.0, 3.0, 1.0])
        return [*tensors, *shapes, *views, {"image": noise(1, 3, 4, 5), "affine": affine}]

    @pytest.fixture
    def refused_values(self):
        shapes = [noise(3, 4), noise(3), torch.tensor(1.0), noise(1, 3, 0, 4), noise(*[2] * 8), noise(1, 32768, 1)]
        dicts = [{"image": noise(1, 3, 4), "affine": np.eye(2)[:1]}, {"mask": noise(1, 3, 4)}]
        kinds = [noise(1, 3, 4).to_sparse(), np.ones((1, 2, 3), np.longdouble), np.array([["a"]]), "text", None]
        return [*shapes, *dicts, *kinds]


@pytest.mark.long
class TestNiftiUncompressed(TestNifti):
    """With an affine for all."""

    affine = np.array([[-1.0, 0, 0, 5], [0, -2, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]])

    def compared(self, data):
        return data

    @pytest.fixture
    def encoder(self):
        return write_nifti.with_options(suffix=".nii", affine=self.affine)


@pytest.mark.long
class TestNiftiOfLibdeflate(TestNifti):
    """Smaller files."""

    @pytest.fixture
    def encoder(self):
        return write_nifti.with_options(compress_level=6)


class TestTiff(EncoderContract):
    """Arrays in their dtype and shape."""

    wrong_options = (
        *(OTHER, {"compression": "jpeg"}, {"compress_level": 13}, {"compression": None, "compress_level": 1}),
        *({"predictor": 2}, {"axes": "XY"}, {"axes": "ZZYX"}, {"metadata": {"PhysicalSizeX": 1}}),
    )

    def compared(self, data):
        array = tifffile.imread(io.BytesIO(data))  # ISA-L's compressed bytes may differ from one call to the next
        return f"{array.dtype} {array.shape} ".encode() + array.tobytes()

    @pytest.fixture
    def encoder(self):
        return write_tiff

    @pytest.fixture
    def values(self):
        dtypes = (torch.float16, torch.float64, torch.int16, torch.int64, torch.uint8, torch.uint32, torch.complex64)
        tensors = [noise(2, 9, 7).to(dtype) for dtype in dtypes]
        shapes = [noise(9, 7), noise(2, 3, 4, 5), noise(1, 9, 7), noise(9, 7, 3), noise(1, 1, 5, 1), noise(5, 1) > 0.5]
        views = [noise(7, 9).t(), noise(3, 9, 7) > 0.5, np.ones((2, 3), ">u2"), np.arange(24).reshape(4, 6)[::-1, ::2]]
        return [*tensors, *shapes, *views]

    @pytest.fixture
    def refused_values(self):
        shapes = [noise(5), torch.tensor(1.0), noise(3, 0, 4)]
        return [
            *shapes,
            noise(2, 3, dtype=torch.bfloat16),
            noise(2, 3).to_sparse(),
            np.ones((2, 2), np.longdouble),
            "text",
        ]

    def expected(self, value):
        return value.astype(value.dtype.newbyteorder("=")) if isinstance(value, np.ndarray) else value


@pytest.mark.long
class TestTiffUncompressed(TestTiff):
    """As tifffile writes it by itself."""

    wrong_options = (OTHER,)

    def compared(self, data):
        return data

    @pytest.fixture
    def encoder(self):
        return write_tiff.with_options(compression=None)


@pytest.mark.long
class TestTiffOfMicroscopy(TestTiff):
    """With OME's names of the axes."""

    wrong_options = (OTHER, {"axes": "CYX "})

    @pytest.fixture
    def encoder(self):
        return write_tiff.with_options(axes="CYX", metadata={"PhysicalSizeX": 0.5}, compress_level=6)

    @pytest.fixture
    def values(self):
        return [noise(2, 9, 7), noise(1, 9, 7), (noise(3, 9, 7) * 999).to(torch.int16), noise(2, 9, 7) > 0.5]

    @pytest.fixture
    def refused_values(self):
        return [noise(9, 7), noise(2, 9, 7).half(), noise(2, 9, 7).to(torch.int64)]


class TestJson(EncoderContract):
    """Numbers, texts, lists and dicts, and arrays as lists."""

    wrong_options = (OTHER, {"not_finite": "NaN"}, {"not_finite": None}, {"indent": -1}, {"indent": "  "})

    @pytest.fixture
    def encoder(self):
        return write_json

    @pytest.fixture
    def values(self):
        plain = [None, True, 3, -(10**30), 0.1, 5e-324, "", 'ä\n€ \x00"', [], {}, (1, [2.5, None]), {"a": {"b": [1]}}]
        dtypes = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8)
        tensors = [noise(3, 4, dtype=dtype) for dtype in dtypes]
        arrays = [
            np.float32(0.1),
            np.int8(3),
            np.bool_(True),
            np.array(["a", "bc"]),
            np.ones((2, 3), ">f4"),
            np.zeros(0),
        ]
        nested = {
            "scores": noise(5),
            "label": torch.tensor(3),
            "boxes": [noise(4), noise(4)],
            "none": torch.zeros(0, 4),
        }
        return [*plain, *tensors, torch.tensor(1.5), torch.tensor([True]), *arrays, nested]

    @pytest.fixture
    def refused_values(self):
        numbers = [float("nan"), [1, float("inf")], {"a": torch.tensor([1.0, float("nan")])}, np.float64("-inf")]
        others = [b"bytes", {1: 2}, {"a": {"b", "c"}}, 1j, np.ones(2, "c8"), noise(2, 3).to_sparse(), object()]
        return [*numbers, *others, np.datetime64("2020-02-02"), "\ud800", np.longdouble(1)]

    def expected(self, value):
        if isinstance(value, dict):
            return {key: self.expected(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.expected(item) for item in value]
        return value.tolist() if isinstance(value, (torch.Tensor, np.ndarray, np.generic)) else value


@pytest.mark.long
class TestJsonOfSeveralLines(TestJson):
    """As people read it."""

    @pytest.fixture
    def encoder(self):
        return write_json.with_options(indent=2)


class TestSafetensors(EncoderContract):
    """Tensors by name, and one without."""

    wrong_options = (OTHER, {"key": 3}, {"key": "__metadata__"}, {"metadata": {"a": 1}}, {"metadata": "text"})

    @pytest.fixture
    def encoder(self):
        return write_safetensors

    @pytest.fixture
    def values(self):
        dtypes = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.uint16)
        tensors = [noise(3, 4, dtype=dtype) for dtype in dtypes]
        views = [noise(4, 6).t(), noise(8, 8)[::2, 1:3], torch.tensor(1.5), torch.zeros(0, 3), torch.tensor([True])]
        several = {"b": noise(2, 3), "a": torch.tensor(1), "c.d": noise(3) > 0.5, "e": np.ones((2, 2), ">f4")}
        return [*tensors, *views, several, {}, {"none": torch.zeros(0)}, np.arange(6).reshape(2, 3)[:, ::2]]

    @pytest.fixture
    def refused_values(self):
        dicts = [{1: noise(2)}, {"a": [noise(2)]}, {"a": {"b": noise(2)}}, {"a": 1.5}, {"__metadata__": noise(2)}]
        return [*dicts, noise(2, 3).to_sparse(), np.array(["a"]), [noise(2)], "text", None, np.ones(2, "c16")]

    def expected(self, value):
        if isinstance(value, dict):
            return {name: self.expected(one) for name, one in value.items()}
        return value if isinstance(value, torch.Tensor) else value.astype(value.dtype.newbyteorder("="))


@pytest.mark.long
class TestSafetensorsWithOptions(TestSafetensors):
    """Another name, and texts beside it."""

    @pytest.fixture
    def encoder(self):
        return write_safetensors.with_options(key="logits", metadata={"format": "pt", "model": "x"})


@make_encoder(suffix=".npy")
def encode_npy(value):
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(value))
    return buffer.getbuffer()


class TestEncoderOfOnesOwn(EncoderContract):
    """A function of the user's."""

    @pytest.fixture
    def encoder(self):
        return encode_npy

    @pytest.fixture
    def values(self):
        return [noise(3, 4), np.arange(6).reshape(2, 3)[:, ::2], [1, 2, 3], np.array(["a", "bc"]), np.zeros((0, 3))]
