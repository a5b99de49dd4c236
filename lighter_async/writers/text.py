"""Texts as ``.txt`` files."""

from __future__ import annotations

import codecs
from typing import Any

from lighter_async.writers.base import Encoder

__all__ = ["decode_text", "encode_text", "write_text"]


def encode_text(value: Any, *, encoding: str = "utf-8") -> bytes:
    """``str(value)``, without a newline added.

    Raises:
        UnicodeEncodeError: The encoding lacks one of its characters.
        LookupError: There is no such encoding.
    """
    return str(value).encode(encoding)


def decode_text(data: bytes | memoryview, *, encoding: str = "utf-8") -> str:
    """The text of a file that `encode_text` wrote.

    Raises:
        UnicodeDecodeError: The file has another encoding.
    """
    try:
        return str(data, encoding)
    except UnicodeDecodeError as error:
        error.reason += "; decode=write_text.with_options(encoding=...) reads a text of another encoding"
        raise


def _check(*, encoding: str = "utf-8") -> None:
    """
    Raises:
        LookupError: There is no such encoding.
    """
    codecs.lookup(encoding)


write_text = Encoder(encode_text, suffix=".txt", name="text", check=_check, decode=decode_text)
"""``write_text(path, value, *, suffix=".txt", encoding="utf-8")``: write ``str(value)``."""
