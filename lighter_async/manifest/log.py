"""The writing side of the manifest."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from time import monotonic, sleep, time

from lighter_async.locks import boot_id
from lighter_async.manifest.line import Kind, Stored, header_line, sample_lines
from lighter_async.manifest.reader import Record, manifest_files, records_of
from lighter_async.names import RESERVED_PREFIX
from lighter_async.types import Origin, Run

__all__ = ["ManifestLog", "manifest_name"]


def manifest_name(rank: int) -> str:
    """A rank's manifest, below the directory."""
    return f"{RESERVED_PREFIX}/manifest-{rank}.jsonl"


class ManifestLog:
    """Appends to the manifest of one rank, together with all of its writers and helpers.

    Every one has the file open for itself and writes whole lines at its end, which the kernel does one after the other.
    A copy in another process opens for itself.

    Args:
        directory: Where the results are.
        run: Which run, and which of its ranks.
        writer: Name of the writer.
        suffix: The writer's.
        resume: Whether the run goes on with what earlier ones have stored; else those count no longer as done.
        sync: Whether a line is on the disk when `append` returns.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        run: Run,
        *,
        writer: str,
        suffix: str = "",
        resume: bool = False,
        sync: bool = False,
    ) -> None:
        self.directory = os.path.abspath(directory)
        self.run = run
        self._writer = writer
        self._suffix = suffix
        self._resume = resume
        self._sync = sync
        self._descriptor = -1
        self._torn = False

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_descriptor": -1}

    @property
    def path(self) -> str:
        return os.path.join(self.directory, manifest_name(self.run.rank))

    def open(self) -> None:
        """Open the file, which is made if there is none.

        Raises:
            OSError: It cannot be opened.
        """
        self._open()

    def begin(self, since: int) -> None:
        """Open the file, and write this run's header.

        Args:
            since: Nanoseconds, by the file system's clock: a file that is at least as new is this run's own.
        """
        self._open()
        self._write(
            header_line(
                self.run,
                writer=self._writer,
                suffix=self._suffix,
                resume=self._resume,
                since=since,
                boot=boot_id(),
                time=time(),
            )
        )

    def _open(self) -> None:
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        self._descriptor = os.open(self.path, flags, 0o666)
        # A crash of the machine, or a full disk, may have left half a line.
        size = os.fstat(self._descriptor).st_size
        self._torn = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"
        if self._sync:
            _sync_folder(os.path.dirname(self.path))

    def append(
        self, stored: Sequence[Stored], names: Sequence[str], kinds: Sequence[Kind], origin: Origin | None
    ) -> None:
        """Write the lines of samples of one batch, which are stored.

        Raises:
            OSError: They could not be written, or not all.
        """
        lines = sample_lines(stored, names, kinds, origin or _UNKNOWN, run=self.run, writer=self._writer, time=time())
        self._write(lines)

    def adopt(self, records: Sequence[Record]) -> None:
        """Write the lines of samples that earlier runs have stored, but not recorded.

        Raises:
            OSError: They could not be written, or not all.
        """
        self._write("".join(json.dumps(asdict(record), separators=(",", ":")) + "\n" for record in records))

    def drop(self, records: Sequence[Record]) -> None:
        """Write that samples which were recorded are to be computed again.

        Raises:
            OSError: That could not be written, or not all.
        """
        self._write(
            "".join(
                json.dumps(
                    {"dropped": record.name, "file": record.file, "time": round(max(time(), record.time), 3)},
                    separators=(",", ":"),
                )
                + "\n"
                for record in records
            )
        )

    def find_of_other_rank(self, file: str, *, seconds: float) -> Record | None:
        """What another rank of this run has recorded of a file.

        Args:
            file: The file, below the directory.
            seconds: How long to wait for that, since a file is recorded a moment after it is stored.
        """
        deadline = monotonic() + seconds
        while True:
            for path in manifest_files(self.directory):
                if os.fspath(path) != self.path:
                    for record in records_of(path, file):
                        if record.run == self.run.id:
                            return record
            if monotonic() >= deadline:
                return None
            sleep(0.05)

    def close(self) -> None:
        """Let go of the file. It may be called again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _write(self, lines: str) -> None:
        data = ("\n" + lines if self._torn else lines).encode()
        while os.write(self._descriptor, data) < len(data):
            # A full disk, mostly. Another one's lines may be behind the half by now, so all of it again, on a line of
            # its own: a file may have two lines, and the later counts.
            self._torn = True
            data = ("\n" + lines).encode()
        self._torn = False
        if self._sync:
            os.fdatasync(self._descriptor)


_UNKNOWN = Origin()


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
