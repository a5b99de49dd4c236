"""What a backend promises, and the few shapes that travel between the parts. What a target promises: `targets`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal, Protocol

from lighter_async.errors import WriteError

if TYPE_CHECKING:
    from lighter_async.staging import Staged

__all__ = [
    "Backend",
    "BackendName",
    "Batch",
    "Durability",
    "IfExists",
    "OnError",
    "Origin",
    "Result",
    "Run",
    "Unit",
    "WriterStats",
    "launched_run",
]

IfExists = Literal["overwrite", "skip", "error"]
"""What becomes of a file of an earlier run under the same name."""

BackendName = Literal["auto", "thread", "process"]
"""What workers are: threads of this process, or helper processes."""

Durability = Literal["rename", "fsync"]
"""What a stored file outlives: the end of any process, or the loss of power, too."""

OnError = Literal["stop", "continue"]
"""Whether a sample that could not be written stops the run."""


@dataclass(frozen=True, slots=True, repr=False)
class Origin:
    """Where the samples of a batch come from.

    Attributes:
        indices: The index of each in the data set.
        loader: The number of the data loader, of several.
        batch: The number of the batch in its loader.
    """

    indices: Sequence[int] | None = None
    loader: int = 0
    batch: int | None = None

    def __repr__(self) -> str:
        indices, few = self.indices, 8
        if isinstance(indices, (list, tuple)) and len(indices) > few:
            shown = f"<{len(indices)} indices, {indices[0]!r} to {indices[-1]!r}>"
        elif indices is None or isinstance(indices, (list, tuple, range)):
            shown = repr(indices)
        else:  # a tensor or an array
            shown = f"<{len(indices)} indices>"
        return f"Origin({shown}, loader={self.loader!r}, batch={self.batch!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Which run a writer belongs to, and which of its ranks it is. All ranks of a run share `id` and `since`.

    Attributes:
        id: A word that no other run has. If it is left out, a run of several ranks takes it from torchrun or SLURM,
            with the restart counted, and one of one rank makes one up.
        rank: This process's rank.
        world_size: How many ranks there are.
        key: What tells the series of samples from others that the same kind of writer stores in the same directory.
        since: Nanoseconds, by the file system's clock: a file that is at least as new is this run's own. None takes the
            moment when the first of the ranks opens the directory.
        numbered: Whether samples are named by their index in the data set, so that a file tells which sample it is.

    Raises:
        ValueError: There are several ranks, and nothing that tells their run; or there is no such rank.
    """

    id: str = ""
    rank: int = 0
    world_size: int = 1
    key: str = ""
    since: int | None = None
    numbered: bool = False

    def __post_init__(self) -> None:
        for word in (self.id, self.key):
            if not isinstance(word, str):
                raise TypeError(f"a run's id and key are texts, not {type(word).__name__}: {word!r:.100}")
        if self.rank < 0 or self.world_size < 1 or (self.world_size > 1 and self.rank >= self.world_size):
            raise ValueError(f"there is no rank {self.rank} of {self.world_size}; they count from 0")
        if self.id:
            return
        if self.world_size == 1:
            object.__setattr__(self, "id", os.urandom(6).hex())
            return
        launched = launched_run()
        if launched is None or launched.world_size != self.world_size:
            raise ValueError(
                f"a run of {self.world_size} ranks needs an id that all of them know, or each would be a run of its "
                "own: Run(id=..., rank=..., world_size=...); under torchrun and srun it is known without"
            )
        object.__setattr__(self, "id", launched.id)


def launched_run() -> Run | None:
    """The run that torchrun or SLURM has started this process for, if it has several ranks.

    A restart of either is a run of its own. In a script that SLURM runs by itself, without srun, there is one process,
    whatever its variables say of tasks, and no step of several.

    Raises:
        ValueError: torchrun has started it on several nodes, and was not given a word that no other job has.
    """
    around = os.environ
    if "TORCHELASTIC_RUN_ID" in around:
        rank, world_size, words = around.get("RANK", ""), around.get("WORLD_SIZE", ""), _torchrun_words
    elif around.get("SLURM_STEP_ID", "").isdecimal() and int(around["SLURM_STEP_ID"]) < _SLURM_OWN_STEPS:
        rank, world_size, words = around.get("SLURM_PROCID", ""), around.get("SLURM_STEP_NUM_TASKS", ""), _slurm_words
        if "OMPI_COMM_WORLD_SIZE" in around:
            return None  # mpirun, which has started one task for each node, and the ranks from there
    else:
        return None
    if not (rank.isdecimal() and world_size.isdecimal() and int(rank) < int(world_size)) or int(world_size) < 2:
        return None
    return Run(id="-".join(words()), rank=int(rank), world_size=int(world_size))


