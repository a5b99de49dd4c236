"""What travels between a process and its helpers as pickles: the job, what a batch is, and failures.

Plain batches are pickled by `pickle` itself. Whatever may hold a user's own functions or classes goes by cloudpickle,
which takes lambdas, closures, and what a script or a notebook defines.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from lighter_async.errors import LighterAsyncError, WriteError, describe
from lighter_async.names import Numbers
from lighter_async.pickle_by_value import dumps, loads, loads_own
from lighter_async.staging import Staged
from lighter_async.staging.slots import Slot
from lighter_async.tracebacks import WriterTraceback, add_cause, shorten, traceback_of
from lighter_async.types import Batch, Origin
from lighter_async.workers.worker_job import Job

__all__ = [
    "BatchReader",
    "unpickled_failure",
    "unpickled_names",
    "pickled",
    "pickled_failure",
    "pickled_names",
    "pickled_values",
]

_LARGEST_FAILURE = 64 << 10


def pickled(thing: Any, what: str) -> bytes:
    """A pickle of anything that a helper needs.

    Raises:
        TypeError: It cannot be pickled; the message says what and the way out.
    """
    try:
        return dumps(thing)
    except Exception as error:
        raise TypeError(
            f"{what} cannot be sent to a helper process ({describe(error)}); what it refers to, such as an open file, "
            "a lock or a model, has to be made where it is used, or choose backend='thread'"
        ) from error


class _OneDnn:
    """In the place of a tensor in oneDNN's layout, which PyTorch does not pickle; unpickled it is the tensor."""

    def __init__(self, tensor: Any) -> None:
        self._dense = tensor.to_dense()

    def __reduce__(self) -> tuple[Any, ...]:
        return _to_one_dnn, (self._dense,)


def _to_one_dnn(dense: Any) -> Any:
    return dense.to_mkldnn()


def _is_one_dnn(value: Any) -> bool:
    return str(getattr(value, "layout", "")) == "torch._mkldnn"


def pickled_names(names: Sequence[str], origin: Origin | None) -> bytes:
    """The names of a batch, and where its samples come from."""
    # As plain tuples: pickling objects of our own takes longer than all the rest.
    where = None if origin is None else (_plain(origin.indices), origin.loader, origin.batch)
    return pickle.dumps((_plain(names.range) if type(names) is Numbers else names, where), 5)


def unpickled_names(message: bytes | memoryview) -> tuple[Sequence[str], Origin | None]:
    """What `pickled_names` was given."""
    names, where = pickle.loads(message)
    names = Numbers(range(*names[1:])) if names[:1] == _A_RANGE else names
    if where is None:
        return names, None
    indices, loader, batch = where
    return names, Origin(range(*indices[1:]) if indices and indices[:1] == _A_RANGE else indices, loader, batch)


_A_RANGE = (None,)
"""What the tuple begins with that stands for a range."""


def _plain(indices: Sequence[int] | None) -> Any:
    """A tuple instead of a range."""
    return (*_A_RANGE, indices.start, indices.stop, indices.step) if type(indices) is range else indices


def pickled_values(batch: Batch, job: Job) -> bytes:
    """What the samples of a batch are: all but the bytes in its slot.

    Raises:
        TypeError: A value cannot be pickled.
    """
    staged = batch.staged
    loose = [_OneDnn(value) if _is_one_dnn(value) else value for value in staged.loose]
    contents = (staged.rows, staged.columns, staged.values, loose, staged.kept, _templates(staged, job))
    if staged.plain:
        return pickle.dumps(contents, 5)
    return pickled(contents, f"a value of the batch of {batch.names[0]!r}")


class BatchReader:
    """Makes batches out of what `pickled_values` gave, in a helper.

    Args:
        job: What is done with their samples.
    """

    def __init__(self, job: Job) -> None:
        self._outputs = job.outputs
        # Of the last batch of rows: the next one is mostly like it but for its names and bytes.
        self._message = b""
        self._rows: tuple[Any, Any] = None, None

    def read(self, message: bytes | memoryview, slot: Slot | None) -> Staged:
        """A batch, whose slot lies in this process's memory, too."""
        if self._message and message == self._message:
            rows, columns = self._rows
            return Staged(slot, None, rows, [], [], [], columns=columns)
        rows, columns, values, loose, kept, templates = loads(message)
        for output, shared in zip(self._outputs, templates, strict=False):
            if shared:
                output.encoder.learn(shared)
        is_rows = (rows is not None or columns is not None) and not (values or loose or kept)
        self._message, self._rows = (bytes(message), (rows, columns)) if is_rows else (b"", (None, None))
        return Staged(slot, None, rows, values, loose, kept, columns=columns)


def pickled_failure(failure: WriteError) -> bytes:
    """A failure, with where it was raised, in at most about `_LARGEST_FAILURE` bytes."""
    cause = failure.cause
    assert cause is not None
    pickle_of_cause = _pickled_cause(cause)
    if len(pickle_of_cause) > _LARGEST_FAILURE:
        pickle_of_cause = _pickled_cause(_shortened(cause))
    if len(pickle_of_cause) > _LARGEST_FAILURE:
        pickle_of_cause = b""
    about = failure.writer, failure.name, failure.attempts, failure.kept
    return pickle.dumps((about, pickle_of_cause, shorten(describe(cause)), traceback_of(cause)), 5)


def unpickled_failure(message: bytes) -> WriteError:
    """The failure, whose cause says where in the helper it was raised."""
    (writer, name, attempts, kept), pickle_of_cause, text, where = pickle.loads(message)
    cause: BaseException = LighterAsyncError(text)
    try:
        made = loads_own(pickle_of_cause)
        if isinstance(made, BaseException):
            add_cause(made, WriterTraceback(where))
            cause = made
    except BaseException:  # some exceptions cannot be pickled, and some cannot be made again
        pass
    if cause.__cause__ is None:
        cause.__cause__ = WriterTraceback(where)
    failure = WriteError.of_sample(cause, writer=writer, name=name, attempts=attempts)
    failure.kept = kept
    return failure


def _pickled_cause(cause: BaseException | None) -> bytes:
    try:
        return b"" if cause is None else dumps(cause)
    except Exception:
        return b""


def _shortened(cause: BaseException) -> BaseException | None:
    """An exception of the same type with its texts cut; None if it cannot be made."""
    try:
        short = type(cause).__new__(type(cause))
        short.args = tuple(shorten(word) if isinstance(word, str) else word for word in cause.args)
    except Exception:
        return None
    return short


def _templates(staged: Staged, job: Job) -> Sequence[Any]:
    return [output.encoder.share(staged.kinds(output.key)) for output in job.outputs]
