"""What workers put into a target, and their way in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from lighter_async.plain_memory import EncodedRows

__all__ = ["Item", "Lane", "Outcome", "Part", "Placed", "PlacedRows", "RowItems", "RowPart"]


class Part(msgspec.Struct, frozen=True):
    """One output of a sample, encoded.

    Attributes:
        file: The sample's name with the output's suffix: what a target of files stores it as.
        suffix: The output's suffix, such as ``".png"``, or ``".mask.png"`` where a sample has several outputs.
        data: The bytes, in pieces that are stored one behind the other. They are valid during `Lane.put` only.
    """

    file: str
    suffix: str
    data: Sequence[memoryview]


class Item(msgspec.Struct, frozen=True):
    """A sample on its way into a target: its name, and one part for each of its outputs.

    Attributes:
        name: As it was handed over.
        parts: At least one. They are stored together: all of them or none.

    The others are given to targets that take arrays (`Features.takes_arrays`), and to no others:

    Attributes:
        index: In the data set.
        loader: Of which data loader.
        kind: The value's dtype, by its name, and shape; None if it is no plain tensor or array.
    """

    name: str
    parts: Sequence[Part]
    index: int | None = None
    loader: int = 0
    kind: tuple[str, tuple[int, ...]] | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a sample was stored, in an object that holds other samples as well.

    Attributes:
        object: The object, by the name that it has once it is sealed.
        offsets: Where the bytes of each part begin in it. None is 0: such an object begins with a header of its own.
    """

    object: str
    offsets: tuple[int, ...]


class RowPart(msgspec.Struct, frozen=True):
    """One output of several samples, to be encoded.

    Attributes:
        suffix: The output's, as of `Part`.
        encoded: The bytes of each.
    """

    suffix: str
    encoded: EncodedRows


class RowItems(msgspec.Struct, frozen=True):
    """Samples on their way into a target whose bytes are of equal size, and are made where the target wants them.

    Attributes:
        names: As they were handed over.
        parts: One for each of their outputs, at least one; each is of equal size in all samples.
        indices: As of `Item`, of each; None for a target that takes no arrays.
        loader: As of `Item`.
        kind: As of `Item`, of each.
    """

    names: Sequence[str]
    parts: Sequence[RowPart]
    indices: Sequence[int] | None = None
    loader: int = 0
    kind: tuple[str, tuple[int, ...]] | None = None


class PlacedRows(msgspec.Struct, frozen=True):
    """Where samples of equal size were stored, at equal distances.

    Attributes:
        object: As of `Placed`.
        offsets: As of `Placed`, of the first sample.
        stride: The bytes from the beginning of one to the beginning of the next, the same for each part.
    """

    object: str
    offsets: tuple[int, ...]
    stride: int


Outcome: TypeAlias = "bool | Placed"
"""What became of a sample: True if each of its parts is stored as an object of its own, under the part's `file`; where
it lies, if that is an object with others; False if a sample of an earlier run was kept instead."""


class Lane(ABC):
    """One worker's own way into a target: nobody else uses it at the same time.

    A helper process has the lane of its number, and the helper that replaces one that died has the same. What a lane
    does not need of the methods below it leaves as they are.
    """

    is_full: bool = False
    """Whether what was put is to be settled before more is."""

    wants_seal: bool = False
    """Whether `seal_full` is to be called soon, since an object has reached its size."""

    def recover(self, ends: Callable[[Sequence[str]], dict[str, int]]) -> None:
        """Cut off what was settled and is not recorded: by a worker that had this lane before, and died, or just now.

        Called before the first `put`, and when what was settled cannot be recorded.

        Args:
            ends: For some objects, where the last recorded part in each ends; what lies behind that was not settled.

        Raises:
            OSError: What was left cannot be read or changed.
        """
        return

    @abstractmethod
    def put(self, item: Item, *, redelivered: bool) -> Outcome | None:
        """Store a sample, all of its parts or none; or get ready to store it with others.

        Args:
            item: The sample. Its bytes need not outlive the call.
            redelivered: An earlier attempt, or a worker that died, may have stored this sample already, though it is
                not recorded. Then it is replaced; it is this run's own.

        Returns:
            What became of it, or None if `settle` is to tell.

        Raises:
            NameTakenError: Another rank of this run has stored a sample under the name.
            OSError: It cannot be stored. Nothing is left behind.
        """

    takes_rows: bool = False
    """Whether `put_rows` may be called."""

    def put_rows(
        self, items: RowItems, on_progress: Callable[[int], None]
    ) -> PlacedRows | Sequence[Outcome | BaseException] | None:
        """Store several samples whose bytes are of equal size, at once; each with all of its parts or none.

        Called with nothing else waiting to be settled. After this what is stored outlives the process, and is recorded.

        Args:
            items: The samples.
            on_progress: Called with the number of each that is stored by itself, before it is. It may raise.

        Returns:
            Where they were stored, all of them; or for each what `put` would have returned or raised, if each is stored
            by itself. None if nothing was done, and they are to be `put`.

        Raises:
            OSError: They cannot be stored. Nothing is left behind, and they will be `put` one by one.
        """
        return None

    def settle(self, on_progress: Callable[[int], None]) -> list[Outcome | BaseException]:
        """Store what was put and is to be stored with others; returns what `put` would have, or raised, for each.

        After this what is stored outlives the process, and is recorded.

        Args:
            on_progress: Called with the number of each before it is waited for. What it raises is raised, and nothing
                is left behind.
        """
        return []

    def seal(self) -> Sequence[str]:
        """Give objects that hold several samples their final names; returns these.

        Called when everything that was put is settled and recorded: at ``flush(seal=True)``, and at the end. Samples
        do not wait for it, and none of them fails with it.

        Raises:
            OSError: An object cannot be sealed. It stays as it is, and a later call tries again.
            ReadError: Something that is stored is damaged, and cannot become part of it; the message says the way out.
        """
        return ()

    def seal_full(self) -> Sequence[str]:
        """As `seal`, at `wants_seal`: objects that have not reached their size may stay open to more samples."""
        return self.seal()

    def leave(self) -> None:
        """Discard what was put and is not settled."""
        return

    def close(self) -> None:
        """Let go of everything, without sealing. Called once, after everything else."""
        return