def _torchrun_words() -> tuple[str, ...]:
    around = os.environ
    restart = around.get("TORCHELASTIC_RESTART_COUNT", "0")
    word = around["TORCHELASTIC_RUN_ID"]
    if word not in ("", "none"):
        return "torchrun", word, restart
    # Nobody has named the job (--rdzv-id), so the next one has the same word. On one node there is the folder of this
    # launcher's logs, or the launcher itself.
    if around.get("LOCAL_WORLD_SIZE") != around.get("WORLD_SIZE"):
        raise ValueError(
            "torchrun runs on several nodes, and its ranks have no word in common that no other job has, so that they "
            "would be taken for those of an earlier job; give torchrun --rdzv-id=WORD, another one for each job, or "
            "run=Run(id=..., rank=..., world_size=...)"
        )
    logs = around.get("TORCHELASTIC_ERROR_FILE", "").split("/attempt_")[0]
    return "torchrun", logs or str(os.getppid()), around.get("MASTER_PORT", ""), restart


def _slurm_words() -> tuple[str, ...]:
    around = os.environ
    job, step = around.get("SLURM_JOB_ID", ""), around["SLURM_STEP_ID"]
    return "slurm", around.get("SLURM_CLUSTER_NAME", ""), job, step, around.get("SLURM_RESTART_COUNT", "0")


# Steps that SLURM itself numbers, such as a job's script, have numbers from here on.
_SLURM_OWN_STEPS = 0xFFFFFFF0


@dataclass(slots=True, eq=False)
class Batch:
    """Samples that were admitted together and share one slot of host memory.

    Attributes:
        names: One name per sample.
        staged: The samples' values, in memory of our own.
        nbytes: What the batch counts against `queue_bytes` until its last sample is stored.
        left: Samples that are not stored yet. Guarded by the ledger's lock.
        begun: Whether a worker has taken a part of it. Guarded by the backend's lock.
        message: What the backend has made of it to hand it to another process.
        origin: Where its samples come from, if that is known.
        is_kept: Whether its memory is not to be used again, since a thread that hangs may still read it.
    """

    names: Sequence[str]
    staged: Staged
    nbytes: int
    left: int
    begun: bool = False
    message: bytes = b""
    origin: Origin | None = None
    is_kept: bool = False


@dataclass(slots=True, eq=False)
class Unit:
    """The samples ``start`` to ``stop`` of a batch: what a worker takes at a time.

    It is `redelivered` if it was in the hands of a worker that died or hangs, which may have stored some of it.
    """

    batch: Batch
    start: int
    stop: int
    redelivered: bool = False

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(slots=True)
class Result:
    """What became of some samples of a batch. Bytes are encoded bytes, times are seconds."""

    written: int = 0
    skipped: int = 0
    failures: list[WriteError] = field(default_factory=list)
    bytes_written: int = 0
    encode_seconds: float = 0.0
    store_seconds: float = 0.0

    @property
    def samples(self) -> int:
        return self.written + self.skipped + len(self.failures)


class Waiter(Protocol):
    """A thread that waits for a change of the books."""

    @property
    def is_awake(self) -> bool:
        """Whether it was woken since it waited last."""
        ...

    def wait(self, timeout: float) -> None:
        """Wait until it is woken, or for `timeout` seconds."""
        ...


