"""The writing side of the manifest."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from threading import Lock
from time import time

from lighter_async.forks import Descriptors
from lighter_async.interrupts import run_handlers
from lighter_async.locks import alone_in, boot_id, unlink_from_copies, warn_of
from lighter_async.manifest.columns import record_lines, whole_sample_lines
from lighter_async.manifest.entry import Loaders, Record, RunRecord
from lighter_async.manifest.line import Config, Kind, Loader, OutputName, Stored, StoredRows, rows_lines, sample_lines
from lighter_async.manifest.other_ranks import OtherRanks
from lighter_async.manifest.reader import latest_sequence
from lighter_async.manifest.restoring import count_lost, lines_that_take_back, restore
from lighter_async.manifest.run_lines import dropped_lines, header_line, loaders_line, mirrored_lines, sealed_line
from lighter_async.manifest.so_far import ends_of, recorded
from lighter_async.names import RESERVED_PREFIX
from lighter_async.notices import notify
from lighter_async.positioned import read_from, sync_data
from lighter_async.runs import Begun, begin_run
from lighter_async.store import Store, source_of
from lighter_async.types import Durability, Origin, Run
from lighter_async.whole_files import sync_folder

__all__ = ["ManifestLog", "manifest_name"]


def manifest_name(rank: int) -> str:
    """A rank's manifest, below the directory."""
    return f"{RESERVED_PREFIX}/manifest-{rank}.jsonl"


