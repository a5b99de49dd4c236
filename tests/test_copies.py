"""What is handed over is copied, whatever holds it: the caller may change all of it at once."""

import array
import collections
import dataclasses
import functools
import queue
import threading
import types
import typing
import warnings

import attrs
import numpy as np
import pandas as pd
import pytest
import torch
from harness import Gate, run_script, until
from PIL import Image
from test_accelerator import Device

from lighter_async import BackgroundWriter, QueueFullError, WriteError, encoder
from lighter_async.pickle_by_value import dumps, loads_own
from lighter_async.staging import StagingPool, plan_batch, plan_sample

MEGA = 1 << 20


class ModelOutput(collections.OrderedDict):
    """A dict whose entries are attributes, too."""

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        self.__dict__[key] = value


class OwnDict(dict):
    pass


class OwnList(list):
    pass


class OwnTuple(tuple):
    pass


class OwnSet(set):
    pass


@dataclasses.dataclass
class Boxes:
    boxes: typing.Any
    label: str = "cat"


@dataclasses.dataclass(frozen=True)
class Frozen:
    boxes: typing.Any


@dataclasses.dataclass(slots=True)
class Slotted:
    boxes: typing.Any


@attrs.define
class Defined:
    boxes: typing.Any


class Plain:
    def __init__(self, boxes):
        self.boxes = boxes


class Handmade:
    __slots__ = ("boxes",)

    def __init__(self, boxes):
        self.boxes = boxes


class Pair(typing.NamedTuple):
    boxes: typing.Any
    number: int = 1


class Richer(Pair):
    """A named tuple with attributes."""


class Tagged(torch.Tensor):
    """A tensor with attributes."""


class Marked(np.ndarray):
    """An array with attributes."""


def richer(leaf):
    made = Richer(1)
    made.more = leaf
    return made


def tagged(leaf):
    made = torch.as_tensor(leaf).as_subclass(Tagged)
    made.meta = {"more": leaf}
    return made


def marked(leaf):
    made = np.asarray(leaf).view(Marked)
    made.meta = {"more": leaf}
    return made


def objects(leaf):
    made = np.empty(2, object)
    made[:] = [leaf, {"more": leaf}]
    return made


def cycle(leaf):
    made = Plain(leaf)
    made.itself = [made]
    return made


def circle(leaf):
    made = [leaf]
    made.append(made)
    return made


HOLDERS = {
    "defaultdict": lambda leaf: collections.defaultdict(list, a=leaf),
    "ModelOutput": lambda leaf: ModelOutput(a=leaf),
    "dict subclass": lambda leaf: OwnDict(a=leaf),
    "list subclass": lambda leaf: OwnList([leaf]),
    "tuple subclass": lambda leaf: OwnTuple([leaf]),
    "UserDict": lambda leaf: collections.UserDict(a=leaf),
    "UserList": lambda leaf: collections.UserList([leaf]),
    "deque": lambda leaf: collections.deque([leaf], maxlen=3),
    "ChainMap": lambda leaf: collections.ChainMap({"a": leaf}, {"b": 1}),
    "mapping proxy's dict": lambda leaf: types.SimpleNamespace(a={"b": [leaf]}),
    "dataclass": Boxes,
    "frozen dataclass": Frozen,
    "dataclass with slots": Slotted,
    "attrs": Defined,
    "SimpleNamespace": lambda leaf: types.SimpleNamespace(a=leaf),
    "plain class": Plain,
    "class with slots": Handmade,
    "named tuple with attributes": richer,
    "dataclass in a dict in a list": lambda leaf: [{"a": Boxes({"b": OwnList([leaf])})}],
    "tensor subclass": tagged,
    "array subclass": marked,
    "array of objects": objects,
    "cycle": cycle,
    "list in itself": circle,
    "partial": lambda leaf: functools.partial(max, leaf),
    "many": lambda leaf: [leaf, *range(5000)],
}


def leaves(value, seen=None):
    """All tensors and arrays in a value, however deep."""
    seen = {} if seen is None else seen
    if id(value) in seen or isinstance(value, (str, bytes, int, float, type(None), type)):
        return []
    seen[id(value)] = value
    found = []
    if isinstance(value, (torch.Tensor, np.ndarray)) and value.dtype not in (object,):
        found.append(value)
        parts = [vars(value)] if type(value) in (Tagged, Marked) else []
    elif isinstance(value, np.ndarray):
        parts = list(value)
    elif isinstance(value, functools.partial):
        parts = list(value.args)
    elif isinstance(value, collections.abc.Mapping):
        parts = [*value.values(), getattr(value, "__dict__", None)]
    elif isinstance(value, (list, tuple, set, collections.deque)):
        parts = [*value, getattr(value, "__dict__", None)]
    else:
        slots = [getattr(value, name) for name in getattr(type(value), "__slots__", ()) if hasattr(value, name)]
        parts = [getattr(value, "__dict__", None), *(part for part in slots if part is not value)]
    for part in parts:
        found += leaves(part, seen)
    return found


