"""The options of a writer: what each means, its default, and what it may be. Nowhere else are they spelled out."""

from __future__ import annotations

import difflib
import functools
import inspect
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import Annotated, Any, TypedDict, TypeVar, cast, get_args, get_type_hints

from lighter_async.configs import plain
from lighter_async.limits import DEFAULT_ATTEMPTS, DEFAULT_QUEUE_SIZE, default_queue_bytes, default_workers
from lighter_async.options.checks import at_least_one, config_of, one_of, seconds
from lighter_async.staging import Accelerator
from lighter_async.types import BackendName, Durability, IfExists, OnError, Run

__all__ = ["CallbackOptions", "Options", "WriterOptions", "as_attributes", "documented", "meaning_of"]

_T = TypeVar("_T", bound=type)
_WIDTH = 112  # of a docstring's lines, without its indentation
_PLACE = "    {options}"  # in a class's docstring


class RowOptions(TypedDict, total=False):
    """The options that `ArrayWriter` and `TableWriter` take as well, for type checkers; they are those of `Options`."""

    backend: BackendName
    max_workers: int | None
    queue_size: int
    queue_bytes: int | None
    if_exists: IfExists | None
    durability: Durability | None
    manifest: bool
    resume: bool
    run_config: Any
    mix_configs: bool
    on_error: OnError
    attempts: int
    wait_for_space: float
    write_timeout: float | None


class CallbackOptions(RowOptions, total=False):
    """Those that `FileWriter` takes."""

    writer_options: Mapping[str, Any] | None


