"""Lay samples of several outputs out, each output by itself; and rows of tables, each column by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lighter_async.errors import shown
from lighter_async.staging.kinds import is_plain_array, is_plain_tensor, is_tensor
from lighter_async.staging.layout import placed, plan_batch, unbind
from lighter_async.staging.places import Leaf
from lighter_async.staging.plan import LONG_TEXT, Plan

_MOST = 1 << 63

__all__ = ["as_row", "plan_batch_of_dicts", "plan_batch_of_outputs", "plan_sample_of_outputs"]


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
    _place_columns(_outputs_in(values, keys, "a batch"), plan, "output")
    return plan


def plan_batch_of_dicts(values: Any, *, shared: bool = False) -> Plan:
    """Plan for the rows of a table: a dict from columns to all of their values, or a sequence of rows.

    Args:
        values: The rows.
        shared: Whether other processes are to read them.

    Raises:
        TypeError: It is neither, or a column has no text as its name.
        ValueError: The columns differ in length, or a tensor has no data.
    """
    if isinstance(values, Mapping):
        plan = Plan(shared)
        _place_columns(as_row(values), plan, "column")
        return plan
    if isinstance(values, (str, bytes, bytearray)) or not isinstance(values, Sequence):
        raise TypeError(
            f"a batch of rows of a table is a dict from columns to their values, or a list of dicts, not "
            f"{type(values).__name__}"
        )
    return plan_batch([as_row(value) for value in values], shared=shared)


def as_row(value: Any) -> dict[str, Any]:
    """A row of a table, or a batch of them, as a dict.

    Raises:
        TypeError: It is none, or a column has no text as its name.
        ValueError: It has no columns, or one whose name is no valid text.
    """
    if not isinstance(value, Mapping):
        raise TypeError(
            f"a row of a table is a dict from columns to values, not {type(value).__name__}: {shown(value)}; write "
            "{'column': value}"
        )
    if not value:
        raise ValueError("a row of a table has a column at least, and this dict is empty")
    for key in value:
        if type(key) is not str or not key.isascii():
            return {_column_name(key): one for key, one in value.items()}
    return dict(value)


def _column_name(key: Any) -> str:
    """A column's name as a plain text; of an enum's member that is its value.

    Raises:
        TypeError, ValueError: As `as_row`.
    """
    if not isinstance(key, str):
        raise TypeError(f"columns of a table have texts as names, not {shown(key)}; use str(key)")
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the name of a column is no valid text: {shown(key)} ({error}); replace what is not"
        ) from error
    return str.__str__(key)


def _place_columns(batches: Mapping[str, Any], plan: Plan, what: str) -> None:
    """Place a batch for each of several keys.

    Raises:
        TypeError, ValueError: As `plan_batch_of_outputs`.
    """
    columns = {key: _column(key, one, plan, what) for key, one in batches.items()}
    counts = {key: column.shape[0] if isinstance(column, Leaf) else len(column) for key, column in columns.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"a batch has as many samples of each {what}, not {shown(counts)}")
    plan.count = next(iter(counts.values()))
    plan.columns = columns


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


def _column(key: str, values: Any, plan: Plan, what: str) -> Leaf | list[Any]:
    """The place of the whole batch of one output, or those of its samples."""
    tensor = is_tensor(values)
    if tensor or isinstance(values, np.ndarray):
        if values.ndim == 0:
            raise ValueError(f"{what} {key!r} needs a batch dimension, got a 0-d tensor; use submit() for one sample")
        if is_plain_tensor(values) if tensor else is_plain_array(values):
            return plan.place(values, is_tensor=tensor) if values.shape[0] else []
        values = unbind(values)
    elif isinstance(values, (str, bytes, bytearray)) or not isinstance(values, Sequence):
        raise TypeError(
            f"{what} {key!r} of a batch is a tensor or array with a batch dimension, or a sequence with a value per "
            f"sample, not {type(values).__name__}"
        )
    plan.lists(len(values))
    kinds = set(map(type, values))
    if kinds == {str}:
        together = "".join(values)  # looked at as a whole, since there may be thousands of them
        if together.isascii() and max(map(len, values)) < LONG_TEXT:
            plan.other_bytes += len(together)
            return list(values)
    elif kinds <= {float, bool} or (kinds == {int} and min(values) >= -_MOST and max(values) < _MOST):
        return list(values)
    return [placed(value, plan) for value in values]
