"""A target that stores many samples in one file, and gives that its final name later: what shards will do."""

import fcntl
import os
from pathlib import Path
from uuid import uuid4

from lighter_async import LocalTarget
from lighter_async.store import UNSEALED
from lighter_async.targets import Features, Lane, Placed

HEADER = b"volume\r\n"
ENDING = ".volume"


class Volumes(LocalTarget):
    """Each worker appends the samples of a unit to a volume of its own, in one write."""

    features = Features(has_directory=True)
    largest = 1 << 20

    def lane(self, number):
        return VolumeLane(self._root, self.largest)


class SmallVolumes(Volumes):
    """Volumes that are full after a few samples."""

    largest = 200


class UnsealableVolumes(Volumes):
    """Volumes whose folder takes no new names."""

    def lane(self, number):
        return UnsealableLane(self._root, self.largest)


class VolumeLane(Lane):
    """Whole units go to the end of a part, which is locked for as long as its worker lives."""

    def __init__(self, root, largest):
        self._root = root
        self._largest = largest
        self._waiting = []
        self._descriptor = -1
        self._object = ""
        self._end = 0

    @property
    def wants_seal(self):
        return self._end >= self._largest

    def recover(self, ends):
        if self._descriptor >= 0:
            self._end = ends([self._object]).get(self._object, len(HEADER))
            os.ftruncate(self._descriptor, self._end)
        for path in Path(self._root).glob(f"*{ENDING}{UNSEALED}"):
            try:
                file = open(path, "r+b")
            except FileNotFoundError:
                continue  # sealed meanwhile
            with file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # its worker is alive
                if not path.exists():
                    continue  # its worker has sealed it, and let go
                # Asked only now, when nobody else can write and record any more.
                name = path.name.removesuffix(UNSEALED)
                end = ends([name]).get(name)
                if end is None:
                    path.unlink()
                else:
                    file.truncate(end)
                    path.rename(Path(self._root, name))

    def put(self, item, *, redelivered):
        self._waiting.append([b"".join(part.data) for part in item.parts])

    def settle(self, on_progress):
        waiting, self._waiting = self._waiting, []
        if self._descriptor < 0 and waiting:
            self._begin()
        outcomes, data, end = [], b"", self._end
        for number, parts in enumerate(waiting):
            on_progress(number)
            offsets = []
            for part in parts:
                offsets.append(end + len(data))
                data += part
            outcomes.append(Placed(self._object, tuple(offsets)))
        try:
            written = os.pwrite(self._descriptor, data, end) if data else 0
            if written < len(data):
                raise OSError("a short write")
        except OSError as error:
            os.ftruncate(self._descriptor, end)
            return [error] * len(waiting)
        self._end += len(data)
        return outcomes

    def seal(self):
        if self._descriptor < 0 or self._end == len(HEADER):
            return []
        Path(self._root, self._object + UNSEALED).rename(Path(self._root, self._object))
        os.close(self._descriptor)
        self._descriptor = -1
        self._end = 0
        return [self._object]

    def leave(self):
        self._waiting.clear()

    def close(self):
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _begin(self):
        while self._descriptor < 0:
            self._object = f"{uuid4().hex}{ENDING}"
            path = os.path.join(self._root, self._object + UNSEALED)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not os.path.exists(path):  # another worker took it for a dead one's before it was locked
                os.close(descriptor)
                continue
            self._descriptor = descriptor
        os.write(self._descriptor, HEADER)
        self._end = len(HEADER)


class UnsealableLane(VolumeLane):
    """As if the folder could not be written to when a volume is to be sealed."""

    def seal(self):
        if self._descriptor >= 0:
            raise PermissionError(13, "no new names here")
        return []
