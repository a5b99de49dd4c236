"""What each format makes of a value: the refusal with its remedy, or what the format's own package reads.

The table of values is in `test_values.py`.
"""

import gzip
import io
import json
import re

import nibabel
import numpy as np
import safetensors.torch
import tifffile
import torch
from PIL import Image

from lighter_async import writer_registry
from lighter_async.writers.json import write_json
from lighter_async.writers.safetensors import write_safetensors
from lighter_async.writers.tiff import write_tiff

NO_DATA = ValueError, r"on the meta device and has no data to write"
NO_ARRAY = TypeError, r"a tensor or a numpy array can be written here, not \w+"
OBJECTS = TypeError, "an array of objects is pickled"
MASKED = TypeError, r"a masked array would lose its mask here; write array\.filled\(value\)"


def not_dense(value):
    """How a tensor without one dense block of elements is refused; None of others."""
    if value.is_meta:
        return NO_DATA
    if value.is_nested:
        return TypeError, "not a nested tensor; write its parts one by one"
    if value.is_quantized:
        return TypeError, r"has no quantised arrays .* write tensor\.dequantize\(\)"
    if value.layout is not torch.strided:
        return TypeError, r"one dense array, not a torch\.\w+ tensor; write tensor\.to_dense\(\)"
    return None


def as_array(value):
    """Its elements as numpy has them; bfloat16 and float8 as float32."""
    if isinstance(value, torch.Tensor):
        value = value.detach().resolve_conj().resolve_neg().contiguous().as_subclass(torch.Tensor)
        name = str(value.dtype)
        return (value.float() if "bfloat16" in name or "float8" in name else value).numpy()
    return np.asarray(value)


class Nifti:
    """Read by nibabel: the same voxels, with channels last."""

    shape = (3, 2, 4, 5)

    def refusal(self, value):
        if isinstance(value, dict):
            return TypeError, "a dict for a NIfTI image has the keys 'image' and 'affine'"
        if isinstance(value, torch.Tensor):
            lacking = TypeError, "a NIfTI image cannot hold 'complex32'; convert"
            return not_dense(value) or (lacking if value.dtype is torch.complex32 else None)
        if not isinstance(value, (np.ndarray, np.generic)):
            return NO_ARRAY
        if np.ma.is_masked(value):
            return MASKED
        if value.dtype.hasobject:
            return OBJECTS
        if value.dtype.kind in "biufc" and value.dtype != np.longdouble:
            return (ValueError, r"expects \(C, X, Y\[, Z\]\), up to 7 dimensions, got 0") if value.ndim == 0 else None
        return TypeError, "a NIfTI image has no .*; it has uint8"

    def check(self, content, value):
        image = nibabel.Nifti1Image.from_bytes(self.comparable(content))
        voxels, expected = np.asanyarray(image.dataobj), np.moveaxis(as_array(value), 0, -1)
        if expected.ndim < 4:
            expected = expected[..., None, :]
        dtype = {"bool": "uint8", "float16": "float32"}.get(expected.dtype.name, expected.dtype.name)
        assert (voxels.shape, voxels.dtype.name) == (expected.shape, dtype)
        np.testing.assert_array_equal(voxels, expected.astype(dtype))
        np.testing.assert_array_equal(image.affine, np.eye(4))

    def comparable(self, content):
        return gzip.decompress(content)


class Safetensors:
    """Read by its package, whose own file is the same."""

    shape = (3, 4, 5)

    def refusal(self, value):
        if isinstance(value, dict):  # of a tensor, or of a list, and a list
            return TypeError, "a safetensors file holds tensors by name, and '[ab]' is a list"
        if isinstance(value, torch.Tensor):
            lacking = {torch.complex32: "complex32", torch.complex128: "complex128"}.get(value.dtype)
        elif isinstance(value, (np.ndarray, np.generic)):
            if np.ma.is_masked(value):
                return MASKED
            if value.dtype.hasobject:
                return OBJECTS
            lacking = None if value.dtype.kind in "biuf" and value.dtype != np.longdouble else str(value.dtype)
        else:
            return (TypeError, "tensors by name, and 'value' is a list") if isinstance(value, list) else NO_ARRAY
        refused = TypeError, f"a safetensors file cannot hold {re.escape(repr(lacking))}; convert"
        return (not_dense(value) if isinstance(value, torch.Tensor) else None) or (refused if lacking else None)

    def check(self, content, value):
        if not isinstance(value, torch.Tensor):
            value = torch.from_numpy(np.array(value, value.dtype.newbyteorder("="), order="C"))
        value = value.detach().resolve_conj().resolve_neg().contiguous().as_subclass(torch.Tensor)
        assert content == safetensors.torch.save({"value": value})
        loaded, decoded = safetensors.torch.load(content)["value"], write_safetensors.decode(content)
        for one in (loaded, decoded):
            assert (one.dtype, one.shape) == (value.dtype, value.shape)
            assert one.reshape(-1).view(torch.uint8).tolist() == value.reshape(-1).view(torch.uint8).tolist()

    def comparable(self, content):
        return content


