"""Writers: the formats. Each turns a value into bytes and knows a suffix; none knows where bytes live.

Each format is imported when it is first used, and so is the registry, which knows them all.
"""

from typing import TYPE_CHECKING

from lighter_async.lazily import on_first_use
from lighter_async.writers.base import Encoder, PathFunction, encoder
from lighter_async.writers.outputs import Output, Outputs, Writer, first_series, is_built_in, key_of_output, outputs_of
from lighter_async.writers.recorded import RecordedOptions, as_stored, recorded_options

if TYPE_CHECKING:
    from lighter_async.writers.array import write_npy
    from lighter_async.writers.image import write_image_2d, write_image_3d
    from lighter_async.writers.jpeg import write_jpeg
    from lighter_async.writers.json import write_json
    from lighter_async.writers.nifti import write_nifti
    from lighter_async.writers.registry import WriterRegistry, writer_registry
    from lighter_async.writers.resolve import resolve_writer
    from lighter_async.writers.safetensors import write_safetensors
    from lighter_async.writers.tensor import write_tensor
    from lighter_async.writers.text import write_text
    from lighter_async.writers.tiff import write_tiff
    from lighter_async.writers.webp import write_webp

__all__ = [
    "Encoder",
    "Output",
    "Outputs",
    "PathFunction",
    "RecordedOptions",
    "Writer",
    "WriterRegistry",
    "as_stored",
    "encoder",
    "first_series",
    "is_built_in",
    "key_of_output",
    "outputs_of",
    "recorded_options",
    "resolve_writer",
    "write_image_2d",
    "write_image_3d",
    "write_jpeg",
    "write_json",
    "write_nifti",
    "write_npy",
    "write_safetensors",
    "write_tensor",
    "write_text",
    "write_tiff",
    "write_webp",
    "writer_registry",
]

_MODULE_OF = {
    "WriterRegistry": "registry",
    "resolve_writer": "resolve",
    "write_image_2d": "image",
    "write_image_3d": "image",
    "write_jpeg": "jpeg",
    "write_json": "json",
    "write_nifti": "nifti",
    "write_npy": "array",
    "write_safetensors": "safetensors",
    "write_tensor": "tensor",
    "write_text": "text",
    "write_tiff": "tiff",
    "write_webp": "webp",
    "writer_registry": "registry",
}

__getattr__ = on_first_use(__name__, _MODULE_OF)
