"""Lay samples of several outputs out, each output by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lighter_async.errors import shown
from lighter_async.staging.kinds import is_plain_array, is_plain_tensor, is_tensor
from lighter_async.staging.layout import placed, unbind
from lighter_async.staging.places import Leaf
from lighter_async.staging.plan import Plan

__all__ = ["plan_batch_of_outputs", "plan_sample_of_outputs"]


def plan_sample_of_outputs(value: Any, keys: Sequence[str], *, shared: bool = False) -> Plan:
    """Plan for one sample.

    Args:
        value: A dict with a value for each output.
        keys: The outputs.
        shared: Whether other processes are to read it.

    Raises:
        TypeError: It is no dict.
        ValueError: An output is missing, or a tensor has no data.
    """
    plan = Plan(shared, count=1)
    plan.values.append({key: placed(one, plan) for key, one in _outputs_in(value, keys, "a sample").items()})
    return plan


def plan_batch_of_outputs(values: Any, keys: Sequence[str], *, shared: bool = False) -> Plan:
    """Plan for a dict with a batch for each output, all of one length, or for a sequence of samples.

    Args:
        values: The samples.
        keys: The outputs.
        shared: Whether other processes are to read them.

    Raises:
        TypeError: It is neither.
        ValueError: An output is missing, the batches differ in length, or a tensor has no data.
    """
    plan = Plan(shared)
    if not isinstance(values, Mapping) and isinstance(values, Sequence) and not isinstance(values, (str, bytes)):
        for value in values:
            outputs = _outputs_in(value, keys, "a sample")
            plan.values.append({key: placed(one, plan) for key, one in outputs.items()})
        plan.count = len(plan.values)
        return plan
    columns = {key: _column(key, one, plan) for key, one in _outputs_in(values, keys, "a batch").items()}
    counts = {key: column.shape[0] if isinstance(column, Leaf) else len(column) for key, column in columns.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"a batch has as many samples of each output, not {shown(counts)}")
    plan.count = next(iter(counts.values()))
    plan.columns = {key: column if isinstance(column, Leaf) else None for key, column in columns.items()}
    others = {key: column for key, column in columns.items() if not isinstance(column, Leaf)}
    if others:
        plan.values = [dict(zip(others, row, strict=True)) for row in zip(*others.values(), strict=True)]
    return plan


def _outputs_in(value: Any, keys: Sequence[str], what: str) -> dict[str, Any]:
    names = ", ".join(map(repr, keys))
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} of several outputs is a dict with the keys {names}, not {type(value).__name__}")
    missing = [key for key in keys if key not in value]
    if missing:
        raise ValueError(
            f"output {missing[0]!r} is missing in {what}, whose keys are {shown(list(value))}; the writer stores "
            f"{names}"
        )
    return {key: value[key] for key in keys}


def _column(key: str, values: Any, plan: Plan) -> Leaf | list[Any]:
    """The place of the whole batch of one output, or those of its samples."""
    tensor = is_tensor(values)
    if tensor or isinstance(values, np.ndarray):
        if values.ndim == 0:
            raise ValueError(f"output {key!r} needs a batch dimension, got a 0-d tensor; use submit() for one sample")
        if is_plain_tensor(values) if tensor else is_plain_array(values):
            return plan.place(values, is_tensor=tensor) if values.shape[0] else []
        values = unbind(values)
    elif isinstance(values, (str, bytes, bytearray)) or not isinstance(values, Sequence):
        raise TypeError(
            f"output {key!r} of a batch is a tensor or array with a batch dimension, or a sequence with a value per "
            f"sample, not {type(values).__name__}"
        )
    return [placed(value, plan) for value in values]
