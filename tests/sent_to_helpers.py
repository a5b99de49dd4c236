"""What tests send to helper processes by its name. A helper imports this module, which imports nothing that takes long.

The tests' own modules would do, but they import torch, pytest and hypothesis, in every helper that is started.
"""

import os
import signal
import threading
import time
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lighter_async import ArrayTarget, LocalTarget, TableTarget, TarShards, encoder


def encode_unless_it_fails(value):
    """An encoder of texts, which fails for some."""
    if fails(value):
        raise ValueError("no way to write it")
    return value.encode()


@encoder(suffix=".txt", decode=bytes.decode)
def encode_text_and_die_once(value):
    """The text itself; a worker that meets the fatal one for the first time is killed by it."""
    text, _, marker = value.partition("|")
    if marker and not os.path.exists(marker):
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return text.encode()


def fails(value):
    return value.startswith("fail")


def hang(value):
    if value == "sleep":
        time.sleep(10_000)
    elif value == "loop":
        # In C, without a look at signals, and with the interpreter's lock held.
        sum(iter(lambda: 0, 1)) if value == "" else any(map(bool, iter(int, 1)))
    elif value == "lock":
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
    return str(value).encode()


class Refusing(LocalTarget):
    """Names no file of logits whose name begins with b."""

    def publish(self, temporary, name, **options):
        if name == "b.logits.pt":
            raise OSError(22, "as told")
        return super().publish(temporary, name, **options)


class OnlyHere:
    """Cannot be made again anywhere else."""

    def __reduce__(self):
        return _made_here, (os.getpid(),)


def _made_here(process):
    if os.getpid() != process:
        raise LookupError("only at home")
    return OnlyHere()


class TwoArguments(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class DeadlyToMake:
    """A writer that ends the process in which it is made again."""

    def __init__(self, how):
        self.how = how

    def __reduce__(self):
        return _make_deadly, (self.how, os.getpid())

    def __call__(self, path, value):
        raise AssertionError("nobody is to get here")


def _make_deadly(how, home):
    if os.getpid() != home:
        if how == "exit":
            os._exit(9)
        raise LookupError("cannot be made again")
    return DeadlyToMake(how)


class _Dying:
    """Its helpers die: one after rows were written and before they were recorded, for each file of a folder."""

    deaths = ""

    def __setstate__(self, state):
        self.deaths = state.pop("deaths")
        super().__setstate__(state)

    def __getstate__(self):
        return {**super().__getstate__(), "deaths": self.deaths}

    def lane(self, number):
        return _dying(super().lane(number), self.deaths)


class Dying(_Dying, ArrayTarget):
    """An array's."""


class DyingTable(_Dying, TableTarget):
    """A table's."""


class DyingShards(_Dying, TarShards):
    """Those of shards."""


class DyingFiles(LocalTarget):
    """The same of files."""

    deaths = ""

    def __reduce__(self):
        make, arguments, state = super().__reduce__()
        return make, arguments, {**state, "deaths": self.deaths}

    def lane(self, number):
        return _dying(super().lane(number), self.deaths)


def _dying(lane, deaths):
    def deadly(store):
        def call(*arguments):
            stored = store(*arguments)
            for file in os.listdir(deaths) if stored else ():
                try:
                    os.unlink(os.path.join(deaths, file))
                except FileNotFoundError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)
            return stored

        return call

    lane.put_rows, lane.settle = deadly(lane.put_rows), deadly(lane.settle)
    return lane


class ModelOutput(OrderedDict):
    """A dict whose entries are attributes, too, as Hugging Face's transformers return it from models."""

    def __post_init__(self):
        for field in fields(self):
            if (value := getattr(self, field.name)) is not None:
                self[field.name] = value

    def __getitem__(self, key):
        return dict(self.items())[key] if isinstance(key, str) else self.to_tuple()[key]

    def __setattr__(self, name, value):
        if name in self.keys() and value is not None:
            super().__setitem__(name, value)
        super().__setattr__(name, value)

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def __reduce__(self):
        make, _, *rest = super().__reduce__()
        return make, tuple(getattr(self, field.name) for field in fields(self)), *rest

    def to_tuple(self):
        return tuple(self[key] for key in self.keys())


@dataclass
class ClassifierOutput(ModelOutput):
    """One of a model."""

    loss: Any = None
    logits: Any = None
    hidden_states: Any = None


@dataclass
class Detections:
    """A dataclass."""

    boxes: Any
    label: str = "cat"


@dataclass(frozen=True, slots=True)
class FrozenDetections:
    """One that cannot be changed."""

    boxes: Any


class Instances:
    """Has tensors among its attributes, one of them in an object of its own."""

    def __init__(self, boxes):
        self.boxes = boxes
        self.more = Detections(boxes)


class Handmade:
    """Has a state of its own."""

    def __init__(self, boxes):
        self.boxes = boxes

    def __getstate__(self):
        return [self.boxes]

    def __setstate__(self, state):
        (self.boxes,) = state


Scored = namedtuple("Scored", ["boxes", "score"])