@pytest.mark.parametrize("make", [lambda: torch.full((4,), 7.0), lambda: np.full(4, 7.0)], ids=["tensor", "array"])
@pytest.mark.parametrize("holder", HOLDERS)
def test_tensors_are_copied_whatever_holds_them(holder, make):
    """The value read back is of the same type, and holds what the tensors held when they were handed over."""
    pool = StagingPool(MEGA)
    leaf = make()
    value = HOLDERS[holder](leaf)
    count = len(leaves(value))
    for staged in (pool.stage(plan_sample(value)), pool.stage(plan_batch([1, value]))):
        leaf[:] = 7.0
        staged = pool.stage(plan_sample(value))
        leaf[:] = -1
        for read in (staged.value(0), staged.own_value(0)):
            assert type(read) is type(value)
            found = leaves(read)
            assert len(found) == count
            assert all((one == 7.0).all() for one in found)
    read = staged.own_value(0)
    pool.release(staged)
    staged.slot.memory[:] = 0
    assert all((one == 7.0).all() for one in leaves(read))


CHANGES = {
    "defaultdict of numbers": (lambda: collections.defaultdict(int, a=1), lambda value: value.update(a=2)),
    "deque": (lambda: collections.deque([1, 2]), lambda value: value.append(3)),
    "list subclass": (lambda: OwnList([1.5]), lambda value: value.append(2.5)),
    "set": (lambda: {1, 2}, lambda value: value.add(3)),
    "set subclass": (lambda: OwnSet([1]), lambda value: value.add(3)),
    "dataclass": (lambda: Boxes([1.0], "cat"), lambda value: value.boxes.append(2.0)),
    "attribute": (lambda: Boxes(1, "cat"), lambda value: setattr(value, "label", "dog")),
    "bytearray within": (lambda: Boxes(bytearray(b"abc")), lambda value: value.boxes.extend(b"d")),
    "array.array": (lambda: array.array("d", [1, 2]), lambda value: value.append(3)),
    "Counter": (lambda: collections.Counter("aab"), lambda value: value.update("c")),
    "many numbers": (lambda: list(range(3000)), lambda value: value.append(1)),
    "huge number": (lambda: [1 << 3000], lambda value: value.append(1)),
    "matrix": (lambda: np.ma.masked_array([1, 2], [True, False]), lambda value: value.__setitem__(1, 9)),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_holds_no_tensor_is_copied_as_well(kind):
    """Containers of numbers, and objects, may be filled anew."""
    make, change = CHANGES[kind]
    pool = StagingPool(MEGA)
    value = make()
    staged = pool.stage(plan_sample(value))
    change(value)
    read = staged.value(0)
    assert type(read) is type(make())
    assert str(read) == str(make())


def test_a_view_of_memory_is_copied():
    """With its format and shape."""
    data = bytearray(np.arange(6, dtype=np.int32).tobytes())
    view = memoryview(data).cast("i", (2, 3))
    pool = StagingPool(MEGA)
    staged = pool.stage(plan_sample(view))
    data[:] = bytes(len(data))
    read = staged.value(0)
    assert (read.tolist(), read.format) == ([[0, 1, 2], [3, 4, 5]], "i")


def test_an_image_of_pillows_and_a_data_frame_are_copied():
    """By their own pickling."""
    image = Image.new("RGB", (4, 4), (1, 2, 3))
    frame = pd.DataFrame({"a": np.arange(3.0), "b": ["x", "y", "z"]})
    pool = StagingPool(MEGA)
    staged = pool.stage(plan_batch([image, frame]))
    image.putpixel((0, 0), (9, 9, 9))
    frame.loc[0, "a"] = -1
    assert staged.value(0).getpixel((0, 0)) == (1, 2, 3)
    assert staged.value(1)["a"].tolist() == [0, 1, 2]
    assert staged.own_value(1)["b"].tolist() == ["x", "y", "z"]


def test_what_is_shared_inside_a_value_stays_shared():
    """A tensor that an object holds twice is copied once."""
    tensor = torch.ones(1000)
    plan = plan_sample(Boxes([tensor, tensor]))
    assert len([source for _, source in plan.sources if source is tensor]) == 1
    read = StagingPool(MEGA).stage(plan).value(0)
    assert read.boxes[0] is read.boxes[1]


def test_a_parameter_in_a_module_stays_one():
    """A module is copied as it is, and its weights may be trained on."""
    module = torch.nn.Linear(3, 2)
    before = [one.detach().clone() for one in module.parameters()]
    staged = StagingPool(MEGA).stage(plan_sample(module))
    with torch.no_grad():
        for one in module.parameters():
            one.zero_()
    read = staged.own_value(0)
    assert [type(one) for one in read.parameters()] == [torch.nn.Parameter] * 2
    assert all(torch.equal(one, other) for one, other in zip(read.parameters(), before, strict=True))


def test_device_tensors_in_objects_are_copied_by_the_accelerator():
    """They are never pickled: the loop would wait for the device."""
    device = Device()
    tensor = device.tensor(torch.ones(100))
    pool = StagingPool(MEGA, accelerator=device)
    staged = pool.stage(plan_sample(Boxes({"a": tensor})))
    (copy,) = device.copies
    assert len(copy.pairs) == 1
    tensor.zero_()
    copy.arrive()
    assert staged.value(0).boxes["a"].sum() == 100
    device.copies.clear()


def test_classes_functions_and_locks_are_the_very_same_in_a_thread():
    """They are what they are by their identity, and what waits for an event sees it set."""

    class Local:
        pass

    event, lock, box = threading.Event(), threading.Lock(), queue.Queue()
    value = Boxes({"tensor": torch.ones(2), "event": event, "lock": lock, "queue": box, "class": Local, "f": leaves})
    read = StagingPool(MEGA).stage(plan_sample(value)).value(0).boxes
    for name in ("event", "lock", "queue", "class", "f"):
        assert read[name] is value.boxes[name]
    assert read["tensor"] is not value.boxes["tensor"]


class Progress:
    """Counts under a lock."""

    def __init__(self):
        self.lock = threading.Lock()
        self.done = 0


def test_what_guards_itself_with_a_lock_is_shared():
    """A copy would count apart."""
    progress = Progress()
    staged = StagingPool(MEGA).stage(plan_batch([(1, progress), Boxes(progress)]))
    assert staged.value(0)[1] is progress
    assert staged.value(1).boxes is progress


def holding():
    tensor = torch.ones(3)
    while True:
        yield tensor


class Unmade:
    """Can be pickled, and not be made again."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __reduce__(self):
        return Unmade, ()


@pytest.mark.parametrize(
    ("make", "name"), [(lambda: holding(), "generator"), (lambda: Unmade(torch.ones(2)), "Unmade")]
)
def test_what_cannot_be_copied_is_said_once(make, name):
    """With what it is; it is handed over as it is."""
    value = make()
    if name == "generator":
        next(value)
    with pytest.warns(UserWarning, match=f"{name} cannot be copied") as caught:
        staged = StagingPool(MEGA).stage(plan_sample(value))
    assert len(caught) == 1
    assert staged.value(0) is value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = make()
        if name == "generator":
            next(again)
        plan_sample(again)


def test_what_cannot_be_copied_leaves_the_rest_copied():
    """A dict beside such an object is walked through."""
    tensor, odd = torch.ones(2), Unmade(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        staged = StagingPool(MEGA).stage(plan_sample({"a": tensor, "b": Boxes(tensor), "c": odd}))
    tensor.zero_()
    read = staged.value(0)
    assert (read["a"].sum(), read["b"].boxes.sum(), read["c"]) == (2, 2, odd)


def test_a_tensor_without_data_is_refused_in_an_object_too():
    """As anywhere else."""
    with pytest.raises(ValueError, match="on the meta device and has no data to write"):
        plan_sample(Boxes(torch.empty(2, device="meta")))


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_buffer_that_is_filled_anew_at_each_step_is_stored_step_by_step(tmp_path, backend):
    """By both backends, whatever it is handed over in."""
    kinds = {"model": lambda t: ModelOutput(a=t), "boxes": Boxes, "list": lambda t: OwnList([t]), "attrs": Defined}
    buffer = torch.empty(50_000)
    with BackgroundWriter("tensor", tmp_path, backend=backend, max_workers=1) as writer:
        for step in range(10):
            for name, make in kinds.items():
                buffer.fill_(step)
                writer.submit(f"{name}-{step}", make(buffer))
                buffer.fill_(-1)
    for step in range(10):
        for name in kinds:
            read = torch.load(tmp_path / f"{name}-{step}.pt", weights_only=False)
            assert all(bool((one == step).all()) for one in leaves(read))
            assert leaves(read)


# What is held counts


@pytest.mark.parametrize(
    ("value", "held"),
    [
        (Boxes(bytes(4 * MEGA)), 4 * MEGA),
        ("\N{GRINNING FACE}" * MEGA, 4 * MEGA),
        ("a" * MEGA, MEGA),
        ([b"x" * MEGA, bytearray(MEGA)], 2 * MEGA),
        ([float(number) for number in range(MEGA)], 8 * MEGA),
        ({"a": ["b" * 1000] * 500}, 500_000),
        ([[f"{number:01000}"] * 3 for number in range(600)], 600_000),
        ({"k" * MEGA: 1}, MEGA),
        (1 << (8 * MEGA), MEGA),
        (Boxes(np.zeros(MEGA)), 8 * MEGA),
        (np.array(["x" * MEGA], object), MEGA),
    ],
    ids=["object", "emoji", "text", "bytes", "floats", "texts", "lists", "key", "number", "array", "objects"],
)
@pytest.mark.parametrize("shared", [False, True])
def test_what_a_value_holds_counts_against_the_budget(value, held, shared):
    """Texts by their characters, objects by their pickle, for threads and for helpers."""
    pool = StagingPool(64 * MEGA)
    pool.shared = pool.shared if not shared else pool
    assert held <= pool.bytes_of(pool.plan_sample(value)) <= 3 * held + 4096


@pytest.mark.parametrize("text", ["a" * 5000, "\N{GRINNING FACE}\ud800\0" * 4000, "ü" * 5000])
def test_long_texts_lie_in_the_memory_that_helpers_share(text):
    """And come back as they were."""
    pool = StagingPool(MEGA)
    values = [text, [text.encode("utf-8", "surrogatepass"), bytearray(6000)], {"a": text[:10]}]
    staged = pool.stage(plan_batch(values, shared=True))
    assert [staged.value(index) for index in range(3)] == values
    assert [type(one) for one in staged.own_value(1)] == [bytes, bytearray]
    assert len(dumps(staged.values)) < 1000


def test_objects_wait_for_room(tmp_path):
    """What a slow encoder has not stored stays within queue_bytes, whatever the values are."""
    gate = Gate()

    @encoder(suffix=".x")
    def slow(value):
        gate.passing("x")
        return b"x"

    writer = BackgroundWriter(slow, tmp_path, max_workers=1, queue_bytes=4 * MEGA)
    gate.shut()
    for number in range(3):
        writer.submit_nowait(str(number), Boxes(bytes(MEGA)))
    until(lambda: gate.inside)
    with pytest.raises(QueueFullError):
        writer.submit_nowait("more", Boxes(bytes(2 * MEGA)))
    gate.release()
    writer.close()


# Classes of a script

SCRIPT = """
    import dataclasses, enum, sys, typing, warnings
    import torch
    from lighter_async import BackgroundWriter, WriteError, encoder

    class Kind(enum.Enum):
        CAT = 1
        DOG = 2

    class Detection(typing.NamedTuple):
        boxes: torch.Tensor
        kind: Kind

    @dataclasses.dataclass
    class Result:
        found: typing.Any

        class Inner(dict):
            pass

    class Refused(ValueError):
        def __str__(self):
            return f"refused {len(seen)}"

    seen = []
    init = Refused.__str__

    @encoder(suffix=".bin")
    def refuse(value):
        raise Refused(value)

    def make():
        return [
            Detection(torch.ones(2), Kind.DOG), [Detection(torch.ones(3), Kind.CAT)], Result({"a": torch.ones(1)}),
            Result.Inner(a=torch.ones(2)), {"k": Kind.CAT, "r": [Result(Result.Inner())]}, Kind.DOG,
        ]

    for backend in ("thread", "process"):
        folder = f"{sys.argv[1]}/{backend}"
        with BackgroundWriter("tensor", folder, backend=backend, max_workers=2) as writer:
            for number, value in enumerate(make()):
                writer.submit(str(number), value)
        for number, value in enumerate(make()):
            read = torch.load(f"{folder}/{number}.pt", weights_only=False)
            assert type(read) is type(value), (backend, number, type(read))
            assert repr(read) == repr(value), (backend, number)

        first = Result

        @dataclasses.dataclass
        class Result:
            other: int

        with BackgroundWriter("tensor", folder, backend=backend, max_workers=1, if_exists="overwrite") as writer:
            writer.submit("new", Result(3))
        assert type(torch.load(f"{folder}/new.pt", weights_only=False)) is Result
        Result = first

        try:
            with BackgroundWriter(refuse, folder, backend=backend, max_workers=1) as writer:
                writer.submit("a", 1)
        except WriteError as error:
            try:
                raise error.cause
            except Refused as mine:
                assert type(mine) is Refused
                seen.append(1)
                assert str(mine) == f"refused {len(seen)}", str(mine)
                assert Refused.__str__ is init
        else:
            raise AssertionError("nothing was raised")
    print("good")
"""


@pytest.mark.long
def test_classes_of_a_script_work_with_every_backend(tmp_path):
    """Files refer to them as the script's own, a class defined anew is the later one, and failures are of its types."""
    done = run_script(SCRIPT.replace("\n    ", "\n"), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "good\n", "")


INNER = """
    import sys
    import torch
    from lighter_async import BackgroundWriter

    class Outer:
        class Inner(dict):
            class Innermost(dict):
                pass

    for name, kind in {"inner": Outer.Inner, "innermost": Outer.Inner.Innermost}.items():
        folder = f"{sys.argv[1]}/{name}"
        with BackgroundWriter("tensor", folder, backend="process", max_workers=1) as writer:
            writer.submit("a", kind(a=torch.ones(2)))
        assert type(torch.load(f"{folder}/a.pt", weights_only=False)) is kind
    print("good")
"""


@pytest.mark.long
def test_an_inner_class_is_found_by_its_name_though_its_outer_class_never_came(tmp_path):
    """A helper may be handed samples of the inner one alone."""
    done = run_script(INNER.replace("\n    ", "\n"), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "good\n", "")


BY_PATH = """
    import importlib.util, sys
    import torch
    from lighter_async import BackgroundWriter

    open(sys.argv[1] + "/odd_place.py", "w").write(
        "import dataclasses\\n@dataclasses.dataclass\\nclass Found:\\n    value: object\\n"
    )
    spec = importlib.util.spec_from_file_location("by_path_alone", sys.argv[1] + "/odd_place.py")
    module = sys.modules["by_path_alone"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with BackgroundWriter("tensor", sys.argv[1] + "/out", backend="process", max_workers=1) as writer:
        writer.submit("a", module.Found(torch.ones(2)))
    read = torch.load(sys.argv[1] + "/out/a.pt", weights_only=False)
    assert type(read) is module.Found
    print("good")
"""


@pytest.mark.long
def test_classes_of_a_module_that_was_run_by_its_path_work(tmp_path):
    """A helper cannot import it, and has them all the same."""
    done = run_script(BY_PATH.replace("\n    ", "\n"), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "good\n", "")


def test_a_class_that_comes_back_stays_as_it_is():
    """Its methods go on seeing the variables of where they were defined."""

    class Local:
        def method(self):
            return threading

    method = Local.method
    assert type(loads_own(dumps(Local()))) is Local
    assert Local.method is method


@pytest.mark.long
def test_a_value_that_cannot_be_made_in_a_helper_fails_alone(tmp_path):
    """The others of its batch are stored."""
    writer = BackgroundWriter("text", tmp_path, backend="process", max_workers=1)
    writer.submit_batch(["a", "b"], [Boxes(Elsewhere()), "words"])
    with pytest.raises(WriteError, match="only at home") as caught:
        writer.close()
    assert [one.name for one in caught.value.failures] == ["a"]
    assert (tmp_path / "b.txt").read_text() == "words"


class Elsewhere:
    def __reduce__(self):
        import os

        return _made, (os.getpid(),)


def _made(process):
    import os

    if os.getpid() != process:
        raise LookupError("only at home")
    return Elsewhere()


def test_an_array_with_attributes_that_cannot_be_copied_is_copied_all_the_same(tmp_path):
    """Its elements are what the loop fills anew."""

    class Locked(np.ndarray):
        pass

    buffer = np.zeros(1000).view(Locked)
    buffer.lock = threading.Lock()
    with BackgroundWriter(encoder(suffix=".x")(lambda value: value.tobytes()), tmp_path, backend="thread") as writer:
        for step in range(20):
            buffer.fill(step)
            writer.submit(str(step), buffer)
        buffer.fill(-1)
    for step in range(20):
        assert (np.frombuffer((tmp_path / f"{step}.x").read_bytes()) == step).all()
