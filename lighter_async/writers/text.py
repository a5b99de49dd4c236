"""Texts."""

from __future__ import annotations

import codecs
from typing import Any

from lighter_async.writers.base import Encoder

__all__ = ["decode_text", "encode_text", "write_text"]


def encode_text(value: Any, *, encoding: str = "utf-8") -> bytes:
    """The string representation of any value, without a newline of ours.

    Raises:
        UnicodeEncodeError: The encoding lacks a character of it.
        LookupError: There is no such encoding.
    """
    return str(value).encode(encoding)


def decode_text(data: bytes | memoryview, *, encoding: str = "utf-8") -> str:
    """The text of a file that `encode_text` has made.

    Raises:
        UnicodeDecodeError: It is of another encoding.
    """
    return str(data, encoding)


def _check(*, encoding: str = "utf-8") -> None:
    """
    Raises:
        LookupError: There is no such encoding.
    """
    codecs.lookup(encoding)


write_text = Encoder(encode_text, suffix=".txt", name="text", check=_check, decode=decode_text)
"""``write_text(path, value, *, suffix=".txt", encoding="utf-8")``: write ``str(value)``."""
