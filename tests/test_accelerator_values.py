"""Values that hold tensors of a device: staged by the accelerator, and pickled by nobody."""

from __future__ import annotations

import collections
import types

import numpy as np
import pytest
import torch
from sent_to_helpers import (
    ClassifierOutput,
    Detections,
    FrozenDetections,
    Handmade,
    Instances,
    Scored,
)
from test_accelerator import Device

from lighter_async import BackgroundWriter, TableTarget, open_results
from lighter_async.pickle_by_value import dumps, loads_own
from lighter_async.staging import StagingPool

MEGA = 1 << 20


class Module(torch.nn.Module):
    """Has a parameter and a buffer."""

    def __init__(self, tensor):
        super().__init__()
        self.weight = torch.nn.Parameter(tensor)
        self.register_buffer("mean", tensor)


VALUES = {
    "a tensor": lambda tensor: tensor,
    "a parameter": lambda tensor: torch.nn.Parameter(tensor),
    "a list": lambda tensor: [tensor, "text"],
    "a tuple": lambda tensor: (1, tensor),
    "a dict": lambda tensor: {"a": {"b": tensor}},
    "an ordered dict": lambda tensor: collections.OrderedDict(a=tensor),
    "a named tuple": lambda tensor: Scored(tensor, 0.5),
    "a dataclass": Detections,
    "a frozen dataclass": FrozenDetections,
    "a model's output": lambda tensor: ClassifierOutput(logits=tensor, hidden_states=(tensor, tensor)),
    "attributes": Instances,
    "a state of its own": Handmade,
    "a namespace": lambda tensor: types.SimpleNamespace(boxes=tensor),
    "a default dict": lambda tensor: collections.defaultdict(list, a=[tensor]),
    "a deque": lambda tensor: collections.deque([tensor]),
    "an array of objects": lambda tensor: np.array([tensor, None], dtype=object),
    "packed sequences": lambda tensor: torch.nn.utils.rnn.pack_sequence([tensor]),
    "a module": Module,
    "a long list": lambda tensor: [[number] for number in range(1000)] + [tensor],
    "all of them": lambda tensor: [Detections(tensor), {"a": ClassifierOutput(logits=Scored(tensor, 1))}],
}


def tensors_of(value):
    """Every tensor in a value, as often as it is there."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (str, int, float, type(None), np.generic, type)):
        return []
    if isinstance(value, torch.nn.Module):
        return [*value.parameters(), *value.buffers()]
    if isinstance(value, collections.abc.Mapping):
        return [one for item in value.values() for one in tensors_of(item)]
    if isinstance(value, (list, tuple, collections.deque, np.ndarray)):
        return [one for item in value for one in tensors_of(item)]
    if isinstance(value, FrozenDetections):
        return tensors_of(value.boxes)
    return [one for item in vars(value).values() for one in tensors_of(item)]


@pytest.fixture
def device(monkeypatch):
    """Its tensors, and what else is in their memory, can be pickled by nobody, nor copied but by its accelerator."""
    device = Device()
    reduce = torch.Tensor.__reduce_ex__

    def reduce_ex(tensor, protocol):
        assert tensor.data_ptr() not in device.owned, "a tensor of a device was pickled"
        return reduce(tensor, protocol)

    monkeypatch.setattr(torch.Tensor, "__reduce_ex__", reduce_ex)
    yield device
    device.copies.clear()


def owned(device, make):
    """A value of one tensor, all of whose tensors are the device's."""
    value = make(torch.arange(1.0, 7.0).reshape(2, 3))
    for tensor in tensors_of(value):
        device.tensor(tensor.data)
    return value


@pytest.mark.parametrize("shared", [False, True], ids=["thread", "process"])
@pytest.mark.parametrize("make", VALUES.values(), ids=VALUES)
def test_a_value_that_holds_device_tensors_is_staged_and_never_pickled(device, make, shared):
    """All of them in one copy; what is read back has the same shape and class, and tensors of the host."""
    pool = StagingPool(MEGA, accelerator=device, shared=shared)
    if shared:
        pool.shared.open()
    value = owned(device, make)
    expected = [tensor.detach().clone() for tensor in tensors_of(value)]
    staged = pool.stage(pool.plan_sample(value))
    (copy,) = device.copies
    for tensor in tensors_of(value):
        tensor.data.fill_(-1)
    copy.arrive()
    found = staged.value(0)
    assert type(found) is type(value) or isinstance(value, torch.nn.Parameter)
    assert len(tensors_of(found)) == len(expected)
    for one, other in zip(tensors_of(found), expected, strict=True):
        assert torch.equal(one, other)
        assert one.data_ptr() not in device.owned
    assert staged.loose == []
    assert not any(isinstance(kept, torch.Tensor) for kept in staged.kept)
    pool.release(staged)
    del found, one
    pool.close()
    if shared:
        pool.shared.close()


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_batch_of_models_outputs_is_stored(tmp_path, device, backend):
    """Through the service, by either backend; the loop goes on at once, and may change all of it."""
    with BackgroundWriter("tensor", tmp_path, backend=backend, accelerator=device) as writer:
        values = [owned(device, make) for make in VALUES.values()]
        expected = [[tensor.detach().clone() for tensor in tensors_of(value)] for value in values]
        writer.submit_batch([f"{number}" for number in range(len(values))], values)
        for value in values:
            for tensor in tensors_of(value):
                tensor.data.fill_(-1)
        (copy,) = device.copies
        copy.arrive()
    for number, tensors in enumerate(expected):
        found = torch.load(tmp_path / f"{number}.pt", weights_only=False)
        for one, other in zip(tensors_of(found), tensors, strict=True):
            assert torch.equal(one, other)


def test_columns_of_a_table_are_copied_at_once(tmp_path, device):
    """As a batch of outputs that a model has on its device."""
    table = TableTarget(tmp_path / "table.csv")
    with BackgroundWriter(target=table, accelerator=device) as writer:
        label, score = device.tensor(torch.tensor([3, 4])), device.tensor(torch.tensor([0.5, 0.25]))
        writer.submit_batch(["a", "b"], {"label": label, "score": score})
        (copy,) = device.copies
        assert len(copy.pairs) == 2
        copy.arrive()
    results = open_results(table)
    assert [results[name]["label"] for name in "ab"] == [3, 4]
    assert [results[name]["score"] for name in "ab"] == [0.5, 0.25]


class OnDevice(torch.Tensor):
    """A tensor that says that it is on a device."""

    device = torch.device("cuda", 0)

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def __reduce_ex__(self, protocol):
        raise AssertionError("a tensor of a device was pickled")


def test_what_goes_to_helpers_as_it_is_goes_without_the_device():
    """Helpers see no accelerator, so they could not unpickle its tensors."""
    tensor = torch.ones(3).as_subclass(OnDevice)

    def scale(value):
        return value * tensor

    found = loads_own(dumps({"closure": scale, "tensor": tensor, "nothing": torch.ones(2, device="meta")}))
    assert type(found["tensor"]) is torch.Tensor
    assert found["tensor"].tolist() == found["closure"](1).tolist() == [1, 1, 1]
    assert found["nothing"].is_meta
