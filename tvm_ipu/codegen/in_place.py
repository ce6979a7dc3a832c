"""Concatenations and slices along the innermost dimension without copies.

A concatenation's operands become parts of the rows of its result: their producers write there, and everything
that reads them reads there. What cannot be so is copied: inputs, constants, what is already a part of
something else, and what a kernel needs dense.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tvm import te, tirx

from tvm_ipu.base.program import Space
from tvm_ipu.codegen.tensors import Storage, Value
from tvm_ipu.kernels.select import dense_params


@dataclass(frozen=True)
class Step:
    """One call of a fused function, outputs last among ``args``."""

    func: tirx.PrimFunc
    args: tuple[Value, ...]
    layer: str
    op: str


@dataclass(frozen=True)
class Join:
    """A concatenation along the innermost dimension."""

    result: Value
    operands: tuple[Value, ...]
    layer: str


def place_parts(items: Sequence[Step | Join], outputs: Sequence[Value]) -> list[Step]:
    """The steps with every concatenation placed or copied.

    Changes the storages of operands that become parts.

    Args:
        items: Steps, and concatenations of operands of rank 2 or more, in order.
        outputs: Outputs of the model.
    """
    dense: dict[tirx.PrimFunc, set[int]] = {}

    def needs_dense(step: Step, number: int) -> bool:
        if step.func not in dense:
            dense[step.func] = dense_params(step.func)
        return number in dense[step.func]

    pinned = _pinned(items, outputs, needs_dense) if any(isinstance(item, Join) for item in items) else set()
    steps: list[Step] = []
    for item in items:
        if isinstance(item, Join):
            steps += _join(item, pinned)
        else:
            steps.append(item)
    return [made for step in steps for made in _with_dense_operands(step, needs_dense)]


def copy_function(value: Value) -> tirx.PrimFunc:
    """A function that copies a tensor."""
    source = te.placeholder(value.shape, value.dtype.label, name="source")
    return te.create_prim_func([source, te.compute(value.shape, lambda *i: source(*i), name="copy")])


def _pinned(
    items: Sequence[Step | Join], outputs: Sequence[Value], needs_dense: Callable[[Step, int], bool]
) -> set[int]:
    """Storages, by identity, of which some value must be dense or sees rows of another length."""
    pinned = {id(value.storage) for value in outputs if value.row != value.storage.row}
    for item in items:
        values = item.args if isinstance(item, Step) else (*item.operands, item.result)
        for number, value in enumerate(values):
            is_kept = isinstance(item, Step) and needs_dense(item, number)
            if is_kept or value.row != value.storage.row or value.storage.space is not Space.ARENA:
                pinned.add(id(value.storage))
    return pinned


def _join(join: Join, pinned: set[int]) -> list[Step]:
    """Make the operands parts of the result; copies of those that cannot be."""
    copies = []
    column = 0
    for value in _merged(join.operands):
        storage, width = value.storage, value.shape[-1]
        if id(storage) in pinned or storage.parent or value.slice_of or storage is join.result.storage:
            part = join.result.part(column, width)
            copies.append(Step(copy_function(value), (value, part), join.layer, "concat"))
        else:
            storage.parent, storage.column = join.result.storage, column
        column += width
    return copies


def _merged(operands: Sequence[Value]) -> list[Value]:
    """The operands, neighbouring parts of one value made one."""
    merged: list[Value] = []
    for value in operands:
        last = merged[-1] if merged else None
        if (
            last
            and value.slice_of
            and last.storage is value.storage
            and last.slice_of == value.slice_of
            and last.column + last.shape[-1] == value.column
        ):
            width = last.shape[-1] + value.shape[-1]
            is_all = width == last.slice_of
            merged[-1] = replace(
                last, shape=(*last.shape[:-1], width), slice_of=0 if is_all else last.slice_of
            )
        else:
            merged.append(value)
    return merged


def _with_dense_operands(step: Step, needs_dense: Callable[[Step, int], bool]) -> list[Step]:
    """The step after copies of those operands that its kernels cannot read where they are."""
    copies, args = [], []
    for number, value in enumerate(step.args):
        if not value.is_dense and needs_dense(step, number):
            value, copied = dense_copy(value, step.layer)
            copies.append(copied)
        args.append(value)
    return [*copies, replace(step, args=tuple(args))] if copies else [step]


def dense_copy(value: Value, layer: str) -> tuple[Value, Step]:
    """A dense value, and the step that fills it."""
    made = Value(Storage(Space.ARENA, value.nbytes, row=value.shape[-1]), value.shape, value.dtype)
    return made, Step(copy_function(value), (value, made), layer, "slice")
