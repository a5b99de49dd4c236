"""What all workers of a writer have in common: the writer, where it stores, and how patient it is."""

from __future__ import annotations

from dataclasses import dataclass, field

from lighter_async.errors import WriteError
from lighter_async.target_and_record import Session
from lighter_async.targets import features_of
from lighter_async.workers.patience import Patience
from lighter_async.workers.quarantine import Quarantine
from lighter_async.writers import Output, Writer, outputs_of

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """What is done with samples. A helper process gets a pickled copy.

    Attributes:
        writer: Makes bytes, or a file, of a value.
        session: Where the bytes go, and stored samples are recorded.
        patience: Which errors are tried again, and for how long.
        quarantine: Where values that could not be written are kept; None if they are not kept.
        outputs: What is stored of each sample; none of a function ``(path, value)``.
        takes_arrays: Whether the target is to know samples' indices, dtypes and shapes.
    """

    writer: Writer
    session: Session
    patience: Patience = field(default_factory=Patience)
    quarantine: Quarantine | None = None
    outputs: tuple[Output, ...] = field(init=False)
    takes_arrays: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "outputs", outputs_of(self.writer))
        object.__setattr__(self, "takes_arrays", features_of(self.session.target).takes_arrays)

    def failure(self, name: str, error: BaseException, attempts: int) -> WriteError:
        """The failure of one sample."""
        return WriteError.of_sample(error, writer=self.writer.name, name=name, attempts=attempts)
