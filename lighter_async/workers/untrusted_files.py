"""PyTorch's files, of anybody's making, as what a plain value is stored as: nothing of them runs, or grows.

``torch.load(weights_only=True)`` runs no code either, but takes the file's word for how much memory a value needs: data
that is compressed, tensors that repeat their elements, texts and lists that refer to each other. So this reads what
`to_plain` has `torch.save` write, and no more: what comes out takes memory in proportion to the file.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import sys
import zipfile
from typing import IO, Any, ClassVar

from lighter_async.limits import memory_bytes

__all__ = ["read_untrusted"]

_MOST = 1 << 63
_MOST_DIMENSIONS = 256
_CHUNK = 1 << 20
_PER_BYTE = 64  # bytes of memory, at most, that a byte of a pickle, or of an archive's list of contents, makes
_STEPS = (
    "PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE EMPTY_LIST APPEND APPENDS "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL REDUCE BINPERSID"
)
_STORAGES = {
    "UntypedStorage": "uint8",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "BoolStorage": "bool",
}
_Unpickler: Any = pickle._Unpickler  # its steps are methods of Python's own


def read_untrusted(file: IO[bytes]) -> Any:
    """The lists, tensors, texts and numbers that a file holds.

    Raises:
        ValueError: They are not stored as `to_plain` has them stored, or are more than half of the memory.
        OSError: The file cannot be read.
    """
    size = os.fstat(file.fileno()).st_size
    if size > memory_bytes() // 2:
        raise ValueError(f"{size} bytes are more than half of the memory")
    try:
        bounded = _Bounded(file, size)
        with zipfile.ZipFile(bounded) as archive:
            bounded.most = size
            members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise ValueError("it is compressed")
            if sum(info.file_size for info in archive.infolist()) > size:
                raise ValueError("it says that it holds more than it does")
            if archive.read(members["byteorder"]).decode() != sys.byteorder:
                raise ValueError("it is of a machine with another order of bytes")
            if members["data.pkl"].file_size > memory_bytes() // _PER_BYTE:
                raise ValueError("its pickle is too long")
            return _Reader(archive, members).load()
    except (ValueError, OSError):
        raise
    except Exception as error:  # of a file that is none of ours whatever may come
        raise ValueError(f"it is not as values are stored: {type(error).__name__}: {error}") from error


class _Bounded(io.BufferedIOBase):
    """A file of which no more is read at once than `most` bytes: an archive's list of contents, as it is opened."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.most = memory_bytes() // _PER_BYTE
        self._file = file
        self._size = size

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._file.tell())
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > self.most:
            raise ValueError("it lists too much")
        return self._file.read(wanted)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


class _Reader(_Unpickler):  # type: ignore[misc]
    """Takes the steps of a pickle that plain values need, and those functions of PyTorch's that make tensors."""

    dispatch: ClassVar = {
        getattr(pickle, step)[0]: _Unpickler.dispatch[getattr(pickle, step)[0]] for step in _STEPS.split()
    }

    def __init__(self, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> None:
        super().__init__(io.BytesIO(archive.read(members["data.pkl"])))
        self._archive = archive
        self._members = members
        self._data: dict[str, bytearray] = {}

    def find_class(self, module: str, name: str) -> Any:
        """One of our own functions, or a dtype, which nothing can be made of."""
        import torch

        if (module, name) in _FUNCTIONS:
            return _FUNCTIONS[module, name]
        found = getattr(torch, _STORAGES.get(name, name), None) if module in ("torch", "torch.storage") else None
        if not isinstance(found, torch.dtype):
            raise ValueError(f"it names {module}.{name}")
        return found

    def persistent_load(self, about: Any) -> Any:
        """The dtype and the bytes of a storage."""
        what, dtype, key, _, count = about
        if what != "storage" or type(key) is not str:
            raise ValueError("it refers to something that is no storage")
        if key not in self._data:
            self._data[key] = self._read(self._members[f"data/{key}"])
        if type(count) is not int or count * dtype.itemsize != len(self._data[key]):
            raise ValueError("a storage is not as large as it says")
        return dtype, self._data[key]

    def _read(self, member: zipfile.ZipInfo) -> bytearray:
        data = bytearray(member.file_size)
        filled = 0
        with self._archive.open(member) as file:
            while piece := file.read(_CHUNK):
                data[filled : filled + len(piece)] = piece
                filled += len(piece)
        if filled != len(data) or filled != member.file_size:
            raise ValueError("it ends early")
        return data


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, _hooks: None, dtype: Any = None
) -> Any:
    """A tensor that lies within its storage, and does not repeat what is there so that it is larger."""
    import torch

    stored_as, data = storage
    dtype = dtype or stored_as
    if not len(size) == len(stride) <= _MOST_DIMENSIONS or not all(
        type(one) is int and 0 <= one < _MOST for one in (offset, *size, *stride)
    ):
        raise ValueError("a tensor has no valid shape")
    count = math.prod(size)
    if not count:
        found = torch.empty(size, dtype=dtype)
    else:
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if max(last + 1, count) * dtype.itemsize > len(data):
            raise ValueError("a tensor is larger than what is stored of it")
        flat = torch.frombuffer(data, dtype=torch.uint8)
        found = torch.as_strided(flat.view(dtype), size, stride, offset)
    return found.requires_grad_() if requires_grad else found


def _parameter(tensor: Any, requires_grad: Any, _hooks: None) -> Any:
    import torch

    if type(tensor) is not torch.Tensor:
        raise ValueError("a parameter is no tensor")
    return torch.nn.Parameter(tensor.detach(), requires_grad is True)


def _no_hooks() -> None:
    """What stands for a tensor's hooks, of which there are none."""


_FUNCTIONS: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("collections", "OrderedDict"): _no_hooks,
}