class ManifestLog:
    """Appends to the manifest of one rank, together with all of its writers and helpers.

    Each of them opens the file, and appends whole lines; the kernel keeps them from mixing. A copy in another process
    opens the file anew.

    Args:
        directory: Where the results are.
        run: Which run, and which of its ranks.
        outputs: What is stored of each sample.
        writer: The name of a writer of one output, in place of `outputs`.
        suffix: That writer's.
        resume: Whether the run goes on with what earlier ones have stored; else those count no longer as done.
        durability: With ``"fsync"`` a line is on the disk when `append` returns.
        config: What the run was made with, in the user's words.
        store: What reads the samples. None: they are files below the directory.

    Attributes:
        other_ranks: What the other ranks, and earlier runs, have recorded of a file.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        run: Run,
        outputs: Sequence[OutputName] = (),
        *,
        writer: str | None = None,
        suffix: str = "",
        resume: bool = False,
        durability: Durability = "rename",
        config: Config = None,
        store: Store | None = None,
    ) -> None:
        self.directory = os.path.abspath(directory)
        self.run = run
        self.path = os.path.join(self.directory, manifest_name(run.rank))
        self.outputs = tuple(outputs) if writer is None else (OutputName(writer, run.key, suffix),)
        self._store = source_of(self.directory).store if store is None else store
        suffixes = [one.suffix for one in self.outputs]
        self.other_ranks = OtherRanks(self.directory, run, suffixes, own=self.path, store=self._store)
        self._resume = resume
        self._durability = durability
        self._config = config
        self._descriptor = -1
        self._identity = (0, 0)  # of the open file: its device and number
        self._lock = Lock()  # of this process's threads, which have one place in the file
        self._appends = True
        self._torn = False
        # The lines that a new manifest begins with, if this one is removed meanwhile.
        self._beginning = b""
        self._begun: Begun | None = None
        self._has_begun_it = False  # in this process
        # Where the last sample ends that this very log has recorded in an object: the manifest may be removed.
        self._ends: dict[str, int] = {}

    def __getstate__(self) -> dict[str, object]:
        other = {"_descriptor": -1, "_has_begun_it": False}
        return {name: value for name, value in self.__dict__.items() if name != "_lock"} | other

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, _lock=Lock())

    def open(self) -> None:
        """Open the file. If there is none, it is made, and begins as the run's does.

        Raises:
            OSError: It cannot be opened.
        """
        self._open()
        if self._beginning and os.fstat(self._descriptor).st_size == 0:
            with self._lock:
                self._put(self._beginning)

    def begin(self, since: int) -> Begun:
        """Open the file, and write this run's header; returns the run's place among those of the directory.

        Args:
            since: Nanoseconds, by the file system's clock: a file that is at least as new is this run's own.
        """
        self._open()
        latest = partial(latest_sequence, self.directory)
        begun = begin_run(self.directory, self.run.id, since, latest=latest, waiting=run_handlers)
        self._begun, self._has_begun_it = begun, True
        for one in self.outputs:
            self._begin_with(
                header_line(
                    self.run,
                    begun,
                    one,
                    resume=self._resume,
                    durability=self._durability,
                    config=self._config,
                    boot=boot_id(),
                    time=time(),
                )
            )
        return begun

    def describe(self, loaders: Sequence[Loader], *, named: bool) -> None:
        """Write over which data sets the samples go, one for each data loader, and whether the user names them.

        Raises:
            OSError: That could not be written.
        """
        for one in self.outputs:
            self._begin_with(loaders_line(self.run, one, loaders, named=named))

    def mirror(self, runs: Sequence[RunRecord], loaders: Sequence[Loaders]) -> None:
        """Write the headers of another directory's runs, so that what is adopted of these counts here as it does there.

        Args:
            runs: This rank's.
            loaders: Over which data sets they went.

        Raises:
            OSError: They could not be written, or not all.
        """
        self._write(mirrored_lines(runs, loaders, durability=self._durability).encode())

    def _begin_with(self, line: str) -> None:
        self._write(line.encode())
        self._beginning += line.encode()

    def _open(self) -> None:
        folder = os.path.dirname(self.path)
        os.makedirs(folder, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        # A link in the manifest's place is not followed, and a pipe there does not block.
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        unlink_from_copies(self.path)
        try:
            self._descriptor = _own.open(os.open, self.path, flags | (os.O_APPEND if self._appends else 0), 0o666)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP) or not self._appends:
                raise
            warn_of(self.directory, "O_APPEND", "writers record what they have stored one after the other")
            self._appends = False
            self._descriptor = _own.open(os.open, self.path, flags, 0o666)
        status = os.fstat(self._descriptor)
        self._identity = status.st_dev, status.st_ino
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise OSError(errno.EINVAL, "the manifest is no file; remove what lies there", self.path)
        # A crash or a full disk may have left a part of a line. It is ended, so that ours begins on a new line.
        size = status.st_size
        self._torn = size > 0 and read_from(self._descriptor, 1, size - 1) != b"\n"
        if self._is_synced:
            sync_folder(folder)

    @property
    def _is_synced(self) -> bool:
        return self._durability == "fsync"

    def append(
        self,
        stored: Sequence[Stored],
        names: Sequence[str],
        kinds: Sequence[Kind],
        origin: Origin | None,
        *,
        other_kinds: Sequence[Sequence[Kind]] = (),
    ) -> None:
        """Write the lines of samples of one batch, which are stored.

        Args:
            stored: The samples.
            names: Of the whole batch.
            kinds: For each of `stored`, that of its first output.
            origin: Of the batch.
            other_kinds: For each of `stored`, those of its other outputs, where it has several.

        Raises:
            OSError: They could not be written, or not all.
        """
        self._write(
            sample_lines(
                stored,
                names,
                kinds,
                origin or _UNKNOWN,
                run=self.run,
                outputs=self.outputs,
                time=time(),
                other_kinds=other_kinds,
            )
        )
        for one in stored:
            if one.object is not None and one.nbytes is not None:
                sizes = one.nbytes, *(nbytes for nbytes, _ in one.others)
                self._note_end(one.object, max(map(sum, zip(one.offsets, sizes, strict=True))))

    def append_rows(self, stored: StoredRows, names: Sequence[str], origin: Origin | None) -> None:
        """Write the lines of samples of one batch that are of equal size.

        Args:
            stored: Where they lie.
            names: Theirs.
            origin: Of the batch.

        Raises:
            OSError: They could not be written, or not all.
        """
        self._write(rows_lines(stored, names, origin or _UNKNOWN, run=self.run, outputs=self.outputs, time=time()))
        if stored.object is not None:
            self._note_end(stored.object, stored.end(len(names)))

    def _note_end(self, object: str, end: int) -> None:
        self._ends[object] = max(end, self._ends.get(object, 0))

    def seal(self, objects: Sequence[str]) -> None:
        """Write that objects have their final names.

        Raises:
            OSError: That could not be written, or not all.
        """
        now = time()
        self._write("".join(sealed_line(one, self.run.id, now) for one in objects).encode())
        for one in objects:
            self._ends.pop(one, None)

    def adopt(self, records: Sequence[Record]) -> None:
        """Write the lines of samples that earlier runs have stored, but not recorded.

        Raises:
            OSError: They could not be written, or not all.
        """
        self._write(b"".join(record_lines(records)))

    def adopt_samples(self, samples: Sequence[Sequence[Record]]) -> None:
        """As `adopt`, of samples with several outputs, of which a crash records all or none.

        Args:
            samples: As of `whole_sample_lines`.

        Raises:
            OSError: They could not be written, or not all.
        """
        self._write(b"".join(whole_sample_lines(samples)))

    def drop(self, records: Sequence[tuple[Record, Sequence[int] | None]]) -> None:
        """Write that samples which were recorded are to be computed again.

        Args:
            records: Each with what `dropped_lines` is to say of its file.

        Raises:
            OSError: That could not be written, or not all.
        """
        self._write(dropped_lines(records, time()).encode())

    def ends_of(self, objects: Sequence[str]) -> dict[str, int]:
        """As `so_far.ends_of`, in this directory; and what this log has recorded itself, wherever that is by now."""
        ends = ends_of(self.directory, objects)
        for one in objects:
            if one in self._ends:
                ends[one] = max(self._ends[one], ends.get(one, 0))
        return ends

    def recorded(self, names: Collection[str]) -> dict[str, int]:
        """Those of some samples that this rank of this run has recorded, with all of their outputs; and their bytes."""
        return recorded(self.path, self.run, self.outputs, names)

    def restore_if_removed(self) -> None:
        """Write the manifest anew if somebody has removed it, before another process is to read what is recorded.

        Raises:
            OSError: It cannot be written.
        """
        with self._lock:
            if self._descriptor >= 0 and self._begun is not None and not self._is_there():
                self._reopen()
                self._put(self._beginning)

    def close(self) -> None:
        """Let go of the file. It may be called again."""
        with self._lock:
            if self._descriptor >= 0 and self._begun is not None and not self._is_there():
                try:
                    self._restore(self._descriptor)
                except OSError as error:
                    notify(f"the manifest {self.path!r} was removed, and cannot be written anew: {error}")
                if self._has_begun_it and not os.path.lexists(self.path):
                    self._tell_lost()
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                _own.close(descriptor)

    def _write(self, lines: bytes) -> None:
        if not lines:
            return
        with self._lock:
            self._put(lines)
            # Checked after the write: a manifest that is removed later is restored with these lines.
            while not self._is_there():
                try:
                    self._reopen()
                    # The new manifest may have these lines already; lines that are there twice do no harm.
                    self._put(self._beginning + lines)
                except BaseException:
                    self._take_back(lines)
                    raise
            if self._is_synced:
                sync_data(self._descriptor)

    def _take_back(self, lines: bytes) -> None:
        """Say in a removed manifest, of which a new one may be made yet, that samples will be cut off their objects."""
        if dropped := lines_that_take_back(lines):
            with suppress(OSError):
                self._put(dropped)

    def _put(self, lines: bytes) -> None:
        data = b"\n" + lines if self._torn else lines
        self._torn = True  # until all of it is written
        if self._appends:
            self._append(data)
        else:
            with alone_in(self._beside("recording")):
                os.lseek(self._descriptor, 0, os.SEEK_END)
                self._append(data)
        self._torn = False

    def _append(self, data: bytes) -> None:
        while not self._is_whole(data, os.write(self._descriptor, data)):
            # Write all of it again, on a new line: of two lines of one sample the later counts.
            data = data if data.startswith(b"\n") else b"\n" + data

    def _is_whole(self, data: bytes, written: int) -> bool:
        """Whether what was written is complete, and begins on a new line.

        A full disk cuts our lines short. It, or a crash, may also have cut what another writer appended just before.
        """
        start = os.lseek(self._descriptor, 0, os.SEEK_CUR) - written
        begins = start == 0 or data.startswith(b"\n") or read_from(self._descriptor, 1, start - 1) == b"\n"
        return begins and written == len(data)

    def _is_there(self) -> bool:
        try:
            there = os.stat(self.path)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == self._identity

    def _reopen(self) -> None:
        """Go on in a new manifest, since somebody has removed this one, or moved the directory away."""
        before, lost = self._descriptor, self._lost()
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self._restore(before)
        self._open()
        _own.close(before)
        if self._begun is not None:
            begin_run(self.directory, self.run.id, self._begun.since, begun=self._begun)
        # What was recorded stands in the new one, too: the directory may only have been moved.
        way_out = f"; first lighter-async verify {self.directory!r} --repair, then {_AGAIN}" if lost else ""
        notify(
            f"the manifest {self.path!r} was removed, or its directory moved, during the run; it is begun "
            f"anew{lost}{way_out}"
        )

    def _tell_lost(self) -> None:
        """Say what is gone with a directory that is not made again, since nothing was stored after it was removed."""
        if lost := self._lost():
            notify(f"{self.directory!r} was removed during the run{lost}; {_AGAIN}")

    def _lost(self) -> str:
        """What this run had stored and is gone with the removed manifest; empty if nothing is."""
        count = count_lost(self._descriptor, self.run.id, self._store)
        if not count:
            return ""
        gone = "1 sample that was stored is" if count == 1 else f"{count} samples that were stored are"
        return f". {gone} gone with it"

    def _restore(self, before: int) -> None:
        restore(before, self.path, lock=self._beside("recording"), store=self._store)

    def _beside(self, name: str) -> str:
        return os.path.join(self.directory, RESERVED_PREFIX, name)


_AGAIN = "run again with resume=True, and what is missing is computed"

_own = Descriptors()
_UNKNOWN = Origin()
