"""The two kinds of writer.

An `Encoder` turns a value into bytes, and the target stores them, all or nothing. A `PathFunction` gets a path and
writes there itself, as it likes: the interface of the synchronous writer.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from lighter_async.configs import plain
from lighter_async.errors import meant
from lighter_async.names import with_suffix
from lighter_async.plain_memory import Block, EncodedRows, Rows
from lighter_async.whole_files import publish

__all__ = ["Encoded", "Encoder", "PathFunction", "as_parts", "encoder"]

Encoded: TypeAlias = "bytes | bytearray | memoryview | Sequence[bytes | bytearray | memoryview]"
"""What an encoder returns: a bytes-like object, or several to be stored one after the other."""


_CONTEXT = ("shape", "dtype", "trust")  # what a decoder is told of a sample


class Templates(Protocol):
    """Templates that an encoder makes once per dtype and shape in the user's process, also for the helpers."""

    def share(self, kinds: Mapping[tuple[str, tuple[int, ...]], int]) -> Sequence[Any]:
        """The templates for tensors of these dtypes and shapes, of so many bytes each; they can be pickled."""
        ...

    def learn(self, templates: Iterable[Any]) -> None:
        """Take over what `share` returned."""
        ...

    def warm_up(self) -> None:
        """Do now what the first template would take besides."""
        ...