class Json:
    """Read by Python's json: the same numbers, texts, lists and dicts."""

    shape = (3, 4, 5)

    def refusal(self, value):
        if isinstance(value, torch.Tensor):
            if value.is_meta:
                return NO_DATA
            refused = not_dense(value)
            if refused is None and value.dtype is torch.complex32:
                refused = TypeError, "a JSON list cannot hold 'complex32'; convert"
            if refused is not None:
                return refused[0], f"the value cannot be a list: .*{refused[1]}"
        if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
            if isinstance(value, np.ndarray) and value.dtype.hasobject:
                return TypeError, f"the value cannot be a list: {OBJECTS[1]}"
            if np.ma.is_masked(value):
                return TypeError, f"the value cannot be a list: {MASKED[1]}"
            array = as_array(value)
            if array.dtype.kind not in "biufU" or array.dtype == np.longdouble:
                return TypeError, r"the value is of dtype .*, which JSON lacks; write array\.real"
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                return ValueError, r"value\[0\]\[0\]\[0\] is nan, which JSON lacks; the option not_finite='null'"
        return None

    def check(self, content, value):
        assert json.loads(content) == write_json.decode(content) == self.expected(value)

    def expected(self, value):
        if isinstance(value, dict):
            return {key: self.expected(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.expected(item) for item in value]
        return as_array(value).tolist()

    def comparable(self, content):
        return content


class Tiff:
    """Read by tifffile: the same array."""

    shape = (3, 4, 5)

    def refusal(self, value):
        if isinstance(value, torch.Tensor):
            name = str(value.dtype).removeprefix("torch.")
            is_lacking = name in ("bfloat16", "complex32") or name.startswith("float8")
            return not_dense(value) or ((TypeError, f"a TIFF cannot hold '{name}'; convert") if is_lacking else None)
        if not isinstance(value, (np.ndarray, np.generic)):
            return NO_ARRAY
        if np.ma.is_masked(value):
            return MASKED
        if value.dtype.hasobject:
            return OBJECTS
        if value.dtype.kind not in "biufc" or value.dtype == np.longdouble:
            return TypeError, "a TIFF has no .*; it has bool, complex64"
        return (ValueError, r"a TIFF is an array \(H, W\), .* got shape \(\)") if value.ndim == 0 else None

    def check(self, content, value):
        expected = as_array(value)
        expected = expected.astype(expected.dtype.newbyteorder("="))
        np.testing.assert_array_equal(tifffile.imread(io.BytesIO(content)), expected, strict=True)
        np.testing.assert_array_equal(write_tiff.decode(content), expected, strict=True)

    def comparable(self, content):
        array = tifffile.imread(io.BytesIO(content))  # ISA-L's compressed bytes may differ from one call to the next
        return array.dtype, array.shape, array.tobytes()


class EightBit:
    """Equal to what Pillow makes of the documented pixels."""

    shape = (3, 4, 5)

    def __init__(self, kind, **options):
        self.kind, self.options = kind, options

    def refusal(self, value):
        if isinstance(value, torch.Tensor):
            if value.is_meta:
                return NO_DATA
            if value.is_nested:
                return TypeError, "not a nested one; write its parts one by one"
            if value.is_quantized:
                return TypeError, r"no quantised tensor .*; write tensor\.dequantize\(\)"
            if value.layout is not torch.strided:
                return TypeError, r"an image is a dense tensor, not a torch\.\w+ one; write tensor\.to_dense\(\)"
            dtype = value.dtype
        elif not isinstance(value, np.ndarray):
            return TypeError, r"an image is a tensor or a numpy array, not \w+"
        elif np.ma.is_masked(value):
            return MASKED
        elif value.dtype.kind not in "biufc" or value.dtype == np.longdouble:
            return TypeError, "an image cannot hold numpy's .*; convert it to float32 or uint8"
        else:
            dtype = torch.from_numpy(np.empty(0, value.dtype.newbyteorder("="))).dtype
        if dtype.is_complex:
            return TypeError, r"an image cannot hold torch\.complex.*tensor\.abs\(\)"
        if not dtype.is_floating_point and dtype not in (torch.uint8, torch.bool):
            return TypeError, "could mean labels or intensities; convert labels"
        return None

    def check(self, content, value):
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(np.array(value, value.dtype.newbyteorder("="), order="C"))
        if value.dtype is torch.bool:
            value = value.float()
        if value.dtype is not torch.uint8:
            value = (value.detach().as_subclass(torch.Tensor).float().clamp(0, 1) * 255).to(torch.uint8)
        pixels = Image.fromarray(np.ascontiguousarray(value.movedim(0, -1).numpy()))
        buffer = io.BytesIO()
        pixels.save(buffer, self.kind, **self.options)
        assert content == buffer.getvalue()
        with Image.open(io.BytesIO(content)) as image:
            decoded = writer_registry.get(self.kind.lower()).decode(content)
            np.testing.assert_array_equal(decoded, np.moveaxis(np.array(image), -1, 0))

    def comparable(self, content):
        return content


RULES = {
    "jpeg": EightBit("JPEG", quality=90, subsampling="4:2:0"),
    "webp": EightBit("WEBP", quality=80, method=4),
    "json": Json(),
    "nifti": Nifti(),
    "safetensors": Safetensors(),
    "tiff": Tiff(),
}
