"""Write `.pt` archives of dense tensors, without calling `torch.save` for each.

Format: the zip archive that `torch.save` writes (torch/serialization.py and caffe2/serialize/inline_container.cc of
PyTorch). Two archives of one dtype and shape differ in the elements, in the elements' CRC-32, which follows them and is
repeated in the zip's directory, and in an identifier that is only logged. So one real archive is a template for all
others (`pt_template.py`).
"""

from __future__ import annotations

import io
import random
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lighter_async.plain_memory import Block, EncodedRows, Rows
from lighter_async.writers.pt_large import template_of_large
from lighter_async.writers.pt_template import IDENTIFIER, Template, places_of, record_of, split, start_of

__all__ = ["Archives"]

# Above this a template costs more than it saves: it takes two archives of the tensor's size to make.
_LARGEST = 64 << 20
_LARGEST_SHARED = 16 << 20  # making one takes the submitting thread a tenth of a second
_MOST_TEMPLATES = 1024
_TRIED_ALONE = 64
_LARGE = 1 << 16  # bytes above which a template is made without keeping whole archives
_RANDOM = 65_521  # bytes; a prime, so that no repetition is aligned

Kind: TypeAlias = "tuple[str, tuple[int, ...]]"
"""A tensor's dtype, as torch's name for it, and shape."""


class Archives:
    """Templates by dtype and shape, made when they are worth their cost.

    Two threads may make a template at once; both make the same one.
    """

    def __init__(self) -> None:
        self._templates: dict[Kind, Template | None] = {}  # None after one sample
        self._unfit: set[Kind] = set()
        # Kinds with a template that no second sample has used yet: in this process, and in helpers.
        self._unused: set[Kind] = set()
        self._unused_shared: set[Kind] = set()

    def encode(self, block: Block) -> list[memoryview] | None:
        """What `torch.save` writes for a dense tensor; None if `torch.save` has to be called.

        It has to be called for very large tensors, if PyTorch writes a layout that this does not know, and for the
        first tensor of a kind if it is large or nearly all are of different kinds: a template does not pay for one.
        Otherwise the first tensor makes the template: all files of a kind have the template's identifier, so a file
        does not show which tensor came first.
        """
        template = self._template((block.dtype, block.shape), block.memory.nbytes)
        return None if template is None else template.fill(block.memory.data)

    def rows(self, rows: Rows) -> EncodedRows | None:
        """The archives of several tensors of one kind; None where `encode` has to be called for each."""
        nbytes = rows.memory.shape[1]
        template = self._template((rows.dtype, rows.shape), nbytes) if rows.is_tensor else None
        if template is None:
            return None
        return EncodedRows(template.nbytes + nbytes, partial(template.fill_rows, rows.memory))

    def warm_up(self) -> None:
        """Do now what the first template would take besides, such as importing what saves tensors."""
        if "torch" in sys.modules:
            with suppress(Exception):  # which the first sample tells, if it meets it, too
                _make("float32", (1,), 4)

    def share(self, kinds: Mapping[Kind, int]) -> list[tuple[Kind, Template]]:
        """Templates for the tensors of a batch, for a process that encodes them without PyTorch.

        Args:
            kinds: The bytes of each kind of tensor.
        """
        found = []
        for key, nbytes in kinds.items():
            template = self._templates.get(key)
            if template is None and nbytes <= _LARGEST_SHARED and key not in self._unfit:
                template = self._worth_while(key, nbytes, self._unused_shared)
            elif template is not None:
                self._unused_shared.discard(key)
            if template is not None:
                found.append((key, template))
        return found

    def learn(self, templates: Iterable[tuple[Kind, Template]]) -> None:
        """Take over what another process shared."""
        for key, template in templates:
            if self._templates.get(key) is None:
                self._remember(key, template)

    def _template(self, key: Kind, nbytes: int) -> Template | None:
        template = self._templates.get(key)
        if template is None:
            return None if nbytes > _LARGEST or key in self._unfit else self._worth_while(key, nbytes, self._unused)
        if self._unused:
            self._unused.discard(key)
        return template

    def _worth_while(self, key: Kind, nbytes: int, unused: set[Kind]) -> Template | None:
        """A template, if it pays: not for each of many samples that are all of different kinds."""
        if key in self._templates or (len(unused) < _TRIED_ALONE and nbytes <= _LARGEST_SHARED):
            if key not in self._templates:
                unused.add(key)
            return self._made(key, nbytes)
        self._remember(key, None)
        return None

    def _made(self, key: Kind, nbytes: int) -> Template | None:
        template = _make(*key, nbytes)
        if template is None:
            self._unfit.add(key)
        else:
            self._remember(key, template)
        return template

    def _remember(self, key: Kind, template: Template | None) -> None:
        if len(self._templates) >= _MOST_TEMPLATES:
            self._templates.clear()
            self._unfit.clear()
            self._unused.clear()
            self._unused_shared.clear()
        self._templates[key] = template


def _make(dtype: str, shape: tuple[int, ...], nbytes: int) -> Template | None:
    """A template; None if it does not make of other elements what `torch.save` makes of them."""
    if nbytes > _LARGE:
        template = template_of_large(partial(_save_to, dtype=dtype, shape=shape), nbytes)
        if template is not None:
            return template
    first, second = (_elements(seed, dtype, nbytes) for seed in (1, 2))
    template = split(_save(first, dtype, shape), nbytes)
    if template is None:
        return None
    made = b"".join(template.fill(second.data))
    return template if _without_identifier(made) == _without_identifier(_save(second, dtype, shape)) else None


def _elements(seed: int, dtype: str, nbytes: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    some = np.frombuffer(random.Random(seed).randbytes(min(nbytes, _RANDOM)), np.uint8)
    if dtype == "bool":
        some = some & np.uint8(1)
    whole = np.empty(nbytes, np.uint8)
    for start in range(0, nbytes, len(some)):
        whole[start : start + len(some)] = some[: nbytes - start]
    return whole  # repeated, since more random numbers would take longer than all the rest


def _save(elements: np.ndarray[tuple[int], np.dtype[np.uint8]], dtype: str, shape: Sequence[int]) -> bytes:
    buffer = io.BytesIO()
    _save_to(buffer, elements, dtype=dtype, shape=shape)
    return buffer.getvalue()


def _save_to(file: Any, elements: NDArray[np.uint8], *, dtype: str, shape: Sequence[int]) -> None:
    import torch

    torch.save(torch.from_numpy(elements).view(getattr(torch, dtype)).view(shape), file)


def _without_identifier(archive: bytes) -> list[memoryview]:
    """The archive in pieces, without the record that identifies it in logs, and without that record's checksums."""
    pieces, view = [], memoryview(archive)
    record = record_of(archive, IDENTIFIER)
    if record is not None:
        start = start_of(archive, record.header_offset)
        pieces = [view[:start]]
        view = view[start + record.file_size :]
        for place in places_of(archive, struct.pack("<I", record.CRC), start + record.file_size):
            end = len(archive) - len(view)
            pieces.append(view[: place - end])
            view = view[place - end + 4 :]
    return [*pieces, view]
