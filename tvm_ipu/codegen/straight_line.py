"""Read a fused Relax ``main`` as a straight line of kernel calls over values in memory."""

from __future__ import annotations

import re

from tvm import relax

from tvm_ipu.base.errors import ModelError
from tvm_ipu.base.model import LAYERS_ATTR, SLICE, VIEW_OPS, Model
from tvm_ipu.base.program import Space
from tvm_ipu.base.tensor import DType
from tvm_ipu.codegen.in_place import Join, Step, dense_copy, place_parts
from tvm_ipu.codegen.tensors import ConstantPool, Storage, Value
from tvm_ipu.kernels.constants import constant


def straight_line(model: Model, pool: ConstantPool) -> tuple[list[Step], list[Value]]:
    """Steps of ``main`` in order, and the values of its outputs.

    Args:
        model: Its ``main`` has bindings of ``call_tir``, views, tuples and aliases only.
        pool: Receives the constants.
    """
    reader = _Reader(model, pool)
    main = model.module["main"]
    for index, (param, spec) in enumerate(zip(main.params, model.inputs, strict=True)):
        storage = Storage(Space.INPUT, spec.nbytes, index)
        reader.values[param] = [Value(storage, spec.shape, spec.dtype)]
    for block in main.body.blocks:
        for binding in block.bindings:
            reader.values[binding.var] = reader.read(binding.var, binding.value)
    outputs = reader.tensors(main.body.body)
    return place_parts(reader.items, outputs), outputs


class _Reader:
    def __init__(self, model: Model, pool: ConstantPool) -> None:
        self.model = model
        self.pool = pool
        self.items: list[Step | Join] = []
        self.values: dict[relax.Var, list[Value]] = {}
        attrs = model.module.attrs
        self.layers = iter(attrs[LAYERS_ATTR]) if attrs is not None and LAYERS_ATTR in attrs else iter(())

    def tensors(self, expr: relax.Expr) -> list[Value]:
        """Values of an expression: one for a tensor, several for a tuple."""
        if isinstance(expr, relax.Var):
            return self.values[expr]
        array = constant(expr)
        if array is not None:
            dtype = DType.parse(str(expr.ty.dtype))
            return [Value(self.pool.add(array), tuple(array.shape), dtype)]
        if isinstance(expr, relax.Tuple):
            return [value for field in expr.fields for value in self.tensors(field)]
        raise ModelError(f"code generation: cannot place a {type(expr).__name__} in memory")

    def read(self, var: relax.Var, expr: relax.Expr) -> list[Value]:
        """Values of one binding; a call becomes a step."""
        if isinstance(expr, relax.TupleGetItem):
            return [self.tensors(expr.tuple_value)[expr.index]]
        if not isinstance(expr, relax.Call):
            return self.tensors(expr)
        name, layer = getattr(expr.op, "name", ""), str(next(self.layers, var.name))
        if name in VIEW_OPS:
            return [self._view(expr, layer)]
        if name == "relax.call_pure_packed":
            return [self._part(expr, layer)]
        if name == "relax.call_tir":
            return self._call(expr, layer)
        raise ModelError(
            f"code generation: operator '{name}' of layer '{layer}' has no kernel",
            "report this model: the importer should have refused it",
        )

    def _view(self, expr: relax.Call, layer: str) -> Value:
        """The same bytes in another shape."""
        (source,) = self.tensors(expr.args[0])
        if not source.is_dense:
            source, copied = dense_copy(source, layer)
            self.items.append(copied)
        return Value(source.storage, tuple(int(d) for d in expr.ty.shape), source.dtype)

    def _part(self, expr: relax.Call, layer: str) -> Value:
        """A slice or a concatenation that was marked to move no data."""
        name, *args = expr.args
        shape = tuple(int(d) for d in expr.ty.shape)
        if name.global_symbol == SLICE:
            (source,) = self.tensors(args[0])
            return source.part(int(args[1].value), shape[-1])
        operands = tuple(value for arg in args for value in self.tensors(arg))
        result = _new_value(shape, operands[0].dtype)
        self.items.append(Join(result, operands, layer))
        return result

    def _call(self, call: relax.Call, layer: str) -> list[Value]:
        outputs = []
        types = call.ty.fields if isinstance(call.ty, relax.TupleType) else [call.ty]
        for ty in types:
            shape, dtype = tuple(int(d) for d in ty.shape), DType.parse(str(ty.dtype))
            outputs.append(_new_value(shape, dtype))
        callee = call.args[0]
        if any(value.nbytes for value in outputs):
            args = (*self.tensors(call.args[1]), *outputs)
            self.items.append(Step(self.model.module[callee], args, layer, _op_label(callee.name_hint)))
        return outputs


def _new_value(shape: tuple[int, ...], dtype: DType) -> Value:
    value = Value(Storage(Space.ARENA, 0, row=shape[-1] if shape else 1), shape, dtype)
    value.storage.size = value.nbytes
    return value


def _op_label(function: str) -> str:
    """Kind of operator, from the name of its function: ``fused_conv2d1_add_relu`` -> ``conv2d_add_relu``."""
    parts = function.removeprefix("fused_").split("_")
    return "_".join(
        re.sub(r"(?<=[a-z])\d+$", "", part) if not part.endswith(("1d", "2d", "3d")) else part
        for part in parts
    )
