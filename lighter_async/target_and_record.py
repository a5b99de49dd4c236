"""An open target, the record of what is stored in it, and the lanes into it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from lighter_async.errors import ReadError, describe
from lighter_async.manifest import ManifestLog, OutputName
from lighter_async.notices import notify
from lighter_async.targets import Lane, Target, lane_of, tables_target
from lighter_async.writers import Output, Writer, key_of_output, outputs_of, recorded_options

__all__ = ["Session", "stored_as"]


@dataclass(frozen=True)
class Session:
    """Where the samples of a writer are stored and recorded, in one process: the user's, or one of its helpers.

    Attributes:
        target: Where the bytes go.
        log: Where stored samples are recorded; None without a manifest.
    """

    target: Target
    log: ManifestLog | None = None

    @property
    def location(self) -> str:
        """Where the samples are stored, for messages."""
        return self.target.location

    def open(self) -> None:
        """Open the target and the record, in a helper process; the user's process begins a run instead."""
        self.target.open()
        if self.log is not None:
            self.log.open()

    def close(self) -> None:
        """Close the record and the target."""
        if self.log is not None:
            self.log.close()
        self.target.close()

    def lane(self, number: int) -> Lane:
        """The lane of one of the workers, which takes over what a dead one has left of it.

        Args:
            number: Which of the workers, from 0.

        Raises:
            OSError: That cannot be read or changed.
        """
        lane = lane_of(self.target, number)
        if self.log is not None:
            lane.recover(self.log.ends_of)
        return lane

    def recorded(self, names: Sequence[str]) -> dict[str, int]:
        """Those of some samples that this rank has recorded in this run already, and their bytes."""
        return {} if self.log is None else self.log.recorded(names)

    def restore_record(self) -> None:
        """Write the record anew if somebody has removed it, since a helper that replaces a dead one reads it."""
        if self.log is not None:
            try:
                self.log.restore_if_removed()
            except OSError as error:
                notify(f"the manifest {self.log.path!r} was removed, and cannot be written anew: {describe(error)}")

    def recover(self, lane: Lane) -> None:
        """Cut off what a lane has settled and what could not be recorded. A failure is told on stderr.

        What stays then is recorded nowhere: it counts as not stored, and the next writer that opens the target cuts it.
        """
        if self.log is None:
            return
        try:
            lane.recover(self.log.ends_of)
        except Exception as error:
            notify(
                f"samples that could not be recorded lie in {self.location!r} and cannot be cut off "
                f"({describe(error)}); they count as failed, and the next writer that opens it cuts them off"
            )

    def seal(self, lane: Lane, *, only_full: bool = False) -> None:
        """Give what a lane has stored its final names. No sample fails with it: a failure is told on stderr.

        What is not sealed stays readable as it is, and is sealed later: by the same lane, or when the target is opened
        again.

        Args:
            lane: The lane.
            only_full: Whether only what has reached its size needs its name now.
        """
        try:
            objects = lane.seal_full() if only_full else lane.seal()
        except ReadError as error:  # what is stored is damaged, which the error tells
            notify(str(error))
            return
        except Exception as error:
            notify(
                f"what is stored in {self.location!r} cannot be sealed yet ({describe(error)}); all samples are kept, "
                "and the next writer that opens it seals them"
            )
            return
        if not objects or self.log is None:
            return
        try:
            self.log.seal(objects)
        except Exception as error:
            notify(
                f"{', '.join(map(repr, objects))} in {self.location!r} have their final names, but the manifest does "
                f"not say so ({describe(error)}); all samples are kept, and recorded"
            )

    def seal_table(self, *, ends: bool) -> None:
        """Have a target write the table that all samples of it are in, in the user's process, when lanes are sealed.

        No sample fails with it: a failure is told on stderr, and the next writer that is closed there writes it.

        Args:
            ends: Nothing more is stored by this rank.
        """
        table = tables_target(self.target)
        if table is None:
            return
        try:
            table.seal(ends=ends)
        except Exception as error:
            notify(
                f"the table {self.location!r} cannot be written ({describe(error)}); what is stored of its rows is "
                "kept, and the next writer that is closed on it writes it"
            )


def stored_as(writer: Writer, key: str) -> list[OutputName]:
    """What a writer stores of each sample, as records have it.

    Args:
        writer: The writer.
        key: The run's.
    """
    outputs = outputs_of(writer)
    if not outputs:
        return [OutputName(writer.name, key)]
    return [_output_name(one, key_of_output(key, one.key)) for one in outputs]


def _output_name(one: Output, key: str) -> OutputName:
    options = recorded_options(one.encoder)
    given = {name: value for name, value in options.given.items() if name != "suffix"}
    return OutputName(one.encoder.name, key, one.suffix, json.dumps(given) if given else "", options.lost)