class Backend(Protocol):
    """Has units of work done beside the caller, and tells what became of each, once."""

    @property
    def kind(self) -> Literal["thread", "process"]:
        """What the workers are."""
        ...

    @property
    def instead(self) -> str | None:
        """Why the workers are threads in the place of helper processes; None where they are not."""
        ...

    @property
    def helpers(self) -> Sequence[int]:
        """The helper processes; none where the workers are threads."""
        ...

    def start(self) -> None:
        """Begin. Called once, before the first `put`.

        Raises:
            OSError: The system cannot start workers.
        """
        ...

    def prepare(self, batch: Batch) -> None:
        """Get ready to take a batch. Called before `put`, which may not follow.

        Raises:
            TypeError: Its values cannot reach the workers.
        """
        ...

    def put(self, units: Sequence[Unit]) -> None:
        """Take the units of one batch; never waits.

        Raises:
            RuntimeError: No worker can be started, because the interpreter is shutting down. Nothing was taken.
        """
        ...

    def took(self, batch: Batch) -> bool:
        """Whether a `put` of the batch that ended with an exception, such as Ctrl-C, has taken it all the same."""
        ...

    def collect(self, *, quickly: bool = False) -> None:
        """Tell what was done and is not told yet, where workers cannot tell it themselves; never waits.

        Args:
            quickly: Whether to leave out what has to be asked of the system, such as whether workers are alive.
        """
        ...

    @property
    def needs_collect(self) -> bool:
        """Whether `collect` should be called soon, as after a failure. Quick: it is asked at every hand-over."""
        ...

    def wait(self, waiter: Waiter, timeout: float) -> None:
        """Return when the waiter was woken, or something may have been done, or after `timeout` seconds."""
        ...

    def wake(self) -> None:
        """End a `wait` that is under way, whose waiter was woken. Also called by that very thread, for a signal."""
        ...

    def watch(self) -> AbstractContextManager[int | None]:
        """While it is open: a descriptor of the caller's own that is readable when `collect` has something new to tell.

        None where workers tell it themselves, or are gone.
        """
        ...

    def drop(self) -> list[Unit]:
        """Forget the units that no worker has taken yet, and return them."""
        ...

    def is_worker(self) -> bool:
        """Whether the calling thread is one of the workers, which must never wait for the workers."""
        ...

    def seal(self) -> None:
        """Give what is stored its final names, where it has others until then; returns once that is done."""
        ...

    def stop(self, *, seal: bool = True) -> None:
        """Let the workers go. Called once, when everything that was put is done or dropped.

        Args:
            seal: Whether they seal what they have stored before, which may take a moment.
        """
        ...


@dataclass(frozen=True, kw_only=True, repr=False)
class WriterStats:
    """What a writer has done so far. Samples are counted, bytes are encoded bytes, times are seconds.

    Every accepted sample is in exactly one of `written`, `skipped`, `failed`, `dropped` and `pending`.

    Attributes:
        accepted: Samples taken over from the caller.
        written: Samples stored.
        skipped: Samples for which a file of an earlier run was kept (``if_exists="skip"``).
        failed: Samples that could not be written.
        dropped: Samples that `abort` threw away.
        pending: Samples queued or being written.
        peak_pending: The most samples that were pending at once.
        pending_bytes: Host memory that the pending samples hold.
        peak_pending_bytes: The most host memory that was held at once.
        bytes_written: Encoded bytes stored; 0 for path functions, whose files are their own affair.
        waits: How often a caller had to wait for room.
        waited_seconds: How long callers waited for room, the waits under way not counted.
        encode_seconds: Time in encoders, summed over the workers.
        store_seconds: Time in the target, or in a path function, summed over the workers.
        open_seconds: Time since the writer was started, until it was closed.
        max_workers: Samples that are written at once.
        queue_size: Samples that may be pending.
        queue_bytes: Host memory that pending samples may hold.
        backend: What the workers are: ``"thread"`` or ``"process"``. With ``backend="auto"`` it may change until the
            first batch is accepted.
        backend_reason: Why, in a few words.
    """

    accepted: int
    written: int
    skipped: int
    failed: int
    dropped: int
    pending: int
    peak_pending: int
    pending_bytes: int
    peak_pending_bytes: int
    bytes_written: int
    waits: int
    waited_seconds: float
    encode_seconds: float
    store_seconds: float
    open_seconds: float
    max_workers: int
    queue_size: int
    queue_bytes: int
    backend: Literal["thread", "process"] = "thread"
    backend_reason: str = ""

    def __repr__(self) -> str:
        # What one looks for first; of the rest, what is not as usual. `dataclasses.asdict` gives all of it.
        always = ("accepted", "written", "bytes_written", "open_seconds", "max_workers", "backend")
        unless_zero = ("skipped", "failed", "dropped", "pending", "waits", "waited_seconds")
        values = ((one.name, getattr(self, one.name)) for one in fields(self))
        shown = (
            f"{name}={round(value, 3) if isinstance(value, float) else value!r}"
            for name, value in values
            if name in always or (name in unless_zero and value)
        )
        return f"{type(self).__name__}({', '.join(shown)})"
