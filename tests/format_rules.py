"""What each format makes of a value: the refusal with its remedy, or what the format's own package reads.

The table of values is in `test_values.py`.
"""

import gzip

import nibabel
import numpy as np
import torch

NO_DATA = ValueError, r"on the meta device and has no data to write"
NO_ARRAY = TypeError, r"a tensor or a numpy array can be written here, not \w+"
OBJECTS = TypeError, "an array of objects is pickled"


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


RULES = {"nifti": Nifti()}
