"""Operators whose elements depend on the ones before: top-k selection and cumulative sums and products."""

from __future__ import annotations

import math
from typing import Any

from tvm import relax, tirx
from tvm.script.ir_builder import tirx as T

from tvm_ipu.frontends.onnx.context import Context, Node, UnsupportedNode, converter
from tvm_ipu.frontends.onnx.ops.common import (
    HALF_TYPES,
    attr_bool,
    ints,
    local,
    loops,
    normal_axis,
    number,
    required,
)


@converter("CumSum", "CumProd")
def cumulative(ctx: Context, node: Node) -> relax.Expr:
    """All numeric types; the axis must be constant. Half precision is accumulated in float32."""
    x = required(node, 0, "x")
    shape, dtype = ctx.shape(x), ctx.dtype(x)
    axis = normal_axis(ints(ctx.require_value(node, 1, "axis"))[0], len(shape))
    outer, extent, inner = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    product, reverse, exclusive = (
        node.op_type == "CumProd",
        attr_bool(node, "reverse"),
        attr_bool(node, "exclusive"),
    )
    work = "float32" if dtype in HALF_TYPES else dtype

    def body(source: Any, target: Any) -> None:
        with T.parallel(outer * inner) as row:
            o, i = row // inner, row % inner
            total = local(work)
            total[0] = number(1 if product else 0, work)
            with T.serial(extent) as step:
                j = extent - 1 - step if reverse else step
                if exclusive:
                    target[o, j, i] = total[0].astype(dtype)
                value = source[o, j, i].astype(work)
                total[0] = total[0] * value if product else total[0] + value
                if not exclusive:
                    target[o, j, i] = total[0].astype(dtype)

    flat = ctx.emit(relax.op.reshape(x, (outer, extent, inner)))
    (result,) = loops(ctx, node.op_type.lower(), [flat], [((outer, extent, inner), dtype)], body)
    return ctx.emit(relax.op.reshape(result, shape))


@converter("TopK")
def top_k(ctx: Context, node: Node) -> list[relax.Expr]:
    """All numeric types; k must be constant."""
    x = required(node, 0, "X")
    shape, dtype = ctx.shape(x), ctx.dtype(x)
    axis = normal_axis(int(node.attrs.get("axis", -1)), len(shape))
    k = int(node.attrs["k"]) if node.since < 10 else ints(ctx.require_value(node, 1, "K"))[0]
    if not 0 < k <= shape[axis]:
        raise UnsupportedNode(f"k is {k} and axis {axis} has {shape[axis]} elements")
    largest = bool(node.attrs.get("largest", 1))
    order = [*(i for i in range(len(shape)) if i != axis), axis]
    moved = ctx.emit(relax.op.permute_dims(x, order)) if order != sorted(order) else x
    rows = math.prod(shape) // shape[axis]
    flat = ctx.emit(relax.op.reshape(moved, (rows, shape[axis])))
    values, indices = select_best(ctx, flat, k, dtype, largest)
    back = [order.index(i) for i in range(len(shape))]
    results = []
    for result in (values, indices):
        result = ctx.emit(relax.op.reshape(result, [*(shape[i] for i in order[:-1]), k]))
        results.append(ctx.emit(relax.op.permute_dims(result, back)) if back != sorted(back) else result)
    return results


def select_best(
    ctx: Context, x: relax.Expr, k: int, dtype: str, largest: bool
) -> tuple[relax.Expr, relax.Expr]:
    """The best ``k`` of each row of ``x`` [rows, n], best first, and their int64 positions, both [rows, k].

    Of equal elements the one at the lower position is better. A row is selected through a heap with the worst
    kept element on top, which is then sorted in place: O(n log k).
    """
    rows, extent = ctx.shape(x)

    def body(source: Any, values: Any, indices: Any) -> None:
        with T.parallel(rows) as row:
            heap = _Heap(values, indices, row, dtype, largest)
            with T.serial(k) as j:
                heap.push(source[row, j], j)
            with T.serial(extent - k) as step:
                j = step + k
                with T.If(heap.ahead(source[row, j], values[row, 0])), T.Then():
                    heap.replace_top(source[row, j], j.astype("int64"), k)
            with T.serial(k - 1) as step:
                heap.move_top_to(k - 1 - step)

    values, indices = loops(ctx, "top_k", [x], [((rows, k), dtype), ((rows, k), "int64")], body)
    return values, indices


class _Heap:
    """A binary heap in one row of two buffers; every parent is worse than its children."""

    def __init__(self, values: Any, indices: Any, row: Any, dtype: str, largest: bool) -> None:
        self.values, self.indices, self.row, self.largest = values, indices, row, largest
        self.value, self.index = local(dtype), local("int64")
        self.position, self.child = local("int32"), local("int32")

    def ahead(self, a: Any, b: Any) -> Any:
        """True where value ``a`` is strictly better than ``b``."""
        return a > b if self.largest else a < b

    def worse(self, value: Any, index: Any, at: Any) -> Any:
        """True where ``value`` at ``index`` is worse than the element at ``at``."""
        other, position = self.values[self.row, at], self.indices[self.row, at]
        return tirx.any(self.ahead(other, value), tirx.all(other == value, position < index))

    def push(self, value: Any, index: Any) -> None:
        """Add an element at the end, ``index`` being both its position and the number of elements so far."""
        self.value[0], self.index[0] = value, index.astype("int64")
        self.position[0] = index
        parent = (self.position[0] - 1) // 2
        with T.While(tirx.all(self.position[0] > 0, self.worse(value, self.index[0], tirx.max(parent, 0)))):
            self._move(parent, self.position[0])
            self.position[0] = parent
        self._store(self.position[0])

    def replace_top(self, value: Any, index: Any, size: Any) -> None:
        """Replace the worst of ``size`` elements and restore the order."""
        self.value[0], self.index[0] = value, index
        self._sift_down(size)

    def move_top_to(self, last: Any) -> None:
        """Swap the worst element with the one at ``last`` and restore the order before it."""
        self.value[0], self.index[0] = self.values[self.row, last], self.indices[self.row, last]
        self._move(0, last)
        self._sift_down(last)

    def _sift_down(self, size: Any) -> None:
        self.position[0] = 0
        self.child[0] = self._worst_child(size)
        with T.While(self.child[0] < size):
            self._move(self.child[0], self.position[0])
            self.position[0] = self.child[0]
            self.child[0] = self._worst_child(size)
        self._store(self.position[0])

    def _worst_child(self, size: Any) -> Any:
        """The worse child of ``position`` if it is worse than the element being placed, else ``size``."""
        left = self.position[0] * 2 + 1
        right = tirx.min(left + 1, size - 1)
        inside = tirx.min(left, size - 1)
        pick_right = self.worse(self.values[self.row, right], self.indices[self.row, right], inside)
        child = tirx.Select(pick_right, right, inside)
        other, position = self.values[self.row, child], self.indices[self.row, child]
        sinks = tirx.any(
            self.ahead(self.value[0], other), tirx.all(other == self.value[0], self.index[0] < position)
        )
        return tirx.Select(tirx.all(left < size, sinks), child, size)

    def _move(self, source: Any, target: Any) -> None:
        self.values[self.row, target] = self.values[self.row, source]
        self.indices[self.row, target] = self.indices[self.row, source]

    def _store(self, target: Any) -> None:
        self.values[self.row, target] = self.value[0]
        self.indices[self.row, target] = self.index[0]
