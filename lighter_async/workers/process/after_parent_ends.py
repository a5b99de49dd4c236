"""What a helper does once the process that it works for has ended: it goes on, and has two others beside it."""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from lighter_async.forks import Descriptors
from lighter_async.workers.process.bells import ring
from lighter_async.workers.process.helper_setting import Setting
from lighter_async.workers.process.shared_queue_helper_side import HelperQueue

if TYPE_CHECKING:
    from lighter_async.workers.process.launch import Process

__all__ = ["ParentWatch"]

_SECONDS_BETWEEN_LOOKS = 0.1  # whether other helpers are alive


class ParentWatch:
    """Sees the end of the parent, by a thread, and does what is to be done then.

    Args:
        setting: What the helper was told.
        queue: What it shares with the parent and the other helpers.

    Attributes:
        descriptor: Becomes readable when the parent ends; -1 if it has ended before.
        has_ended: Whether the parent has died, or become another program.
    """

    def __init__(self, setting: Setting, queue: HelperQueue) -> None:
        self._setting = setting
        self._queue = queue
        try:
            self.descriptor = os.pidfd_open(setting.parent)
        except ProcessLookupError:
            self.descriptor = -1
        # Looked at after the descriptor was opened, which may be another process's of that number otherwise.
        self.has_ended = os.getppid() != setting.parent
        self._successor: Process | None = None  # the latest one
        self._successors_cell = -1
        self._successor_lock = threading.Lock()

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        """Once the parent has died, or become another program: close what others wait for, and start successors."""
        if self.descriptor >= 0 and not self.has_ended:
            ended = select.poll()
            ended.register(self.descriptor, select.POLLIN)
            if self._setting.tie >= 0:
                ended.register(self._setting.tie, select.POLLIN)
            ended.poll()
        self.has_ended = True
        # A program that reads the job's output would wait for us otherwise.
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        os.close(nothing)
        ring(self._setting.bells[self._setting.helper])
        # What the rest of the thread does while a sample takes long.
        while True:
            self.start_successor()
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def start_successor(self, *, surely: bool = False) -> None:
        """Where fewer than two others are alive, start one, so that there is one that goes on should two be killed.

        With one other alone, each of two may take a sample that kills it and count on the other one at that moment.

        Args:
            surely: Start one however many there are: all of them may take the sample next that is about to be tried.
        """
        with self._successor_lock:
            is_there = self._successor is not None and self._successor.popen.poll() is None
            if is_there and not (surely and self._queue.is_alive(self._successors_cell)):
                return  # it may not be at work yet
            if not surely and (not self._queue.has_work or len(self._queue.others(self._setting.helper)) > 1):
                return
            cell = self._queue.free_cell(self._setting.helper)
            if cell is None or not self._queue.may_have_successor():
                return
            # Not above: what few helpers need would make the start of each take longer.
            from lighter_async.workers.process.interpreter import folder_and_path
            from lighter_async.workers.process.launch import launch

            try:
                folder, path = folder_and_path(sys.path)
                self._successor = launch(replace(self._setting, helper=cell), Descriptors(), folder=folder, path=path)
                self._successors_cell = cell
            except OSError:
                pass  # then this one is the last
