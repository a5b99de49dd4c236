"""Lines are read. Others may write to the directory, so nothing in a line is taken on trust."""

from __future__ import annotations

import json
import os
import re
from typing import Any, get_args

import msgspec

from lighter_async.errors import InvalidNameError, LighterAsyncError
from lighter_async.manifest.entry import Dropped, Entry, Loaders, Record, RunRecord, Sealed
from lighter_async.manifest.line import FORMAT, MOST_DIMENSIONS, Loader, Samples
from lighter_async.names import check_object
from lighter_async.runs import MOST_RUNS
from lighter_async.types import Durability

__all__ = ["encoded_text", "parse", "parse_samples"]

_LARGEST = 1 << 63  # what fits the columns of a table
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*\.[a-z]{1,4}" if os.name == "posix" else "(?!)")
_SAMPLES = b'{"samples":'


def parse_samples(line: bytes) -> Samples | None:
    """What a line of samples says; None if it is none, or says what no writer says."""
    if not line.startswith(_SAMPLES):
        return None
    try:
        return _decode_samples(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:  # names that are not of UTF-8 are JSON for Python alone
        return msgspec.convert(_decode(line.decode()), Samples)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return None


_decode_samples = msgspec.json.Decoder(Samples).decode


def parse(line: bytes) -> Entry | None:
    """What a line says; None if it is not whole, or says what no writer says.

    Raises:
        LighterAsyncError: A later version of this package has written it.
    """
    if line.startswith(_SAMPLES):
        return parse_samples(line)
    try:
        fields = _decode(line.decode())
        if type(fields) is not dict:
            return None
        if "dropped" in fields:
            return _dropped(fields)
        if "loaders" in fields:
            return _loaders(fields)
        if "sealed" in fields:
            return _sealed(fields)
        if "format" in fields:
            return _run(fields)
        return _record(fields)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


_decode = json.JSONDecoder().decode

_FIELDS = tuple(Record.__dataclass_fields__)[:-1]  # version 1 has a file for each sample
# Of nearly all lines: a file that is known, and of what and where it comes from all or nothing.
_USUAL = frozenset(
    (str, str, int, str, index, shape, dtype, int, int, batch, float, str, str, str)
    for index in (int, type(None))
    for shape, dtype in ((list, str), (type(None), type(None)))
    for batch in (int, type(None))
)


def _record(fields: dict[str, Any]) -> Record | None:
    # One look at all types at once, since there may be millions of lines.
    if tuple(fields) == _FIELDS and tuple(map(type, fields.values())) in _USUAL:
        name, file, size, xxh3, index, shape, dtype, rank, loader, batch, time, run, writer, key = fields.values()
        if (
            0 <= size < _LARGEST
            and 0 <= rank < _LARGEST
            and 0 <= loader < _LARGEST
            and (index is None or -_LARGEST <= index < _LARGEST)
            and (batch is None or -_LARGEST <= batch < _LARGEST)
            and (shape is None or (len(shape) <= MOST_DIMENSIONS and all(map(_is_count, shape))))
            and -_LARGEST < time < _LARGEST
            and _is_file(file)
        ):
            if shape is not None:
                shape = tuple(shape)
            return Record(name, file, size, xxh3, index, shape, dtype, rank, loader, batch, time, run, writer, key)
        return None
    return _unusual_record(fields)


def _unusual_record(fields: dict[str, Any]) -> Record | None:
    shape = fields["shape"]
    if shape is not None:
        if len(shape) > MOST_DIMENSIONS or not all(_is_count(size) for size in shape):
            return None
        fields["shape"] = tuple(shape)
    record = Record(**fields)
    file, index, batch = record.file, record.index, record.batch
    is_whole = (
        type(record.name) is str
        and (file is None or _is_file(file))
        and (record.bytes is None) == (file is None) == (record.xxh3 is None)
        and (file is None or (_is_count(record.bytes) and type(record.xxh3) is str))
        and (index is None or (type(index) is int and -_LARGEST <= index < _LARGEST))
        and (batch is None or (type(batch) is int and -_LARGEST <= batch < _LARGEST))
        and (record.dtype is None or type(record.dtype) is str)
        and _is_count(record.rank)
        and _is_count(record.loader)
        and _is_time(record.time)
        and type(record.run) is type(record.writer) is type(record.key) is str
    )
    return record if is_whole else None


def _dropped(fields: dict[str, Any]) -> Dropped | None:
    name, file, run, time = fields["dropped"], fields["file"], fields.get("run", ""), fields["time"]
    # Earlier versions did not say which file they had found: none that was there then.
    seen = fields["seen"] if "seen" in fields else [0, int(time * 1e9), 0]
    if seen is not None and not (type(seen) is list and len(seen) == 3 and all(_is_count(one) for one in seen)):
        return None
    if not (type(name) is type(run) is str and _is_time(time) and (file is None or _is_file(file))):
        return None
    series: tuple[str, str] | None = None
    if "series" in fields:
        writer, key = fields["series"]
        if not type(writer) is type(key) is str:
            return None
        series = writer, key
    offset = fields.get("offset", 0)
    if not _is_count(offset):
        return None
    return Dropped(name, file, time, run, None if seen is None else tuple(seen), series, offset)


def _loaders(fields: dict[str, Any]) -> Loaders | None:
    loaders = tuple(Loader(**one) for one in fields["loaders"])
    named = fields.get("named", False)
    words = fields["run"], fields["writer"], fields["key"]
    is_whole = (
        all(type(word) is str for word in words)
        and type(named) is bool
        and all(
            (one.length is None or _is_count(one.length)) and (one.fingerprint is None or type(one.fingerprint) is str)
            for one in loaders
        )
    )
    return Loaders(*words, loaders, named) if is_whole else None


def _sealed(fields: dict[str, Any]) -> Sealed | None:
    name, run, time = fields["sealed"], fields["run"], fields["time"]
    return Sealed(name, run, time) if _is_file(name) and type(run) is str and _is_time(time) else None


def encoded_text(text: str) -> bytes:
    """A text as lines of samples have it."""
    try:
        return msgspec.json.encode(text)
    except UnicodeEncodeError:
        return json.dumps(text).encode()


def _run(fields: dict[str, Any]) -> RunRecord | None:
    version = fields.pop("format")
    if type(version) is int and version > FORMAT:
        raise LighterAsyncError(
            f"the manifest is of format {version}, and this version of lighter_async knows {FORMAT}; upgrade it"
        )
    beside, lost = fields.pop("beside", []), fields.pop("lost_options", [])
    run = RunRecord(**fields, beside=tuple(beside), lost_options=tuple(lost))
    words = run.run, run.writer, run.key, run.suffix, run.boot, *run.beside, *run.lost_options
    is_whole = (
        type(beside) is type(lost) is list
        and (run.options is None or type(run.options) is dict)
        and all(type(word) is str for word in words)
        and "/" not in run.suffix
        and type(run.resume) is type(run.numbered) is bool
        and all(_is_count(number) for number in (run.rank, run.world_size, run.sequence))
        and run.sequence <= MOST_RUNS
        and type(run.since) is int
        and _is_time(run.time)
        and run.durability in get_args(Durability)
    )
    return run if is_whole else None


def _is_file(file: object) -> bool:
    if type(file) is not str:
        return False
    if _PLAIN.fullmatch(file):
        return True  # as nearly all are
    try:
        check_object(file)
    except InvalidNameError:
        return False
    return True


def _is_count(number: object) -> bool:
    return type(number) is int and 0 <= number < _LARGEST


def _is_time(number: object) -> bool:
    return type(number) in (int, float) and abs(number) < _LARGEST  # type: ignore[arg-type]
