"""Writers: the formats. Each turns a value into bytes and knows a suffix; none knows where bytes live."""

from lighter_async.writers.base import Encoder, PathFunction, encoder
from lighter_async.writers.image import write_image_2d, write_image_3d
from lighter_async.writers.outputs import Output, Outputs, Writer, first_series, is_built_in, key_of_output, outputs_of
from lighter_async.writers.registry import WriterRegistry, writer_registry
from lighter_async.writers.resolve import resolve_writer
from lighter_async.writers.tensor import write_tensor
from lighter_async.writers.text import write_text

__all__ = [
    "Encoder",
    "Output",
    "Outputs",
    "PathFunction",
    "Writer",
    "WriterRegistry",
    "encoder",
    "first_series",
    "is_built_in",
    "key_of_output",
    "outputs_of",
    "resolve_writer",
    "write_image_2d",
    "write_image_3d",
    "write_tensor",
    "write_text",
    "writer_registry",
]