class WriterOptions(CallbackOptions, total=False):
    """All options, for type checkers."""

    run: Run | None
    accelerator: Accelerator | None


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a writer, checked.

    Raises:
        ValueError: One is out of range.
        TypeError: One is of a wrong type.
    """

    writer_options: Annotated[
        Mapping[str, Any] | None,
        """Keyword options of the writer, such as ``{"compress_level": 1}``.""",
    ] = None
    backend: Annotated[
        BackendName,
        """``"process"``: helper processes, which never hold this process's interpreter lock. ``"thread"``: threads of
        this process, for writers that have to see its objects. ``"auto"`` chooses at the start: processes for the
        writers of this package that store in a directory; threads for anything else, on one core, and beside programs
        that keep the cores busy. `stats` says which, and why.""",
    ] = "auto"
    max_workers: Annotated[
        int | None,
        """Samples that are written at once. By default one per core, at most four, shared between the job's ranks on
        this machine. A container's CPU limit counts as so many whole cores, at least one.""",
    ] = None
    queue_size: Annotated[
        int,
        """Samples that may be queued or being written; at most 1,048,576 with helper processes. By default so many that
        `queue_bytes` is reached before, unless samples are tiny.""",
    ] = DEFAULT_QUEUE_SIZE
    queue_bytes: Annotated[
        int | None,
        """Bytes of host memory that they may hold. By default a thirty-second of the memory, at least 64 MiB and at
        most 1 GiB. What the workers' encoders allocate for `max_workers` samples comes on top.""",
    ] = None
    if_exists: Annotated[
        IfExists | None,
        """What becomes of a file of an earlier run under a sample's name: ``"overwrite"`` it, as by default, ``"skip"``
        the sample (the results that count then are those of earlier runs, and what is added), or fail it with an
        ``"error"``. A function ``(path, value)`` decides that for itself.""",
    ] = None
    durability: Annotated[
        Durability | None,
        """``"rename"``, the default: what is stored outlives the end of any process. ``"fsync"``: and a loss of power,
        which takes an encoder.""",
    ] = None
    manifest: Annotated[
        bool,
        """Whether to record what is stored, in ``.lighter-async/manifest-RANK.jsonl`` below the directory: the base of
        `read_manifest`, of resuming, and of ``lighter-async verify``.""",
    ] = True
    resume: Annotated[
        bool,
        """Go on with what earlier runs have stored, instead of counting all of it as not done. `pending` makes a
        sampler that leaves out what is stored. Samples with names are known by them, whatever their index is now;
        those without are known by their index in the data set.""",
    ] = False
    run_config: Annotated[
        Any,
        """What the run is made with, such as a checkpoint's name: a word, or anything that JSON has. It is recorded,
        and what was made with something else is not resumed from. None says nothing.""",
    ] = None
    mix_configs: Annotated[
        bool,
        "Resume from what was made with something else all the same.",
    ] = False
    on_error: Annotated[
        OnError,
        """``"stop"``: after a sample that could not be written no more are taken. ``"continue"``: they are, its value
        is kept beside its error for ``lighter-async replay``, and the end raises all the same. A value that cannot be
        kept, as on a full disk, stops the run.""",
    ] = "stop"
    attempts: Annotated[
        int,
        "How often storing a sample is tried where the error may pass by itself, as those of a network do.",
    ] = DEFAULT_ATTEMPTS
    wait_for_space: Annotated[
        float,
        "Seconds to wait for room on a full disk; the caller waits meanwhile, once the queue is full.",
    ] = 0.0
    write_timeout: Annotated[
        float | None,
        """Seconds that an attempt to write a sample may take. A helper process that takes longer is ended, and the
        sample tried again, three times in all; a thread that takes longer is given up. None: no limit.""",
    ] = None
    run: Annotated[
        Run | None,
        "Which rank of which run this is, where several ranks store in one directory.",
    ] = None
    accelerator: Annotated[
        Accelerator | None,
        "How device tensors come to the host; PyTorch's own devices by default.",
    ] = None

    def __post_init__(self) -> None:
        one_of("backend", self.backend, get_args(BackendName))
        one_of("on_error", self.on_error, get_args(OnError))
        at_least_one("attempts", self.attempts)
        at_least_one("queue_size", self.queue_size)
        for name in ("max_workers", "queue_bytes"):
            if getattr(self, name) is not None:
                at_least_one(name, getattr(self, name))
        object.__setattr__(self, "wait_for_space", seconds("wait_for_space", self.wait_for_space, least=0.0))
        if self.write_timeout is not None:
            object.__setattr__(self, "write_timeout", seconds("write_timeout", self.write_timeout, least=0.001))
        object.__setattr__(self, "writer_options", plain(self.writer_options))
        object.__setattr__(self, "run_config", config_of(plain(self.run_config)))

    @classmethod
    def of(
        cls, who: str, given: Mapping[str, Any], taken: type[RowOptions] = WriterOptions, also: Sequence[str] = ()
    ) -> Options:
        """The options that a class was given.

        Args:
            who: The class, for messages.
            given: By name.
            taken: Which ones it takes.
            also: What else it takes, by name.

        Raises:
            TypeError: It takes no such option.
        """
        known = [one.name for one in fields(cls) if one.name in taken.__annotations__]
        for name in given:
            if name not in known:
                names = [*known, *also]
                near = difflib.get_close_matches(name, names, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; its options are {', '.join(names)}"
                raise TypeError(f"{who}() got an unexpected keyword argument {name!r}{hint}")
        return cls(**given)

    def of_callback(self) -> CallbackOptions:
        """Those that `FileWriter` takes, as it hands them on."""
        return cast(CallbackOptions, {name: getattr(self, name) for name in CallbackOptions.__annotations__})

    @property
    def workers(self) -> int:
        """`max_workers`, or how many there are by default."""
        return default_workers() if self.max_workers is None else self.max_workers

    @property
    def bytes_of_queue(self) -> int:
        """`queue_bytes`, or how many there are by default."""
        return default_queue_bytes() if self.queue_bytes is None else self.queue_bytes


def meaning_of(option: str) -> str:
    """What an option means, on one line, as class docstrings and the command line's help say it.

    Args:
        option: A field of `Options`.
    """
    return _meanings()[option]


@functools.cache
def _meanings() -> dict[str, str]:
    hints = get_type_hints(Options, include_extras=True)
    return {one.name: " ".join(hints[one.name].__metadata__[0].split()) for one in fields(Options)}


def documented(options: type[Mapping[str, Any]]) -> Callable[[_T], _T]:
    """A decorator for a class that takes options: they are in its signature, and what they mean in its docstring.

    Args:
        options: Which ones: `WriterOptions`, `CallbackOptions` or `RowOptions`.
    """
    names: Collection[str] = get_type_hints(options).keys()
    hints = get_type_hints(Options)

    def decorate(kind: _T) -> _T:
        chosen = [one for one in fields(Options) if one.name in names]
        lines = [
            textwrap.fill(
                f"{one.name}: {meaning_of(one.name)}",
                _WIDTH,
                initial_indent=4 * " ",
                subsequent_indent=8 * " ",
                break_long_words=False,
                break_on_hyphens=False,
            )
            for one in chosen
        ]
        if kind.__doc__:  # None where Python runs without docstrings
            written = inspect.cleandoc(kind.__doc__)  # as Python 3.13 has it already
            assert _PLACE in written
            kind.__doc__ = written.replace(_PLACE, "\n".join(lines))
        init = kind.__init__  # type: ignore[misc]
        own = inspect.signature(init)
        parameters = [one for one in own.parameters.values() if one.kind is not one.VAR_KEYWORD]
        split = next((place for place, one in enumerate(parameters) if one.kind is one.KEYWORD_ONLY), len(parameters))
        mine = [
            inspect.Parameter(
                one.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if one.default is MISSING else one.default,
                annotation=hints[one.name],
            )
            for one in chosen
        ]
        written_out = {*(one.name for one in parameters), "return"}
        init.__annotations__ = {name: hint for name, hint in init.__annotations__.items() if name in written_out} | {
            one.name: hints[one.name] for one in chosen
        }
        init.__signature__ = own.replace(parameters=[*parameters[:split], *mine, *parameters[split:]])
        return kind

    return decorate


def as_attributes(options: type[Mapping[str, Any]]) -> Callable[[_T], _T]:
    """A decorator for a class with `options`: each of them is an attribute, and setting it is checked as giving it is.

    Args:
        options: Which ones, as for `documented`.
    """

    def decorate(kind: _T) -> _T:
        for name in get_type_hints(options):
            setattr(kind, name, _attribute(name))
        return kind

    return decorate


def _attribute(name: str) -> property:
    def get(owner: Any) -> Any:
        return getattr(owner.options, name)

    def set_(owner: Any, value: Any) -> None:
        owner.options = replace(owner.options, **{name: value})

    return property(get, set_)