class Encoder:
    """A format: a function from a value to bytes, and a suffix.

    Called with ``(path, value)`` it writes one file, whole or not at all. Handed to a `BackgroundWriter` or
    `FileWriter`, its bytes go to the writer's target. `functools.partial` of an encoder with keyword options is an
    encoder too.

    Args:
        encode: ``(value, **options) -> bytes``. It may run in several threads at once. Tensors and arrays in the value
            are valid during the call only and must not be changed.
        suffix: Appended to names that do not end in it, such as ``".png"``.
        name: Its name in error messages; by default the function's name.
        encode_block: ``(block, **options) -> bytes``, tried first if the value is one dense tensor in host memory: a
            shorter way that makes no tensor. It returns None if the value has to be encoded after all.
        encode_rows: ``(rows, **options) -> EncodedRows``, tried before that where samples that are stored together
            have one dtype and shape: the bytes of all of them at once, if they are of equal size. It returns None if
            each has to be encoded by itself.
        encode_columns: ``(columns, **options) -> EncodedRows``, as `encode_rows` where samples that are stored together
            are dicts: for each of their keys `Rows`, or a list of texts and numbers.
        encode_blocks: ``(value, **options) -> bytes``, tried likewise where dense tensors lie in lists, tuples and
            dicts: ``value`` has a `Block` in the place of each, also of one without elements. So a helper process needs
            no PyTorch. It returns None if the value has to be encoded after all.
        prepare: ``(value, *, is_batch, **options) -> value``, called at hand-over, in the caller's thread, with a
            sample, or with a tensor or an array that has one in each row (``is_batch``). It makes plain tensors and
            containers of values that are more than that, such as tensors of a class of their own, whose class no helper
            process then needs. It copies nothing, and gives back what it does not know; a batch may become a list.
        reduce: ``(tensor, **options) -> tensor``, computed on an accelerator before the tensor is copied to the host,
            to leave fewer bytes to copy. The result has to encode to the same bytes.
        remark: ``(value, **options) -> str | None``, called in the caller's process with the first batch or sample
            that is handed over: what a person should know of how such values are written, which becomes a warning.
        kind_of_dict: ``(parts) -> (dtype, shape) | None``, what is recorded as the dtype and the shape of a value that
            is a dict: ``parts`` is the prepared dict with ``(dtype, shape)`` in the place of each tensor and array. It
            takes no options.
        templates: What `encode_block` needs for some kinds of tensor, and only this process can make.
        check: ``(**options)``, called when options are given, and when a writer is made with it; raises if one has a
            value that it may not have, or a package is not installed.
        decode: ``(bytes) -> value``, the inverse, which `open_results` calls. It also gets the encoder's options for
            which it has parameters, and likewise ``shape`` and ``dtype``, the value's if they are recorded (else None),
            and ``trust``, whether the user trusts everybody who can write to the directory.

    A function with a keyword ``suffix`` is given the suffix that a user has chosen, as an option.

    Raises:
        TypeError: It is not a plain function, or a `functools.partial` gives it arguments that it does not take.
        ValueError: The suffix cannot be one.
    """

    def __init__(
        self,
        encode: Callable[..., Encoded],
        *,
        suffix: str,
        name: str | None = None,
        encode_block: Callable[..., Encoded | None] | None = None,
        encode_rows: Callable[..., EncodedRows | None] | None = None,
        encode_columns: Callable[..., EncodedRows | None] | None = None,
        encode_blocks: Callable[..., Encoded | None] | None = None,
        prepare: Callable[..., Any] | None = None,
        reduce: Callable[..., Any] | None = None,
        remark: Callable[..., str | None] | None = None,
        kind_of_dict: Callable[[Mapping[str, Any]], tuple[str, tuple[int, ...]] | None] | None = None,
        templates: Templates | None = None,
        check: Callable[..., None] | None = None,
        decode: Callable[..., Any] | None = None,
    ) -> None:
        if not callable(encode):
            raise TypeError(f"an encoder is a function (value) -> bytes, not {type(encode).__name__}")
        known = PathFunction.of(encode)  # for its name, and whether it is async
        if known.is_async:
            raise TypeError(
                f"encoder {known.name!r} is an async function; encoding is plain computation, so make it a "
                "plain function, or register an async path function (path, value)"
            )
        if not isinstance(suffix, str):
            raise TypeError(f"suffix is a text such as '.png', not {type(suffix).__name__}")
        if "/" in suffix or "\0" in suffix:
            raise ValueError(f"suffix {suffix!r} holds a '/' or NUL; it is the end of a file name, such as '.png'")
        if suffix and "." not in suffix:
            raise ValueError(
                f"suffix {suffix!r} has no dot, so that 'a' would become {'a' + suffix!r}; write '.{suffix}'"
            )
        self._encode = encode
        self._encode_block = encode_block
        self._encode_rows = encode_rows
        self._encode_columns = encode_columns
        self._encode_blocks = encode_blocks
        self.prepare = prepare
        self._templates = templates
        self._check = check
        self.decoder = decode
        self._context = _keywords_of(decode)
        self.reduce = reduce
        self.remark = remark
        self.kind_of_dict = kind_of_dict
        self.suffix = suffix
        self.made_with: dict[str, Any] | None = None  # the options with which a class or a function has made it
        self.name: str = name or known.name
        self.__doc__ = encode.__doc__
        self.__name__ = self.name

    def encode(self, value: Any) -> list[memoryview]:
        """The bytes of `value`, in one or more parts.

        Raises:
            TypeError: The function returned something that is not bytes-like.
            Exception: What the function raises.
        """
        return as_parts(self._encode(value), self.name)

    @property
    def takes_blocks(self) -> bool:
        """Whether `encode_block` may be tried."""
        return self._encode_block is not None

    def encode_block(self, block: Block) -> list[memoryview] | None:
        """The bytes of a dense tensor; None if `encode` has to be called.

        Raises:
            Exception: What the function raises.
        """
        encoded = None if self._encode_block is None else self._encode_block(block)
        return None if encoded is None else as_parts(encoded, self.name)

    @property
    def takes_columns(self) -> bool:
        """Whether `encode_columns` may be tried."""
        return self._encode_columns is not None

    def encode_columns(self, columns: Mapping[str, Rows | list[Any]]) -> EncodedRows | None:
        """As `encode_rows`, of dicts."""
        return None if self._encode_columns is None else self._encode_columns(columns)

    @property
    def takes_rows(self) -> bool:
        """Whether `encode_rows` or `encode_columns` may be tried."""
        return self._encode_rows is not None or self._encode_columns is not None

    def encode_rows(self, rows: Rows) -> EncodedRows | None:
        """The bytes of several tensors or arrays of one dtype and shape; None if each has to be encoded by itself.

        Raises:
            Exception: What the function raises.
        """
        return None if self._encode_rows is None else self._encode_rows(rows)

    @property
    def takes_blocks_in_containers(self) -> bool:
        """Whether `encode_blocks` may be tried."""
        return self._encode_blocks is not None

    def encode_blocks(self, value: Any) -> list[memoryview] | None:
        """The bytes of a value with a `Block` in the place of each dense tensor; None if `encode` has to be called.

        Raises:
            Exception: What the function raises.
        """
        encoded = None if self._encode_blocks is None else self._encode_blocks(value)
        return None if encoded is None else as_parts(encoded, self.name)

    def decode(
        self,
        data: bytes | memoryview,
        *,
        shape: tuple[int, ...] | None = None,
        dtype: str | None = None,
        trust: bool = False,
    ) -> Any:
        """The value of a file's bytes.

        Args:
            data: The file's content. The value may go on using its memory.
            shape: The value's shape, if it was a tensor or an array and that is known.
            dtype: The name of its dtype, without ``torch.``, likewise.
            trust: Whether code that the bytes name may run, as unpickling does.

        Raises:
            TypeError: This encoder has no decoder.
            Exception: What the decoder raises.
        """
        if self.decoder is None:
            raise TypeError(
                f"encoder {self.name!r} has no decoder; make it with Encoder(..., decode=FUNCTION) or "
                "@encoder(..., decode=FUNCTION), a function (bytes) -> value"
            )
        known = {"shape": shape, "dtype": dtype, "trust": trust}
        if not self.is_built_in and not isinstance(data, bytes):
            data = bytes(data)  # many libraries take nothing else
        return self.decoder(data, **{name: known[name] for name in self._context})

    def share(self, kinds: Mapping[tuple[str, tuple[int, ...]], int]) -> Sequence[Any]:
        """The templates that a helper process needs for tensors of these dtypes and shapes, of so many bytes each."""
        return [] if self._templates is None else self._templates.share(kinds)

    def warm_up(self) -> None:
        """Do now what the first sample would have to wait for."""
        if self._templates is not None:
            self._templates.warm_up()

    def learn(self, shared: Sequence[Any]) -> None:
        """Take over, in a helper process, what `share` returned."""
        if self._templates is not None:
            self._templates.learn(shared)

    @property
    def is_built_in(self) -> bool:
        """Whether it is an encoder of this package, with any options."""
        function: Any = self._encode
        while isinstance(function, functools.partial):
            function = function.func
        return str(getattr(function, "__module__", "")).startswith(f"{__package__}.")

    def with_options(self, *, suffix: str | None = None, **options: Any) -> Encoder:
        """This encoder with another suffix, or with keyword options of its function.

        Raises:
            TypeError: Its function has no such option; the message lists its options.
            ValueError: An option has a value that it may not have.
        """
        self._check_known(options)
        options = {
            name: plain(value) for name, value in options.items()
        }  # as a configuration's own `_target_` calls it
        encode, encode_block, encode_rows = self._encode, self._encode_block, self._encode_rows
        encode_columns, encode_blocks, prepare = self._encode_columns, self._encode_blocks, self.prepare
        reduce, remark, decode = self.reduce, self.remark, self.decoder
        if suffix is not None and _keywords_of(self._encode, ["suffix"]):
            options["suffix"] = suffix
        if options:
            encode = functools.partial(encode, **options)
            encode_block = encode_block and functools.partial(encode_block, **options)
            encode_rows = encode_rows and functools.partial(encode_rows, **options)
            encode_columns = encode_columns and functools.partial(encode_columns, **options)
            encode_blocks = encode_blocks and functools.partial(encode_blocks, **options)
            prepare = prepare and functools.partial(prepare, **options)
            reduce = reduce and functools.partial(reduce, **options)
            remark = remark and functools.partial(remark, **options)
            taken = {name: value for name, value in options.items() if name in _keywords_of(decode, options)}
            decode = functools.partial(decode, **taken) if decode is not None and taken else decode
        changed = Encoder(
            encode,
            suffix=self.suffix if suffix is None else suffix,
            name=self.name,
            encode_block=encode_block,
            encode_rows=encode_rows,
            encode_columns=encode_columns,
            encode_blocks=encode_blocks,
            prepare=prepare,
            reduce=reduce,
            remark=remark,
            kind_of_dict=self.kind_of_dict,
            templates=self._templates,
            check=self._check,
            decode=decode,
        )
        if isinstance(encode, functools.partial):
            changed._run_check()
        return changed

    def given_options(self) -> dict[str, Any]:
        """The options that make this encoder, its suffix among them; or those that its class or function was given."""
        if self.made_with is not None:
            return dict(self.made_with)
        own = self._encode.keywords if isinstance(self._encode, functools.partial) else {}
        return {"suffix": self.suffix, **own} if type(self) is Encoder else dict(own)

    def decoder_options(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of some options that its decoder takes, too."""
        names = [name for name in names if name not in _CONTEXT]
        return _keywords_of(self.decoder, names)

    def _run_check(self) -> None:
        if self._check is not None:
            self._check(**(self._encode.keywords if isinstance(self._encode, functools.partial) else {}))

    def check_options(self) -> None:
        """Check that the function needs only a value, and that its options, and what it needs, are there.

        Raises:
            TypeError: It needs an option that was not given.
            ValueError: An option has a value that it may not have.
            ImportError: It needs a package that is not installed; the message says how to get it.
        """
        signature = _signature_of(self._encode)
        if signature is not None:
            try:
                signature.bind(None)
            except TypeError as error:
                raise TypeError(
                    f"encoder {self.name!r} is called with (value), but takes {signature}: {error}; "
                    "encoder.with_options(...) gives it its options"
                ) from error
        self._run_check()

    def _check_known(self, options: Mapping[str, Any]) -> None:
        signature = _signature_of(self._encode)
        if not options or signature is None:
            return
        try:
            signature.bind_partial(None, **options)
        except TypeError as error:
            _, *rest = signature.parameters.values()
            names = [one.name for one in rest if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
            known = list(dict.fromkeys(["suffix", *names]))
            # The signature's own error is told in full, and would make the traceback longer.
            raise TypeError(
                f"encoder {self.name!r}: {error}; its options are {', '.join(known)}{meant(options, known)}"
            ) from None

    def __call__(self, path: str | os.PathLike[str], value: Any, *, suffix: str | None = None, **options: Any) -> None:
        """Write `value` to `path`, with the suffix appended unless the path ends in it; whole or not at all.

        Raises:
            OSError: The folder does not exist, or the file cannot be written.
            Exception: What the encoder raises.
        """
        chosen = self if suffix is None and not options else self.with_options(suffix=suffix, **options)
        path = Path(path)
        publish(path.with_name(with_suffix(path.name, chosen.suffix)), chosen.encode(value))

    def __repr__(self) -> str:
        return f"<encoder {self.name!r}, suffix {self.suffix!r}>"


def _signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """A function's signature; None if it is not known, as for some functions written in C.

    Raises:
        TypeError: It is a `functools.partial` with arguments that its function does not take.
    """
    try:
        return inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError) as error:
        if isinstance(function, functools.partial) and has_signature(function.func):
            raise TypeError(f"an encoder does not take what functools.partial gives it: {error}") from error
        return None


def _keywords_of(decode: Callable[..., Any] | None, names: Iterable[str] = _CONTEXT) -> tuple[str, ...]:
    """The names for which a decoder has keyword parameters."""
    if decode is None:
        return ()
    try:
        parameters = inspect.signature(decode).parameters
    except (TypeError, ValueError):
        return ()  # not known, as for some functions written in C
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(name for name in names if name in parameters and parameters[name].kind in kinds)


def has_signature(function: Callable[..., Any]) -> bool:
    """Whether a function's signature is known."""
    try:
        inspect.signature(function)
    except (TypeError, ValueError):
        return False
    return True


@dataclass(frozen=True)
class PathFunction:
    """A function ``(path, value)`` that writes where it likes.

    Attributes:
        function: Called with the final path, without a suffix, and a value of its own.
        name: Its name in error messages.
        is_async: Whether it has to be awaited.
    """

    function: Callable[[Path, Any], Any]
    name: str
    is_async: bool

    @classmethod
    def of(cls, function: Callable[[Path, Any], Any]) -> PathFunction:
        plain = function
        while isinstance(plain, functools.partial):
            plain = plain.func
        call = getattr(plain, "__call__", None)  # noqa: B004 - to look at it, not to ask whether there is one
        is_async = inspect.iscoroutinefunction(plain) or inspect.iscoroutinefunction(call)
        return cls(function, getattr(plain, "__name__", type(plain).__name__), is_async)


def encoder(
    *function: Any, suffix: str = "", name: str | None = None, decode: Callable[..., Any] | None = None
) -> Callable[[Callable[..., Encoded]], Encoder]:
    """Make an `Encoder` from a function ``(value) -> bytes``.

    ```python
    @writer_registry.register("npz")
    @encoder(suffix=".npz")
    def encode_npz(value):
        buffer = io.BytesIO()
        numpy.savez_compressed(buffer, value=value.numpy())
        return buffer.getbuffer()
    ```

    Args:
        function: Nothing; the decorated function follows below.
        suffix: As for `Encoder`.
        name: As for `Encoder`.
        decode: As for `Encoder`.

    Raises:
        TypeError: It is used as a bare decorator, without a suffix.
        ValueError: The suffix has no dot.
    """
    if function:
        raise TypeError(
            "write @encoder(suffix='.npy'), with the ending of the files that it makes, not a bare @encoder"
        )
    return lambda function: Encoder(function, suffix=suffix, name=name, decode=decode)


def as_parts(encoded: Encoded, writer: str) -> list[memoryview]:
    """The bytes that an encoder returned, as flat views.

    Raises:
        TypeError: It is not bytes-like, nor a sequence of bytes-like parts.
    """
    parts: Sequence[Any] = encoded if isinstance(encoded, (list, tuple)) else [encoded]
    try:
        return [_flat(part if type(part) is memoryview else memoryview(part)) for part in parts]
    except (TypeError, ValueError, BufferError) as error:
        raise TypeError(
            f"encoder {writer!r} returned {type(encoded).__name__}; it must return bytes, bytearray, memoryview, or a "
            "list of them"
        ) from error


def _flat(view: memoryview) -> memoryview:
    if view.format == "B" and view.ndim == 1 and view.c_contiguous:
        return view
    return view.cast("B") if view.nbytes else memoryview(b"")  # a view with a 0 in its shape cannot be cast
