"""The options of a writer: what each means, what it may be, and which go together."""

from lighter_async.options.checks import (
    check_path_function,
    check_records,
    check_rows_writer,
    target_of,
    whole_number,
)
from lighter_async.options.config import (
    CallbackOptions,
    Options,
    RowOptions,
    WriterOptions,
    as_attributes,
    documented,
    meaning_of,
)

__all__ = [
    "CallbackOptions",
    "Options",
    "RowOptions",
    "WriterOptions",
    "as_attributes",
    "check_path_function",
    "check_records",
    "check_rows_writer",
    "documented",
    "meaning_of",
    "target_of",
    "whole_number",
]
